"""Tasks by name: our own, and those of lm-evaluation-harness."""

import difflib
from collections.abc import Callable, Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from aunet.errors import ConfigError
from aunet.evals import cute, flores, noise
from aunet.evals.answers import Answers
from aunet.evals.options import TaskOptions
from aunet.evals.results import TaskResult

Run = Callable[[Answers, TaskOptions], list[TaskResult]]
OWN: Mapping[str, Run] = {
    "cute": cute.run,
    "flores": lambda answers, options: flores.run(answers, flores.FloresOptions(**vars(options))),
    "noise": lambda answers, options: noise.run(answers, noise.NoiseOptions(**vars(options))),
}
"""Tasks that the harness does not have, or not as the paper has them."""
ALIASES = {"siqa": "social_iqa"}
"""Other names that tasks of the harness go by."""


def run_tasks(names: Sequence[str], answers: Answers, options: TaskOptions) -> list[TaskResult]:
    """Score tasks; ours first, then the harness's together. ConfigError for a name that nobody knows."""
    chosen = list(dict.fromkeys(ALIASES.get(name, name) for name in names))
    if not chosen or not all(chosen):
        raise ConfigError("--tasks: an empty name; write for instance --tasks hellaswag,gsm8k")
    theirs = [name for name in chosen if name not in OWN]
    if theirs:
        from aunet.evals import harness_tasks

        known = harness_tasks.names()
        for name in theirs:
            if name not in known:
                near = difflib.get_close_matches(name, [*OWN, *ALIASES, *known], 3)
                raise ConfigError(
                    f"--tasks: {name} is unknown; " + (f"near to it: {', '.join(near)}" if near else "lm_eval ls tasks")
                )
    results = [result for name in chosen if name in OWN for result in OWN[name](answers, options)]
    return results + (harness_tasks.run(theirs, answers, options) if theirs else [])


def table(results: Sequence[TaskResult]) -> Table:
    """One row per metric of a task."""
    view = Table(box=None, pad_edge=False)
    for column in ("task", "metric"):
        view.add_column(column, overflow="fold")
    for column in ("value", "95% interval", "examples", "in the prompt"):
        view.add_column(column, justify="right")
    for one in results:
        bounds = "" if one.low == one.high else f"{one.low:.4f} to {one.high:.4f}"
        kind = f" ({one.settings['filter']})" if "filter" in one.settings else ""
        shots = str(one.settings.get("fewshot", ""))
        view.add_row(escape(one.task), escape(one.metric + kind), f"{one.value:.4f}", bounds, f"{one.n:,}", shots)
    return view

"""Tasks by name: our own, and those of lm-evaluation-harness."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from aunet.errors import ConfigError
from aunet.evals import cute, flores, noise
from aunet.evals.answers import Answers
from aunet.evals.flores import FloresOptions
from aunet.evals.noise import NoiseOptions
from aunet.evals.options import TaskOptions, own_options
from aunet.evals.results import TaskResult


@dataclass(frozen=True)
class OwnTask:
    """A task of ours: what it does, and what can be asked of it."""

    run: Callable[[Answers, Any], list[TaskResult]]
    options: type[TaskOptions] = TaskOptions


OWN: Mapping[str, OwnTask] = {
    "cute": OwnTask(cute.run),
    "flores": OwnTask(flores.run, FloresOptions),
    "noise": OwnTask(noise.run, NoiseOptions),
}
"""Tasks that the harness does not have, or not as the paper has them."""
ALIASES = {"siqa": "social_iqa"}
"""Other names that tasks of the harness go by."""


def options_of(names: Sequence[str], common: TaskOptions, given: Sequence[str] = ()) -> dict[str, TaskOptions]:
    """The options of those of our tasks that are named, with what TASK.KEY=VALUE sets; ConfigError if that is amiss."""
    return own_options({name: OWN[name].options for name in names if name in OWN}, common, given)


def choose(names: Sequence[str]) -> list[str]:
    """Each task once, by its own name; ConfigError for a name that nobody knows."""
    chosen = list(dict.fromkeys(ALIASES.get(name, name) for name in names))
    if not chosen or not all(chosen):
        raise ConfigError("--tasks: an empty name; write for instance --tasks hellaswag,gsm8k")
    if set(chosen) - set(OWN):
        from aunet.evals import harness_tasks

        known = [*OWN, *harness_tasks.names()]
        for name in chosen:
            if name not in known:
                near = difflib.get_close_matches(name, [*ALIASES, *known], 3)
                raise ConfigError(
                    f"--tasks: {name} is unknown; " + (f"near to it: {', '.join(near)}" if near else "lm_eval ls tasks")
                )
    return chosen


def run_tasks(
    names: Sequence[str], answers: Answers, common: TaskOptions, own: Mapping[str, TaskOptions] | None = None
) -> list[TaskResult]:
    """Score tasks; ours first, by their `own` options (`options_of`), then the harness's together.

    ConfigError for a name that nobody knows.
    """
    chosen = choose(names)
    own = options_of(chosen, common) if own is None else own
    theirs = [name for name in chosen if name not in OWN]
    results = [result for name in chosen if name in OWN for result in OWN[name].run(answers, own[name])]
    if theirs:
        from aunet.evals import harness_tasks

        results += harness_tasks.run(theirs, answers, common)
    return results


def table(results: Sequence[TaskResult]) -> Table:
    """One row per metric of a task."""
    view = Table(box=None, pad_edge=False)
    for column in ("task", "metric"):
        view.add_column(column, overflow="fold")
    for column in ("value", "95% interval", "examples", "in the prompt"):
        view.add_column(column, justify="right")
    for one in results:
        bounds = "" if one.low == one.high else f"{one.low:.4f} to {one.high:.4f}"
        shots = str(one.settings.get("fewshot", ""))
        view.add_row(escape(one.task), escape(one.measure), f"{one.value:.4f}", bounds, f"{one.n:,}", shots)
    return view

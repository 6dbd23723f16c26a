"""Tasks of lm-evaluation-harness, with intervals, and scored as the paper scores them beside the harness's own metrics.

The paper takes the answer of lowest negative log-likelihood per character, `acc_chars` here. The harness has, where a
task asks for them: `acc`, by the likelihood itself; `acc_norm`, per character; `acc_bytes`, per byte. All count the
characters of an answer without the space before it.
"""

import copy
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from aunet.errors import AUNetError, MissingExtra
from aunet.evals import statistics
from aunet.evals.answers import Answers
from aunet.evals.harness import AnswersLM
from aunet.evals.local import with_local_data
from aunet.evals.options import TaskOptions
from aunet.evals.results import HASH, TaskResult, data_hash
from aunet.evals.statistics import Interval

try:
    import lm_eval
    from lm_eval import evaluator
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._factory import TaskFactory
    from lm_eval.tasks._index import Kind
except ImportError:
    raise MissingExtra("lm_eval", "eval", "evaluation on tasks") from None

RATIOS: dict[str, Callable[[float], float]] = {
    "bits_per_byte": lambda nats: nats / math.log(2),
    "byte_perplexity": math.exp,
    "word_perplexity": math.exp,
}
"""Metrics of whole texts, from nats per byte or word."""
HASHES = ("doc_hash", "prompt_hash", "target_hash")
"""What the harness has of each example: its record, the prompt with what it shows before it, the answer."""
Samples = Sequence[Mapping[str, Any]]


@cache
def _manager() -> TaskManager:
    return TaskManager()


def names() -> list[str]:
    """Of all tasks, groups and tags of the harness."""
    return list(_manager().all_tasks)


class _LocalFactory(TaskFactory):
    """Builds tasks on local files."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory

    def _load_full_config(self, entry: Any, overrides: Any = None) -> dict[str, Any]:
        config: dict[str, Any] = super()._load_full_config(entry, overrides)
        if entry.kind is Kind.PY_TASK:
            raise AUNetError(f"{entry.name}: fetches its own data, so it cannot be run with --data-dir")
        return with_local_data(config, self._directory) if entry.kind is Kind.TASK else config


def run(tasks: Sequence[str], answers: Answers, options: TaskOptions) -> list[TaskResult]:
    """Score tasks, groups and tags of the harness; AUNetError for one whose data cannot be had."""
    with _quiet():
        loaded = _load(tasks, options)
        for name, task in loaded["tasks"].items():
            _prepare(name, task, options)
        found = evaluator.evaluate(
            lm=AnswersLM(answers), task_dict=loaded, limit=options.limit, bootstrap_iters=0, log_samples=True
        )
    results: list[TaskResult] = []
    for name, task in loaded["tasks"].items():
        results += _task_results(name, task, found, options)
    for name, group in loaded["groups"].items():
        members = [task.task_name for task in group.get_all_tasks()]
        results += _group_results(name, [one for one in results if one.task in members], len(members), options)
    return results


def _load(tasks: Sequence[str], options: TaskOptions) -> dict[str, Any]:
    manager = copy.copy(_manager())
    manager._index = dict(manager.task_index)  # building tasks adds to it
    if options.data_dir:
        manager._factory = _LocalFactory(options.data_dir)
    loaded: dict[str, Any] = {"tasks": {}, "groups": {}, "group_map": {}}
    for name in dict.fromkeys(tasks):
        try:
            one = manager.load([name])
        except AUNetError:
            raise
        except Exception as error:  # whatever the hub, its libraries and a task's own code raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
            mend = "are its files whole?" if options.data_dir else "offline, name a directory of data: --data-dir DIR"
            raise AUNetError(f"{name}: the task cannot be made ready ({reason}); {mend}") from None
        for part in loaded:
            loaded[part] |= one[part]
    return loaded


def _prepare(name: str, task: Any, options: TaskOptions) -> None:
    """Number and choice of the examples in the prompt, by the rules of the harness."""
    shots = task.get_config("num_fewshot")
    # 0 in the configuration of a task means that it has no place for examples.
    shots = shots or 0 if options.fewshot is None or shots == 0 else options.fewshot
    task.set_config(key="num_fewshot", value=shots)
    task.set_fewshot_seed(seed=options.seed)
    pool = len(task.sampler.df) if hasattr(task, "sampler") else shots
    # The harness leaves a question out of its own prompt where the examples are of the split that is scored.
    needed = shots + (task.fewshot_cfg.split == task.config.test_split)
    if shots and needed > pool > 0:
        raise AUNetError(f"{name}: {shots} examples in the prompt need {needed} and there are {pool}; --fewshot")


def _task_results(name: str, task: Any, found: Mapping[str, Any], options: TaskOptions) -> list[TaskResult]:
    scores, samples = found["results"][name], found["samples"][name]
    shots = found["n-shot"][name]
    settings: dict[str, Any] = {
        "fewshot": shots,
        "limit": options.limit,
        "split": task.config.test_split or task.config.validation_split,
        "data": "local" if options.data_dir else "hub",
        "version": found["versions"].get(name),
        "lm_eval": lm_eval.__version__,
    }
    if shots:
        settings["fewshot_split"] = task.fewshot_cfg.split or task.config.training_split
    results = []
    by_filter: dict[str, list[Mapping[str, Any]]] = {}
    for sample in samples:
        by_filter.setdefault(sample["filter"], []).append(sample)
    once = next(iter(by_filter.values()), [])
    settings[HASH] = data_hash(sample[part] for sample in once for part in HASHES)
    for kind, these in by_filter.items():
        more = {} if kind == "none" else {"filter": kind}
        for metric in these[0]["metrics"]:
            value = scores.get(f"{metric},{kind}")
            if isinstance(value, Real):
                at, examples = _interval(metric, float(value), [sample[metric] for sample in these], options.seed)
                results.append(_result(name, metric, at, len(these), options, settings | more, examples))
    if (right := _by_characters(task, samples)) is not None:
        at = statistics.mean(right, options.seed)
        results.insert(0, _result(name, "acc_chars", at, len(right), options, settings, tuple(right)))
    return results


def _interval(metric: str, value: float, scores: Sequence[Any], seed: int) -> tuple[Interval, tuple[float, ...]]:
    """The harness's value with bounds, and the scores of the examples where they average to it."""
    if all(isinstance(score, Real) for score in scores):
        examples = tuple(map(float, scores))
        found = statistics.mean(examples, seed)
        if math.isclose(found.value, value, rel_tol=1e-6, abs_tol=1e-9):
            return found, examples
    elif metric in RATIOS and all(len(score) == 2 for score in scores):
        nats, sizes = zip(*scores, strict=True)
        ratio = statistics.ratio_of_sums(-np.asarray(nats), np.asarray(sizes, dtype=np.float64), seed)
        return Interval(value, RATIOS[metric](ratio.low), RATIOS[metric](ratio.high)), ()
    return Interval(value, value, value), ()


def _by_characters(task: Any, samples: Samples) -> list[float] | None:
    """1.0 for each example whose likeliest answer per character is right; None for tasks without such answers.

    Nor for those that judge by code of their own: there several answers may be right (truthfulqa_mc2), or none is
    (crows_pairs), and the target says nothing.
    """
    if task.OUTPUT_TYPE != "multiple_choice" or callable(task.config.process_results):
        return None
    right = []
    for sample in samples:
        if sample["filter"] != samples[0]["filter"]:
            continue
        choices = task.doc_to_choice(sample["doc"])
        gold = task.doc_to_text(sample["doc"]) if task.multiple_input else sample["target"]
        golds = {choices.index(one) if one in choices else one for one in (gold if isinstance(gold, list) else [gold])}
        delimiter = task.config.target_delimiter
        asked = zip(sample["arguments"][: len(choices)], sample["filtered_resps"], strict=False)
        per_character = [log / max(1, len(args[1].removeprefix(delimiter))) for args, (log, _) in asked]
        right.append(float(per_character.index(max(per_character)) in golds))
    return right


def _group_results(
    name: str, results: Sequence[TaskResult], members: int, options: TaskOptions
) -> Iterator[TaskResult]:
    """The mean over the examples of all tasks of a group, for the measures that all of them have."""
    for measure in dict.fromkeys(one.measure for one in results):
        of = [one for one in results if one.measure == measure]
        if len(of) != members or not all(one.examples for one in of):
            continue
        examples = tuple(score for one in of for score in one.examples)
        read = data_hash(one.settings[HASH] for one in of)
        settings = {**of[0].settings, "tasks": [one.task for one in of], HASH: read}
        yield _result(
            name, of[0].metric, statistics.mean(examples, options.seed), len(examples), options, settings, examples
        )


def _result(
    name: str,
    metric: str,
    at: Interval,
    n: int,
    options: TaskOptions,
    settings: Mapping[str, Any],
    examples: tuple[float, ...],
) -> TaskResult:
    return TaskResult(name, metric, at.value, at.low, at.high, n, options.seed, settings, examples)


@contextmanager
def _quiet() -> Iterator[None]:
    """The harness warns of what we set on purpose."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)

"""Results of several models on the same tasks, side by side, with paired differences to the last one."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from aunet.errors import AUNetError, ConfigError
from aunet.evals import cute, flores, statistics
from aunet.evals.results import HASH, TaskResult
from aunet.evals.statistics import Interval

LARGEST_FILE = 256 << 20
"""Bytes; the scores of ten million examples."""
LARGEST_COUNT = 1 << 20
"""In a sentence."""
LARGEST_SUM = 1 << 53
"""Bytes of all examples, exact in a float."""
Key = tuple[str, str]
"""Task and measure."""

_RESULTS = TypeAdapter(list[TaskResult])


@dataclass(frozen=True)
class ModelResults:
    """What a file holds."""

    name: str
    results: dict[Key, TaskResult]


@dataclass(frozen=True)
class Row:
    """A measure of a task, by model; None where a model has not been asked."""

    task: str
    metric: str
    results: tuple[TaskResult | None, ...]
    differences: tuple[Interval | None, ...]
    """Of each model but the last to the last one, on the same examples; None where these are not the same."""

    @property
    def benchmark(self) -> str:
        """What the name of the task begins with."""
        return self.task.partition("_")[0]


def read_results(paths: Sequence[Path]) -> list[ModelResults]:
    """Files that `aunet eval MODEL --tasks ... --json` wrote, each named by its file; AUNetError for another file."""
    if len({path.resolve() for path in paths}) != len(paths):
        raise ConfigError("compare: a file is named twice")
    for called in (lambda path: path.stem, lambda path: str(path.with_suffix("")), str):
        names = [os.fsencode(called(path)).decode(errors="replace") for path in paths]
        if len(set(names)) == len(names):
            break
    return [ModelResults(name, _read(path)) for name, path in zip(names, paths, strict=True)]


def compare(models: Sequence[ModelResults], seed: int = statistics.SEED) -> list[Row]:
    """A row for each metric of each task that any model was asked for, in the order of the files."""
    keys = dict.fromkeys(key for model in models for key in model.results)
    rows = []
    for key in keys:
        found = tuple(model.results.get(key) for model in models)
        differences = tuple(_difference(ours, models[-1], key, seed) for ours in models[:-1])
        rows.append(Row(*key, found, differences))
    return rows


def by_benchmark(rows: Sequence[Row]) -> Iterator[tuple[str, str, list[Row]]]:
    """Rows of the same benchmark and metric together: both, and the rows."""
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        groups.setdefault((row.benchmark, row.metric), []).append(row)
    for (benchmark, metric), own in groups.items():
        yield benchmark, metric, own


def _difference(ours: ModelResults, theirs: ModelResults, key: Key, seed: int) -> Interval | None:
    our, their = ours.results.get(key), theirs.results.get(key)
    if our is None or their is None or not _asked_alike(our, their):
        return None
    if our.task in cute.AVERAGES:
        return _averages(ours, theirs, our, seed)
    if our.examples and len(our.examples) == len(their.examples):
        if our.sizes and our.sizes == their.sizes:
            return statistics.difference_of_ratios(our.examples, their.examples, our.sizes, seed)
        return statistics.difference(our.examples, their.examples, seed)
    our_counts, their_counts = _counts(ours, our), _counts(theirs, their)
    if our_counts and their_counts:
        return flores.corpus_difference(our.metric, our_counts, their_counts, seed)
    return None


def _averages(ours: ModelResults, theirs: ModelResults, average: TaskResult, seed: int) -> Interval | None:
    """Drawn as the averages are: every task counts the same, and its examples are drawn on their own."""
    apart = []
    for part in cute.AVERAGES[average.task]:
        key = (f"cute_{part}", average.measure)
        our, their = ours.results.get(key), theirs.results.get(key)
        if not our or not their or not our.examples or len(our.examples) != len(their.examples):
            return None
        apart.append([mine - other for mine, other in zip(our.examples, their.examples, strict=True)])
    return statistics.mean_of_means(apart, seed)


def _asked_alike(ours: TaskResult, theirs: TaskResult) -> bool:
    """The same examples in the same way, drawn alike where something is drawn.

    A hash of the examples counts where both have one: older files have none.
    """
    settings = [dict(one.settings) for one in (ours, theirs)]
    if not all(HASH in one for one in settings):
        for one in settings:
            one.pop(HASH, None)
    return settings[0] == settings[1] and (ours.n, ours.seed) == (theirs.n, theirs.seed)


def _counts(model: ModelResults, result: TaskResult) -> list[flores.Counts]:
    """Of a result, or of the parts of an average; empty where there are none."""
    parts = result.settings.get("tasks", [result.task])
    if not isinstance(parts, list | tuple):
        return []
    found = [model.results.get((str(part), result.measure)) for part in parts]
    counts = [one.counts for one in found if one and one.counts and one.n == result.n]
    return list(counts) if len(counts) == len(parts) else []


def _read(path: Path) -> dict[Key, TaskResult]:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise AUNetError(f"{path} is larger than {LARGEST_FILE >> 20} MiB, which no file of results is")
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AUNetError(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise AUNetError(f"{path} is not JSON; write it with aunet eval MODEL --tasks ... --json") from None
    if not isinstance(value, dict) or not isinstance(value.get("results"), list):
        raise AUNetError(f"{path} has no list 'results'; write it with aunet eval MODEL --tasks ... --json")
    try:
        found = _RESULTS.validate_python(value["results"])
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise AUNetError(f"{path}: results.{place}: {first['msg']}") from None
    for result in found:
        if not all(map(isfinite, (result.value, result.low, result.high, *result.examples))):
            raise AUNetError(f"{path}: the scores of {result.task} are not finite")
        if result.sizes and not (len(result.sizes) == len(result.examples) and 0 < sum(result.sizes) < LARGEST_SUM):
            raise AUNetError(f"{path}: the sizes of {result.task} are not those of its examples")
        chance = result.settings.get("chance")
        if isinstance(chance, float | int) and not 0 <= chance <= 1:
            raise AUNetError(f"{path}: the chance of {result.task} is not from 0 to 1")
        if result.counts and not _sound(result):
            raise AUNetError(f"{path}: the counts of {result.task} are not those of {result.metric}")
    return {(result.task, result.measure): result for result in found}


def _sound(result: TaskResult) -> bool:
    width = flores.WIDTHS.get(result.metric)
    fits = len(result.counts) == result.n and all(len(row) == width for row in result.counts)
    return fits and all(0 <= value <= LARGEST_COUNT for row in result.counts for value in row)

"""Which runs stand for a family: budgets, repetitions, the best.

A budget is a set of runs whose useful FLOPs lie close together, whatever their family. In a budget, the runs of a
family that differ only in their seed are repetitions of one setting, on the same text and with the same tokenizer, told
by what stands in the files: a configuration has their names alone. Of runs that share the seed too, such as the best
of a sweep and the same run again, the first by name counts. The setting that stands for the family is the one
with the lowest mean among those with the most repetitions: what was repeated was chosen before.
"""

import fnmatch
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aunet.errors import AUNetError
from aunet.scaling import laws
from aunet.scaling.intervals import mean_documents
from aunet.scaling.records import DocumentScore, Record, setting

WITHIN = 1.01
"""Settings that count for the laws of learning rate and batch size: within 1% of the best loss (paper, section 3)."""


@dataclass(frozen=True)
class Setting:
    """Complete runs of one family at one budget that differ only in their seed."""

    records: tuple[Record, ...]

    @property
    def first(self) -> Record:
        """The run with the lowest seed, for what repetitions share."""
        return self.records[0]

    def loss(self, valid: str) -> float:
        """Mean bits per byte."""
        return sum(record.bits_per_byte[valid] for record in self.records) / len(self.records)

    def documents(self, valid: str) -> tuple[DocumentScore, ...]:
        """Mean bits of every document; AUNetError where the runs were not scored on the same ones."""
        try:
            return mean_documents([record.documents[valid] for record in self.records])
        except AUNetError as error:
            names = ", ".join(record.name for record in self.records)
            raise AUNetError(f"{names} on {valid}: {error}; give one of the sets another name") from None

    def mean(self, name: str) -> float:
        """Mean of a number of the records."""
        return sum(getattr(record, name) for record in self.records) / len(self.records)


@dataclass(frozen=True)
class Cell:
    """A family at a budget."""

    family: str
    compute: float
    """Useful FLOPs of the budget: the geometric mean over all its runs."""
    settings: tuple[Setting, ...]
    unfinished: tuple[Record, ...]
    """Runs that failed or were pruned, by the FLOPs that were planned."""

    def scored(self, valid: str) -> tuple[Setting, ...]:
        """Settings that were scored on a set."""
        return tuple(s for s in self.settings if all(valid in record.bits_per_byte for record in s.records))

    def best(self, valid: str) -> Setting | None:
        """The setting that stands for the family; None if none was scored on the set."""
        found = self.scored(valid)
        most = max((len(s.records) for s in found), default=0)
        return min((s for s in found if len(s.records) == most), key=lambda s: s.loss(valid), default=None)

    def close(self, valid: str) -> tuple[Setting, ...]:
        """Settings within 1% of the lowest loss; of those that share learning rate and batch size, the best."""
        found = sorted(self.scored(valid), key=lambda s: s.loss(valid))
        near = [s for s in found if s.loss(valid) <= WITHIN * found[0].loss(valid)]
        # From the worst to the best, so that the best is what stays.
        return tuple({(s.first.lr, s.first.batch): s for s in reversed(near)}.values())

    @property
    def tuned(self) -> int:
        """Points of learning rate and batch size that were tried, failed ones included."""
        records = [*(s.first for s in self.settings), *self.unfinished]
        return len({(record.lr, record.batch) for record in records})


def cells(records: Sequence[Record]) -> list[Cell]:
    """Every family at every budget, by budget and family.

    Runs that ended early join the budget for which they were planned, which may be one of their own.
    """
    complete = [record for record in records if record.complete]
    if not complete:
        raise AUNetError("no record is of a complete run, so there is nothing to compare")
    members = _grouped(complete, [record.compute_flops for record in complete])
    planned = [_middle(record.planned_flops for record in of) for of in members]
    early: list[list[Record]] = [[] for _ in members]
    alone: list[Record] = []
    for record in records:
        if not record.complete:
            number = min(range(len(planned)), key=lambda n: _factor(planned[n], record.planned_flops))
            near = _factor(planned[number], record.planned_flops) <= laws.SAME_BUDGET
            (early[number] if near else alone).append(record)
    found = []
    for of, ended in zip(members, early, strict=True):
        found += _of_families(_middle(record.compute_flops for record in of), of, ended)
    for ended in _grouped(alone, [record.planned_flops for record in alone]):
        found += _of_families(_middle(record.planned_flops for record in ended), [], ended)
    return sorted(found, key=lambda cell: (cell.compute, cell.family))


def _grouped(records: Sequence[Record], compute: Sequence[float]) -> list[list[Record]]:
    """Records by budget."""
    found: dict[int, list[Record]] = {}
    for number, record in zip(laws.budgets(compute), records, strict=True):
        found.setdefault(number, []).append(record)
    return list(found.values())


def _of_families(compute: float, complete: Sequence[Record], ended: Sequence[Record]) -> list[Cell]:
    """The cells of a budget."""
    found = []
    for family in sorted({record.family for record in (*complete, *ended)}):
        own = settings(record for record in complete if record.family == family)
        found.append(Cell(family, compute, own, tuple(record for record in ended if record.family == family)))
    return found


def settings(records: Iterable[Record]) -> tuple[Setting, ...]:
    """Complete runs, repetitions together."""
    found: dict[str, dict[tuple[int, int], Record]] = {}
    for record in sorted(records, key=lambda record: (record.seed, record.name)):
        read = [record.data_hash.get(name) for name in ("train", "tokenizer")]
        key = json.dumps([setting(record.config, seeds=False), read], sort_keys=True)
        seeds = (record.seed, record.config["data"].get("seed", 0))
        found.setdefault(key, {}).setdefault(seeds, record)
    return tuple(Setting(tuple(of_seeds.values())) for of_seeds in found.values())


def families(records: Sequence[Record]) -> list[str]:
    """Names of all families."""
    return sorted({record.family for record in records})


def of_families(records: Sequence[Record], patterns: Sequence[str]) -> tuple[Record, ...]:
    """The records of families that match a pattern (* and ? as of file names), all where there are none.

    AUNetError for a pattern that nothing matches.
    """
    known = families(records)
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(family, pattern) for family in known):
            raise AUNetError(f"--family: no record is of family {pattern!r}; known: {', '.join(known) or 'none'}")
    return tuple(r for r in records if not patterns or any(fnmatch.fnmatchcase(r.family, one) for one in patterns))


def valid_sets(records: Sequence[Record]) -> list[str]:
    """All validation sets, in the order in which the records name them."""
    return list(dict.fromkeys(name for record in records for name in record.bits_per_byte))


def valid_set(records: Sequence[Record], name: str | None) -> str:
    """The set that is asked for, or the first; AUNetError if no record was scored on it."""
    known = valid_sets(records)
    if name is None and known:
        return known[0]
    if not known:
        raise AUNetError("no record is of a complete run, so there is nothing to compare")
    if name not in known:
        raise AUNetError(f"--valid: no record was scored on {name!r}; known: {', '.join(known)}")
    return name


def _middle(values: Iterable[float]) -> float:
    """Geometric mean; of FLOPs, so that 1 is as good as none."""
    logs = [math.log(max(value, 1.0)) for value in values]
    return math.exp(sum(logs) / len(logs))


def _factor(a: float, b: float) -> float:
    """Between two FLOPs, at least 1."""
    return math.exp(abs(math.log(max(a, 1.0) / max(b, 1.0))))

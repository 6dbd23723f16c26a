"""Laws of every family from its records: batch size and learning rate, loss."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from aunet.errors import AUNetError, ConfigError
from aunet.scaling.laws import FittedPowerLaw, LossLaw, budgets, fit_loss, fit_power
from aunet.scaling.records import Record
from aunet.scaling.selection import Cell, cells, families, valid_set

FLOPS: dict[str, str] = {"useful": "compute_flops", "paper": "paper_flops"}
"""The key of a record by the kind of FLOPs that laws are laws of."""


@dataclass(frozen=True)
class FamilyFit:
    """What the records of a family say."""

    family: str
    batch: FittedPowerLaw | None
    """Units per step."""
    lr: FittedPowerLaw | None
    loss: LossLaw | None
    notes: tuple[str, ...]
    """What limits these laws."""


@dataclass(frozen=True)
class Fit:
    """Laws of all families."""

    valid: str
    flops: str
    """useful or paper."""
    reference: float
    """The compute of the largest budget, at which laws are compared; at C = 1 a power law says nothing."""
    families: tuple[FamilyFit, ...]

    def of(self, family: str) -> FamilyFit:
        """The laws of a family."""
        return next(fit for fit in self.families if fit.family == family)

    def to_json(self) -> dict[str, Any]:
        """As JSON values; a law that could not be fitted is null."""
        return {
            "valid": self.valid,
            "flops": self.flops,
            "reference": self.reference,
            "families": {
                fit.family: {
                    "batch": _law_json(fit.batch, self.reference),
                    "lr": _law_json(fit.lr, self.reference),
                    "loss": _law_json(fit.loss, self.reference),
                    "notes": list(fit.notes),
                }
                for fit in self.families
            },
        }


def fit_records(
    records: Sequence[Record], valid: str | None = None, flops: str = "useful", irreducible: float | None = None
) -> Fit:
    """Fit the laws of every family; AUNetError if there is none with two budgets.

    Batch size and learning rate: of all settings within 1% of the best loss of their budget. Loss: of the setting that
    stands for the family at each budget, the mean over its seeds, which share what its tuning missed.
    """
    if flops not in FLOPS:
        raise ConfigError(f"--flops: {flops!r} is not one of {', '.join(FLOPS)}")
    name = valid_set(records, valid)
    found = cells(records)
    fits = [
        _fit_family(family, [cell for cell in found if cell.family == family], name, flops, irreducible)
        for family in families(records)
    ]
    if not any(fit.loss for fit in fits):
        notes = "; ".join(f"{fit.family}: {fit.notes[0]}" for fit in fits)
        raise AUNetError(f"no law can be fitted: {notes}; a law needs runs at two budgets at least")
    key = FLOPS[flops]
    reference = max(best.mean(key) for cell in found if (best := cell.best(name)))
    return Fit(name, flops, reference, tuple(fits))


def _fit_family(family: str, own: Sequence[Cell], valid: str, flops: str, irreducible: float | None) -> FamilyFit:
    key = FLOPS[flops]
    there = [cell for cell in own if cell.best(valid)]
    best = [chosen for cell in there if (chosen := cell.best(valid))]
    # Two budgets of all families may lie close together for this one, or in the FLOPs that are asked for.
    if not _at_two_budgets([one.mean(key) for one in best]):
        at = f"one budget, {there[0].compute:.2g} FLOPs" if there else f"no complete run on {valid}"
        return FamilyFit(family, None, None, None, (at,))
    loss = fit_loss([one.mean(key) for one in best], [one.loss(valid) for one in best], irreducible)
    tuned = [cell for cell in there if cell.tuned > 1]
    notes = [note for cell in there for note in _edges(cell, valid)]
    if loss.kind == "a C^-b":
        notes.append(f"{len(there)} budgets tell no irreducible loss: E is taken to be 0")
    if loss.samples is None:
        notes.append("no more budgets than parameters: the loss law has no band")
    close = [(setting.mean(key), setting.first) for cell in tuned for setting in cell.close(valid)]
    compute = [spent for spent, _ in close]
    if len(tuned) < 2 or not _at_two_budgets(compute):
        notes.append("learning rate and batch size were searched at fewer than two budgets: no laws of them")
        return FamilyFit(family, None, None, loss, tuple(notes))
    batch = fit_power(compute, [float(record.batch) for _, record in close])
    lr = fit_power(compute, [record.lr for _, record in close])
    return FamilyFit(family, batch, lr, loss, tuple(notes))


def _at_two_budgets(compute: Sequence[float]) -> bool:
    return len(set(budgets(compute))) > 1


def _edges(cell: Cell, valid: str) -> list[str]:
    """Best settings at the edge of what was tried, runs that failed included, beyond which there may be better ones."""
    best = cell.best(valid)
    tried = [*(setting.first for setting in cell.scored(valid)), *cell.unfinished]
    notes = []
    for name, title in (("lr", "learning rate"), ("batch", "batch size")):
        values = {getattr(record, name) for record in tried}
        chosen = best and getattr(best.first, name)
        if len(values) > 2 and chosen in (min(values), max(values)):
            side = "lowest" if chosen == min(values) else "highest"
            notes.append(f"at {cell.compute:.2g} FLOPs the best {title}, {chosen:.3g}, is the {side} tried")
    return notes


def _law_json(law: FittedPowerLaw | LossLaw | None, reference: float) -> dict[str, Any] | None:
    if law is None:
        return None
    values: dict[str, Any] = {"kind": law.kind if isinstance(law, LossLaw) else "a C^b"}
    values |= {name: _number(getattr(law, name)) for name in law.parameters}
    intervals = law.intervals
    values["intervals"] = intervals and {name: list(map(_number, bounds)) for name, bounds in intervals.items()}
    band = law.band(reference)
    return {**values, "at_reference": law.at(reference), "band_at_reference": band and list(band), "points": law.points}


def _number(value: float) -> float | None:
    """As JSON has it: an `a` that no float holds is null."""
    return value if math.isfinite(value) else None


def table(fit: Fit) -> Table:
    """One row for each law, for the terminal."""
    header, rows = law_rows(fit, brief=True)
    view = Table(box=None, pad_edge=False)
    for i, column in enumerate(header):
        view.add_column(column, justify="right" if i > 1 else "left", overflow="fold")
    for row in rows:
        view.add_row(*map(escape, row))  # a family may have any name
    return view


def law_rows(fit: Fit, brief: bool = False) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Header and rows: family, law, value at the reference, parameters, number of points; as text.

    `brief` leaves out the bounds of a and E, which say little where both move along a valley.
    """
    rows = []
    for of in fit.families:
        kind = of.loss.kind if of.loss else ""
        for name, law in ((f"loss = {kind}", of.loss), ("batch = a C^b", of.batch), ("lr = a C^b", of.lr)):
            if law is not None:
                at = _bounded(law.at(fit.reference), law.band(fit.reference))
                parameters = (_parameter(law, key, bounds=not brief or key == "b") for key in ("b", "a", "E"))
                rows.append((of.family, name, at, *parameters, str(law.points)))
    return ("family", "law", f"at C = {fit.reference:.2g}", "b", "a", "E", "points"), tuple(rows)


def _parameter(law: FittedPowerLaw | LossLaw, key: str, bounds: bool) -> str:
    if key not in law.parameters:
        return ""
    intervals = law.intervals if bounds else None
    return _bounded(getattr(law, key), intervals[key] if intervals else None)


def _bounded(value: float, bounds: tuple[float, float] | None) -> str:
    text = f"{value:.3g}"
    if not bounds or math.isclose(*bounds, abs_tol=1e-12):
        return text
    return f"{text} ({bounds[0]:.3g} to {bounds[1]:.3g})"

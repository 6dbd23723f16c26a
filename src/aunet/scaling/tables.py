"""The tables of a report, as text that both its forms show: results by validation set, laws, tuning, what failed."""

from collections.abc import Iterable, Sequence

from aunet.errors import AUNetError
from aunet.magnitudes import short
from aunet.report.tables import Table, interval
from aunet.scaling.fit import Fit, law_rows
from aunet.scaling.intervals import bits_per_byte, ratio
from aunet.scaling.plots import power_of_ten
from aunet.scaling.records import Record
from aunet.scaling.selection import Cell, Setting


def results(found: Sequence[Cell], valid: str, tuned_for: str, baseline: str | None) -> Table:
    """Bits per byte on a set, of the setting that stands for each family at each budget by the set it was tuned for.

    `baseline`: a family that the others are divided by, document by document, where it has a run at the budget.
    """
    full = valid == tuned_for
    header = ["budget", "family", "bits per byte"]
    header += [f"ratio to {baseline}"] if baseline else []
    header += ["seeds", "useful FLOPs", "bytes read", "epochs"] if full else ["seeds", "useful FLOPs"]
    header += ["parameters", "bytes/s"] if full else []
    rows = []
    for compute in sorted({cell.compute for cell in found}):
        here = [
            (cell.family, best)
            for cell in found
            if cell.compute == compute and (best := cell.best(tuned_for)) and _has(best, valid)
        ]
        against = next((best for family, best in here if family == baseline), None)
        for family, best in sorted(here, key=lambda pair: pair[1].loss(valid)):
            row = [power_of_ten(compute), family, interval(bits_per_byte(best.documents(valid)), 3)]
            if baseline:
                row.append(_ratio(best, against, valid, family == baseline))
            row += [_seeds(best, valid), f"{best.mean('compute_flops'):.3g}"]
            if full:
                epochs = best.first.epochs
                row += [short(best.mean("bytes_read")), "" if epochs is None else f"{epochs:.2g}"]
                row += [short(best.first.parameters), short(best.mean("bytes_per_second"))]
            rows.append(tuple(row))
    note = "95% intervals over documents. "
    note += "Ratios are paired: both models on the same documents; below 1 is better. " if baseline else ""
    if not full:
        note += f"The settings are those that were best on {tuned_for}; nothing was tuned for this set."
    return Table(f"Bits per byte on {valid}", note.strip(), tuple(header), tuple(rows))


def check_baseline(records: Sequence[Record], baseline: str | None) -> None:
    """AUNetError if no record is of this family."""
    known = sorted({record.family for record in records})
    if baseline is not None and baseline not in known:
        raise AUNetError(f"--baseline: no record is of family {baseline!r}; known: {', '.join(known)}")


def laws(fit: Fit) -> Table:
    """The fitted laws with their bounds."""
    header, rows = law_rows(fit)
    notes = [f"{of.family}: {note}." for of in fit.families for note in of.notes]
    note = f"C in {fit.flops} FLOPs; 95% intervals by the bootstrap. E, a and b move together. " + " ".join(notes)
    return Table("Fitted laws", note.strip(), header, rows)


def tuning(found: Sequence[Cell], valid: str) -> Table:
    """How many points of learning rate and batch size each family was given at each budget, and what was best."""
    rows = []
    for cell in found:
        records = [*(record for setting in cell.settings for record in setting.records), *cell.unfinished]
        counts = [sum(r.status == status for r in records) for status in ("complete", "failed", "pruned")]
        best = cell.best(valid)
        rows.append(
            (
                power_of_ten(cell.compute),
                cell.family,
                str(cell.tuned),
                *(str(count) for count in counts),
                _range(r.lr for r in records),
                f"{best.first.lr:.3g}" if best else "",
                _range(r.batch for r in records),
                short(best.first.batch) if best else "",
            )
        )
    header = ("budget", "family", "points", "complete", "failed", "pruned", "lr tried", "best", "batch tried", "best")
    note = "Points are different pairs of learning rate and batch size (units per step); runs include repetitions."
    return Table("What was tuned", note, header, tuple(rows))


def failures(records: Sequence[Record]) -> Table:
    """Runs without a result, and why."""
    rows = tuple((r.name, r.family, r.status, r.reason) for r in records if not r.complete)
    return Table("Runs that did not end", "", ("run", "family", "how", "why"), rows, names=4)


def _has(setting: Setting, valid: str) -> bool:
    return all(valid in record.bits_per_byte for record in setting.records)


def _ratio(ours: Setting, theirs: Setting | None, valid: str, same: bool) -> str:
    if theirs is None:
        return ""
    if same:
        return "1"
    try:
        return interval(ratio(ours.documents(valid), theirs.documents(valid)), 3)
    except AUNetError as error:
        names = f"{ours.first.name} and {theirs.first.name} on {valid}"
        raise AUNetError(f"{names}: {error}; give one of the sets another name") from None


def _seeds(setting: Setting, valid: str) -> str:
    found = [record.bits_per_byte[valid] for record in setting.records]
    return "1" if len(found) == 1 else f"{len(found)}: {min(found):.3f} to {max(found):.3f}"


def _range(values: Iterable[float]) -> str:
    found = sorted(values)
    ends = [f"{value:.3g}" if value < 1 else short(value) for value in (found[0], found[-1])]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"

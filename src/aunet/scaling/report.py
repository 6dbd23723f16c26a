"""The report of a set of records: one page that stands alone, and the same as Markdown with its figures beside it."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from aunet.errors import AUNetError, MissingExtra
from aunet.evals.statistics import SAMPLES, SEED
from aunet.files import make_directory, replacing
from aunet.report.figures import write
from aunet.report.tables import Table, html, in_markdown, markdown, sheet
from aunet.report.theme import opening, theme
from aunet.scaling import tables
from aunet.scaling.fit import Fit, fit_records
from aunet.scaling.plots import draw
from aunet.scaling.records import Record
from aunet.scaling.selection import cells, families, valid_set, valid_sets

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
TITLE = "Runs at matched compute"
FIGURES = {
    "loss": "Loss against compute",
    "isoflop": "Loss against size, at equal compute",
    "tuning": "Learning rates and batch sizes",
}
CAPTIONS = {
    "loss": "Large marks stand for their family, small ones are other settings tried; lines are fitted laws with their "
    "95% bands.",
    "isoflop": "The best setting of every size; a curve is a parabola through three sizes or more.",
    "tuning": "A ring marks the lowest loss, a cross what the fitted laws say, a three-pointed star a run that failed.",
}
METHOD = (
    "Bits per byte are of whole documents: the bits of their bytes and of their ends, over their bytes. Budgets are "
    "runs whose useful FLOPs (what the mathematics needs, head included) lie within 25% of each other.",
    "A family stands at a budget with the setting of the lowest mean among those repeated with the most seeds, and the "
    "mean is shown. The lowest of several points is a little lower than what its setting gives on average.",
    f"Intervals are by {SAMPLES:,} samples of the documents with replacement, drawn with seed {SEED}; they answer for "
    "the choice of documents, not for the seeds of runs.",
)


def write_report(
    records: Sequence[Record], out: Path, valid: str | None = None, baseline: str | None = None
) -> tuple[Path, Path]:
    """Write `out/report.html`, `out/report.md` and `out/figures/`; returns the first two.

    `valid`: the set that settings were tuned for, the first that the records name if none. `baseline`: a family that
    the others are compared with, document by document. AUNetError where there is nothing to report.
    """
    name = valid_set(records, valid)
    tables.check_baseline(records, baseline)
    fit = laws_if_any(records, name)
    figures = draw(records, name, fit)
    shown = _tables(records, name, baseline, fit)
    make_directory(out, "--out")
    write(figures, out / "figures")
    paths = out / "report.html", out / "report.md"
    for path, text in zip(paths, (_html(records, shown, figures), _markdown(records, shown, figures)), strict=True):
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")
    return paths


def laws_if_any(records: Sequence[Record], valid: str) -> Fit | None:
    """The laws; None where there are too few budgets, and the report does without."""
    try:
        return fit_records(records, valid)
    except MissingExtra:
        raise
    except AUNetError:
        return None


def _tables(records: Sequence[Record], valid: str, baseline: str | None, fit: Fit | None) -> list[Table]:
    found = cells(records)
    sets = [valid, *(name for name in valid_sets(records) if name != valid)]
    shown = [tables.results(found, name, valid, baseline) for name in sets]
    shown += [tables.laws(fit)] if fit else []
    shown.append(tables.tuning(found, valid))
    failed = tables.failures(records)
    return [*shown, failed] if failed.rows else shown


def _facts(records: Sequence[Record]) -> list[tuple[str, str]]:
    complete = [record for record in records if record.complete]
    return [
        ("runs", str(len(records))),
        ("complete", str(len(complete))),
        ("families", str(len(families(records)))),
        ("budgets", str(len({cell.compute for cell in cells(records)}))),
        ("useful FLOPs in all", f"{sum(record.compute_flops for record in records):.2g}"),
        ("hours in all", f"{sum(record.seconds for record in records) / 3600:.3g}"),
    ]


def _provenance(records: Sequence[Record]) -> list[str]:
    """Code, machines and texts, each once."""
    codes = {(r.code.version, r.code.commit or "no commit", r.code.sources[:12]) for r in records}
    lines = [f"Code: aunet {version}, {commit[:12]}, sources {sources}." for version, commit, sources in sorted(codes)]
    lines += [f"Machine: {machine}." for machine in sorted({record.hardware for record in records})]
    dates = sorted(record.date for record in records)
    lines.append(f"Trained: {dates[0]}." if dates[0] == dates[-1] else f"Trained: {dates[0]} to {dates[-1]}.")
    hashes = sorted({(name, value) for record in records for name, value in record.data_hash.items()})
    for name in dict.fromkeys(name for name, _ in hashes):
        found = [value[:12] for key, value in hashes if key == name]
        same = len(found) == 1 or name == "tokenizer"  # of which families have their own
        differ = "" if same else f" (not all runs are on the same text: {len(found)} differ)"
        lines.append(f"Text {name}: SHA-256 {', '.join(found)}{differ}.")
    return lines


def _markdown(records: Sequence[Record], shown: Sequence[Table], figures: Mapping[str, str]) -> str:
    parts = [f"# {TITLE}", ", ".join(f"{name}: {value}" for name, value in _facts(records)) + "."]
    blocks = [markdown(table) for table in shown]
    drawn = [f"## {FIGURES[name]}\n\n![{FIGURES[name]}](figures/{name}.svg)\n\n{CAPTIONS[name]}" for name in figures]
    parts += [blocks[0], *drawn, *blocks[1:], "## How it was measured", *METHOD]
    parts.append("\n".join(f"- {in_markdown(line)}" for line in _provenance(records)))
    return "\n\n".join(parts) + "\n"


def _html(records: Sequence[Record], shown: Sequence[Table], figures: Mapping[str, str]) -> str:
    style = theme() + sheet()
    facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in _facts(records))
    blocks = [html(table) for table in shown]
    drawn = [
        f'<figure class="{name}"><figcaption><h2>{FIGURES[name]}</h2><p>{CAPTIONS[name]}</p></figcaption>\n'
        f"{text}</figure>\n"
        for name, text in figures.items()
    ]
    notes = "".join(f"<p>{escape(line)}</p>" for line in (*METHOD, *_provenance(records)))
    return f"""{opening(TITLE, POLICY, style)}<header>
<p class="kind">aunet scale report</p>
<h1>{TITLE}</h1>
</header>
<dl class="facts">{facts}</dl>
{blocks[0]}
{"".join(drawn)}
{"".join(blocks[1:])}
<section class="notes"><h2>How it was measured</h2>{notes}</section>
</main>
</body>
</html>
"""

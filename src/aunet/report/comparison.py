"""Models side by side on tasks: tables with intervals and differences, and a figure, as pages."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from aunet.errors import AUNetError
from aunet.evals.compare import ModelResults, Row, by_benchmark, compare
from aunet.evals.statistics import SAMPLES, Interval
from aunet.files import make_directory, replacing
from aunet.report.figures import PAPER, look, styled, svg, write
from aunet.report.tables import Table, html, interval, latex, markdown, sheet
from aunet.report.theme import opening, theme

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
TITLE = "Models on tasks"
FIGURE = "compare"
LESS_IS_BETTER = ("bits_per_byte", "byte_perplexity", "word_perplexity", "perplexity")
METHOD = (
    f"Scores are shown with their 95% intervals, by {SAMPLES:,} samples of the examples with replacement; they answer "
    "for the choice of examples, not for the seed of training. Differences are paired: both models on the same "
    "examples. A star marks those whose interval leaves out zero; of twenty differences that are none, one gets a star."
)
ROW, PANEL = 0.34, 0.9
"""Inches that a task, and what is around the tasks of a panel, take in the figure."""


def tables(models: Sequence[ModelResults]) -> list[Table]:
    """One table for each metric of each benchmark, tasks by models."""
    return [_table(*group, [model.name for model in models]) for group in by_benchmark(compare(models))]


def write_comparison(models: Sequence[ModelResults], out: Path) -> list[Path]:
    """Write `compare.md`, `compare.html`, `compare.tex` and `compare.svg` in a directory; their paths."""
    shown, figure = tables(models), draw(models)
    make_directory(out, "--out")
    texts = {
        "md": "\n\n".join([f"# {TITLE}", f"![{TITLE}]({FIGURE}.svg)", *map(markdown, shown), METHOD]) + "\n",
        "html": _page(shown, figure),
        "tex": "\n\n".join(map(latex, shown)) + "\n",
    }
    paths = []
    for suffix, text in texts.items():
        paths.append(out / f"{FIGURE}.{suffix}")
        with replacing(paths[-1]) as partial:
            partial.write_text(text, encoding="utf-8")
    return paths + write({FIGURE: figure}, out)


def draw(models: Sequence[ModelResults]) -> str:
    """Scores with their intervals, a panel for each metric of each benchmark, as SVG."""
    groups = list(by_benchmark(compare(models)))
    if not groups:
        raise AUNetError("compare: no file has a result")
    heights = [PANEL + ROW * len(rows) for _, _, rows in groups]
    with styled() as Figure:
        figure = Figure(figsize=(7.4, sum(heights) + 0.5), layout="constrained")
        panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
        handles: list[Any] = []
        for axes, (benchmark, metric, rows) in zip(panels, groups, strict=True):
            drawn = _panel(axes, rows, len(models))
            handles = handles or drawn
            axes.set(title=f"{benchmark}: {metric.replace('_', ' ')}")
        # Given, because matplotlib leaves out a label that begins with an underscore.
        figure.legend(handles, [model.name for model in models], loc="outside lower center", ncols=min(4, len(models)))
        return svg(figure, FIGURE, "Scores of models on tasks, with 95% intervals.")


def _panel(axes: Any, rows: Sequence[Row], models: int) -> list[Any]:
    """Draw it; what stands for each model."""
    handles = []
    for k in range(models):
        drawn = look(k)
        found = [(i, row.results[k]) for i, row in enumerate(rows)]
        scored = [(i + (k + 1) / (models + 1) - 0.5, one) for i, one in found if one]
        values = [one.value for _, one in scored]
        # Where a score is rounded by whoever wrote it, its bounds may lie beyond it by that.
        ends = [[max(0.0, end) for end in (one.value - one.low, one.high - one.value)] for _, one in scored]
        bars = axes.errorbar(
            values,
            [y for y, _ in scored],
            xerr=list(zip(*ends, strict=True)) or None,
            fmt=drawn.marker,
            color=drawn.colour,
            markersize=5,
            markeredgecolor=PAPER.light,
            elinewidth=1.4,
        )
        handles.append(bars)
    axes.set_yticks(range(len(rows)), [row.task for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    return handles


def _table(benchmark: str, metric: str, rows: Sequence[Row], names: Sequence[str]) -> Table:
    digits = 1 if max(one.value for row in rows for one in row.results if one) > 2 and metric != "bits_per_byte" else 3
    chances = [next((one.settings.get("chance") for one in row.results if one), None) for row in rows]
    known = any(chance is not None for chance in chances)
    header = ["task", "n", *(["chance"] if known else []), *names, *(f"{name} less {names[-1]}" for name in names[:-1])]
    cells = []
    for row, chance in zip(rows, chances, strict=True):
        sizes = " / ".join(dict.fromkeys(f"{one.n:,}" for one in row.results if one))
        scores = [interval(Interval(one.value, one.low, one.high), digits) if one else "" for one in row.results]
        apart = [f"{interval(one, digits)}{'*' if one.apart else ''}" if one else "" for one in row.differences]
        guess = [f"{chance:.{digits}f}" if isinstance(chance, float | int) else ""] if known else []
        cells.append((row.task, sizes, *guess, *scores, *apart))
    note = "Less is better. " if metric in LESS_IS_BETTER else ""
    if any(all(row.results) and None in row.differences for row in rows):
        note += "No difference is given where there are no scores of the same examples, asked in the same way."
    return Table(f"{benchmark}: {metric.replace('_', ' ')}", note.strip(), tuple(header), tuple(cells), names=1)


def _page(shown: Sequence[Table], figure: str) -> str:
    return f"""{opening(TITLE, POLICY, theme() + sheet())}<header>
<p class="kind">aunet compare</p>
<h1>{TITLE}</h1>
</header>
<figure>{figure}</figure>
{"".join(map(html, shown))}
<section class="notes"><h2>How it was measured</h2><p>{escape(METHOD)}</p></section>
</main>
</body>
</html>
"""

"""The figures of a set of records: loss against compute, isoFLOP curves, learning rates and batch sizes tried."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from aunet.magnitudes import short
from aunet.report.curve import decades
from aunet.report.figures import INK, MUTED, PAPER, Look, look, styled, svg
from aunet.scaling.fit import FLOPS, Fit
from aunet.scaling.records import Record
from aunet.scaling.selection import Cell, Setting, cells, families

WORST = 1.12
"""Losses above this multiple of the worst that stands for a family are off the figure: diverged points say nothing."""
WORST_IN_CLOUD = 10.0
"""Per cent above the best from which on a point has the last colour."""
LINE_INCHES = 0.19
"""Height of a line of text, and what goes with a name in a legend: its letters, its line and the space about them."""
LETTER_INCHES, HANDLE_INCHES = 0.083, 0.75


def draw(records: Sequence[Record], valid: str, fit: Fit | None = None) -> dict[str, str]:
    """All figures that the records have data for, as SVG by name; the laws of `fit` are drawn where there are any."""
    found = cells(records)
    looks = {family: look(i) for i, family in enumerate(families(records))}
    made: dict[str, str | None] = {
        "loss": _loss(found, looks, valid, fit),
        "isoflop": _isoflop(found, looks, valid),
        "tuning": _tuning(found, valid, fit),
    }
    return {name: text for name, text in made.items() if text is not None}


def power_of_ten(value: float) -> str:
    """A compute or a learning rate as text, with one digit where that is right within 5%, as budgets are named.

    >>> power_of_ten(9.86e12), power_of_ten(3.4e14), power_of_ten(5e-4)
    ('1e13', '3.4e14', '5e-4')
    """
    rounded = float(f"{value:.0e}")
    value = rounded if abs(rounded / value - 1) < 0.05 else value
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def _loss(found: Sequence[Cell], looks: Mapping[str, Look], valid: str, fit: Fit | None) -> str | None:
    """Loss against compute: every setting tried, the one that stands for its family, the law with its band."""
    best = [(cell, chosen) for cell in found if (chosen := cell.best(valid))]
    if not best:
        return None
    key = FLOPS[fit.flops] if fit else "compute_flops"
    losses = [chosen.loss(valid) for _, chosen in best]
    low, high = min(losses), max(losses)
    with styled() as Figure:
        figure = Figure(figsize=(7.4, max(4.6, 0.8 + LINE_INCHES * len(looks))), layout="constrained")
        axes = figure.add_subplot()
        ends = {}
        for family, drawn in looks.items():
            own = sorted(((c, s) for c, s in best if c.family == family), key=lambda pair: pair[1].mean(key))
            if not own:
                continue
            x, y = [s.mean(key) for _, s in own], [s.loss(valid) for _, s in own]
            others = [s for c, _ in own for s in c.scored(valid)]
            axes.scatter(
                [s.mean(key) for s in others],
                [s.loss(valid) for s in others],
                s=9,
                color=drawn.colour,
                alpha=0.35,
                linewidths=0,
                clip_on=True,
            )
            law = fit.of(family).loss if fit else None
            if law:
                grid = np.geomspace(x[0], x[-1], 60)
                axes.plot(grid, [law.at(C) for C in grid], color=drawn.colour, linestyle=drawn.dash, linewidth=1.6)
                bands = [band for C in grid if (band := law.band(C))]
                if bands:
                    axes.fill_between(grid, *zip(*bands, strict=True), color=drawn.colour, alpha=0.13, linewidth=0)
            axes.plot(x, y, drawn.marker, color=drawn.colour, markersize=6.5, markeredgecolor=PAPER.light)
            ends[family] = (x[-1], y[-1])
        room = 0.08 * (high - low) + 0.01 * high
        axes.set(xscale="log", xlabel=f"{fit.flops if fit else 'useful'} FLOPs", ylabel=f"bits per byte on {valid}")
        axes.set_ylim(low - room, min(WORST * high, high + 3 * room))
        _round_ticks(axes.xaxis, power_of_ten)
        _label_ends(axes, ends, looks)
        what = "Bits per byte against compute; large marks stand for their family, small ones are other settings tried."
        return svg(figure, "loss", what)


def _label_ends(axes: Any, ends: Mapping[str, tuple[float, float]], looks: Mapping[str, Look]) -> None:
    """Names in the right margin, at the height of the last points and moved apart where they are close."""
    names = sorted(ends, key=lambda family: ends[family][1])
    for family, y in zip(names, apart([ends[family][1] for family in names], *axes.get_ylim()), strict=True):
        drawn = looks[family]
        place = {"xycoords": axes.get_yaxis_transform(), "va": "center"}
        axes.annotate(family, (1.0, y), xytext=(20, 0), textcoords="offset points", color=drawn.colour, **place)
        axes.plot(
            [1.025],
            [y],
            drawn.marker,
            color=drawn.colour,
            clip_on=False,
            transform=place["xycoords"],
            markersize=5,
        )


def apart(heights: Sequence[float], low: float, high: float) -> list[float]:
    """Places of labels in [low, high], a line apart or as far as fits, in the order of their ascending heights.

    >>> apart([0.0, 0.0, 9.0], 0.0, 10.0)
    [0.0, 0.5, 9.0]
    """
    gap = (high - low) / max(20, len(heights))
    places: list[float] = []
    for height in heights:
        places.append(max(height, places[-1] + gap if places else low))
    for i in reversed(range(len(places))):
        places[i] = min(places[i], places[i + 1] - gap if i + 1 < len(places) else high)
    return places


Measure = tuple[str, Callable[[Setting], float]]
SIZES: tuple[Measure, ...] = (
    ("parameters", lambda setting: float(setting.first.parameters)),
    ("useful FLOPs per byte read", lambda setting: setting.mean("compute_flops") / setting.mean("bytes_read")),
)


def _isoflop(found: Sequence[Cell], looks: Mapping[str, Look], valid: str) -> str | None:
    """At each budget, loss against the size of the model: the best setting of each size of each family."""
    budgets = sorted({cell.compute for cell in found if cell.best(valid)})
    shown = [family for family in looks if any(cell.family == family and cell.best(valid) for cell in found)]
    if not shown:
        return None
    with styled() as Figure:
        width = min(max(3.9, 2.4 * len(budgets)) + 0.6, 12.0)
        across = max(1, int(width / (HANDLE_INCHES + LETTER_INCHES * max(map(len, shown)))))
        height = 5.2 + LINE_INCHES * math.ceil(len(shown) / across)
        figure = Figure(figsize=(width, height), layout="constrained")
        grid = figure.subplots(len(SIZES), len(budgets), squeeze=False, sharey="col")
        for row, (title, measure) in enumerate(SIZES):
            for column, budget in enumerate(budgets):
                axes = grid[row][column]
                for family in shown:
                    own = [cell for cell in found if cell.family == family and cell.compute == budget]
                    points = sorted(by_size(own, measure, valid).items())
                    _iso_curve(axes, points, looks[family], family if row == column == 0 else None)
                axes.set(xscale="log")
                _round_ticks(axes.xaxis, short)
                if row == 0:
                    axes.set_title(f"{power_of_ten(budget)} FLOPs")
                axes.set_xlabel(title)
                if column == 0:
                    axes.set_ylabel(f"bits per byte on {valid}")
        handles = [_handle(looks[family], family) for family in shown]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(across, len(shown)))
        return svg(figure, "isoflop", "Bits per byte against the size of the model, at each budget.")


def _handle(drawn: Look, name: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=drawn.colour, marker=drawn.marker, linestyle=drawn.dash, label=name)


def by_size(own: Sequence[Cell], measure: Callable[[Setting], float], valid: str) -> dict[float, float]:
    """The lowest loss of every model, by its size; the lowest too where models of one family are equally large."""
    models: dict[str, Setting] = {}
    for cell in own:
        for setting in cell.scored(valid):
            key = str(setting.first.config["model"])
            if key not in models or setting.loss(valid) < models[key].loss(valid):
                models[key] = setting
    # From the worst to the best, so that the best is what stays.
    worst_first = sorted(models.values(), key=lambda setting: -setting.loss(valid))
    return {measure(setting): setting.loss(valid) for setting in worst_first}


def _iso_curve(axes: Any, points: Sequence[tuple[float, float]], drawn: Look, name: str | None) -> None:
    """Points, and from three on the parabola in the logarithm of the size."""
    if not points:
        return
    x, y = np.array(points).T
    axes.plot(x, y, drawn.marker, color=drawn.colour, markersize=6, markeredgecolor=PAPER.light, label=name)
    if len(x) >= 3:
        curve = np.polynomial.Polynomial.fit(np.log(x), y, 2)
        grid = np.geomspace(x[0], x[-1], 60)
        axes.plot(grid, curve(np.log(grid)), color=drawn.colour, linestyle=drawn.dash, linewidth=1.4)
    elif len(x) == 2:
        axes.plot(x, y, color=drawn.colour, linestyle=drawn.dash, linewidth=1.0, alpha=0.6)


def _tuning(found: Sequence[Cell], valid: str, fit: Fit | None) -> str | None:
    """Learning rates and batch sizes tried, coloured by their loss; the best ringed, the fitted laws crossed."""
    shown = [cell for cell in found if len(cell.scored(valid)) > 2]
    if not shown:
        return None
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    with styled() as Figure:
        figure = Figure(figsize=(2.75 * columns + 0.4, 2.3 * rows + 0.9), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat[len(shown) :]:
            axes.set_axis_off()
        for axes, cell in zip(grid.flat, shown, strict=False):
            cloud = _cloud(axes, cell, valid, fit)
        for axes in grid[:, 0]:
            axes.set_ylabel("batch, units per step")
        for axes in grid.flat[max(0, len(shown) - columns) : len(shown)]:
            axes.set_xlabel("learning rate")
        bar = figure.colorbar(cloud, ax=grid, location="bottom", aspect=45, shrink=0.7, extend="max")
        bar.set_label("per cent above the lowest loss of the panel")
        bar.outline.set_edgecolor(MUTED.light)
        what = "Learning rates and batch sizes tried, by loss; a ring marks the best, a cross what the laws say."
        return svg(figure, "tuning", what)


def _cloud(axes: Any, cell: Cell, valid: str, fit: Fit | None) -> Any:
    tried = cell.scored(valid)
    lowest = min(setting.loss(valid) for setting in tried)
    ordered = sorted(tried, key=lambda setting: -setting.loss(valid))
    x, y = [s.first.lr for s in ordered], [s.first.batch for s in ordered]
    above = [100 * (s.loss(valid) / lowest - 1) for s in ordered]
    cloud = axes.scatter(
        x, y, c=above, cmap="viridis_r", vmin=0, vmax=WORST_IN_CLOUD, s=46, edgecolors=INK.light, linewidths=0.6
    )
    axes.scatter(x[-1:], y[-1:], s=150, facecolors="none", edgecolors=INK.light, linewidths=1.4)
    laws = fit.of(cell.family) if fit else None
    if laws and laws.lr and laws.batch and fit:
        compute = ordered[-1].mean(FLOPS[fit.flops])
        at = ([laws.lr.at(compute)], [laws.batch.at(compute)])
        axes.plot(*at, "x", color=INK.light, markersize=8, markeredgewidth=1.8)
    early = [record for record in cell.unfinished if record.status == "failed"]
    axes.scatter([r.lr for r in early], [r.batch for r in early], marker="1", color=MUTED.light, s=60)
    axes.set(xscale="log", yscale="log", title=f"{cell.family}, {power_of_ten(cell.compute)}")
    axes.margins(0.12)
    _round_ticks(axes.xaxis, power_of_ten)
    _round_ticks(axes.yaxis, short)
    return cloud


def _round_ticks(axis: Any, text: Callable[[float], str]) -> None:
    """Powers of ten on a logarithmic axis, or also their multiples by 2 and 5 where there are few."""
    axis.set_ticks(decades(*axis.get_view_interval()))
    axis.set_major_formatter(lambda value, _: text(value))
    axis.set_minor_formatter("")
    axis.set_minor_locator(_no_ticks())


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()

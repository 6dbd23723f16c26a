"""How figures look: the colours of families or models, and SVG that follows the reader's light or dark scheme.

Families differ in colour, marker and dash, so that no figure depends on colour alone. The colours keep apart for all
common kinds of colour blindness and have a contrast of 3 or more to the paper. matplotlib draws in the light colours;
in the SVG each becomes a property that a style sheet inside the file sets by the reader's scheme.
"""

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from aunet.errors import MissingExtra
from aunet.files import make_directory, replacing


class Tone(NamedTuple):
    """A colour in both schemes, #rrggbb."""

    light: str
    dark: str


PAPER, INK, MUTED, RULE = (
    Tone("#fdfcf9", "#141311"),
    Tone("#1b1a17", "#ece8df"),
    Tone("#645f55", "#a69f90"),
    Tone("#ddd8cd", "#37332c"),
)
SERIES = (
    Tone("#0b5fa5", "#6fb4ee"),
    Tone("#b9480e", "#f28c4f"),
    Tone("#0a7a5c", "#45c79e"),
    Tone("#8a3d9e", "#cb92e6"),
    Tone("#8f6400", "#dcae45"),
    Tone("#2f8ea8", "#84d5ea"),
    Tone("#b03070", "#f290bd"),
    Tone("#5d5a52", "#bab4a7"),
)
MARKERS = "osD^vPX*"
DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)))
DRAWN_WITH = "DejaVu Sans"
"""Comes with matplotlib, and is wider than what replaces it."""
FACES = "'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif"

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": DRAWN_WITH,
    "font.size": 9.5,
    "text.parse_math": False,  # a name may have dollars
    "text.color": INK.light,
    "axes.labelcolor": INK.light,
    "axes.edgecolor": MUTED.light,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK.light,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE.light,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED.light,
    "ytick.color": MUTED.light,
    "figure.facecolor": PAPER.light,
    "legend.frameon": False,
}


class Look(NamedTuple):
    """How a family is drawn."""

    colour: str
    marker: str
    dash: Any


def look(index: int) -> Look:
    """The look of the i-th family; colours begin again after eight, with other markers and dashes."""
    turned = index + index // len(SERIES)
    return Look(SERIES[index % len(SERIES)].light, MARKERS[turned % len(MARKERS)], DASHES[turned % len(DASHES)])


@contextmanager
def styled() -> Iterator[Any]:
    """matplotlib's `Figure`, to be made and drawn inside the block; MissingExtra without the package."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "scale", "drawing figures") from None
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "aunet"}):
        yield Figure


def svg(figure: Any, name: str, label: str) -> str:
    """A figure as an SVG element with colours of both schemes; `name` goes before its ids, `label` says what it shows.

    The same figure gives the same text.
    """
    text = io.StringIO()
    with warnings.catch_warnings():
        # What the font that measures has no glyph for, the reader's has.
        warnings.filterwarnings("ignore", r"Glyph .* missing from font")
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', drawn)
    drawn = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", drawn)
    drawn = drawn.replace(f"'{DRAWN_WITH}'", FACES)
    tones = {"paper": PAPER, "ink": INK, "muted": MUTED, "rule": RULE}
    tones |= {f"series-{i}": tone for i, tone in enumerate(SERIES)}
    for key, tone in tones.items():
        drawn = drawn.replace(tone.light, f"var(--{key}-of-figure, {tone.light})")
    head = f'<svg class="aunet-figure" role="img" aria-label="{escape(label)}"'
    return drawn.replace("<svg", head, 1).replace("<defs>", f"<style>{_sheet(tones)}</style>\n <defs>", 1)


def write(figures: Mapping[str, str], directory: Path) -> list[Path]:
    """Write each figure as NAME.svg."""
    make_directory(directory, "--out")
    paths = []
    for name, text in figures.items():
        paths.append(directory / f"{name}.svg")
        with replacing(paths[-1]) as partial:
            partial.write_text(text + "\n", encoding="utf-8")
    return paths


def _sheet(tones: dict[str, Tone]) -> str:
    light, dark = ("".join(f"--{key}-of-figure:{tone[scheme]};" for key, tone in tones.items()) for scheme in range(2))
    return f".aunet-figure{{{light}}}@media (prefers-color-scheme: dark){{.aunet-figure{{{dark}}}}}"

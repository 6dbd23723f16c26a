"""The colours of units and bits, the same in the terminal and on pages: pairs of ink and ground, #rrggbb.

Each pair has a contrast of at least 4.5 (WCAG AA). Units of a stage take two tones of one hue in turns, told apart by
lightness. Bits go over eight steps from the colour of paper over orange to dark red (on dark pages: to bright), so more
is always further from the ground. Steps rather than a gradient: eight tones can be named in a legend.
"""

import math
from itertools import pairwise

Pair = tuple[str, str]
"""Ink and ground."""

UNITS_LIGHT: tuple[tuple[Pair, Pair], ...] = (
    (("#06302b", "#b9e4dc"), ("#06302b", "#6dc1b3")),
    (("#101f4d", "#ccd9f8"), ("#101f4d", "#93aeed")),
    (("#321047", "#e4d0f2"), ("#321047", "#c299e0")),
    (("#3d2600", "#f3dcb4"), ("#3d2600", "#deb265")),
)
"""Of stages 2 to 5; deeper stages begin again."""
UNITS_DARK: tuple[tuple[Pair, Pair], ...] = (
    (("#d5f3ed", "#12413a"), ("#e2fbf6", "#1f6b60")),
    (("#dbe5ff", "#1d2d5c"), ("#e6edff", "#354d96")),
    (("#f0e0fb", "#3d2152"), ("#f6ebfd", "#663a87")),
    (("#fbe9c9", "#46320d"), ("#fff2da", "#755519")),
)

LINES_LIGHT = ("#1d8576", "#3f66c9", "#8a4fb5", "#a06a12")
"""Of stages 2 to 5, where units are lines below the text: each has a contrast of at least 3 to the paper."""
LINES_DARK = ("#4fb3a3", "#7f9bea", "#b384d8", "#d09a3a")

HEAT_LIGHT: tuple[Pair, ...] = (
    ("#3b3a36", "#f4f1ea"),
    ("#3a2f26", "#f8e3cb"),
    ("#38241a", "#f6cb9d"),
    ("#331a10", "#f0a768"),
    ("#2b1008", "#e58344"),
    ("#ffffff", "#b84a1e"),
    ("#ffffff", "#8c2c18"),
    ("#ffffff", "#521012"),
)
HEAT_DARK: tuple[Pair, ...] = (
    ("#b5b0a4", "#211f1b"),
    ("#d6cab9", "#35291e"),
    ("#efdcc5", "#4f331d"),
    ("#fbe6cf", "#70401c"),
    ("#fff0e0", "#95501d"),
    ("#1a0f06", "#cc7733"),
    ("#1a0f06", "#ee9d5c"),
    ("#1a0f06", "#ffd0a0"),
)

BOUNDS = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
"""Bits at which the next tone begins; 8 is what a byte costs without a model."""
LABELS = ("0", "½", "1", "2", "3", "4", "6", "8+")
"""Bits at which each tone begins, as written in legends."""


def step(bits: float) -> int:
    """The tone of a number of bits, 0..7; what is not a number has the highest.

    >>> step(0.1), step(0.5), step(7.9), step(80.0), step(float("nan"))
    (0, 1, 6, 7, 7)
    """
    return len(BOUNDS) if math.isnan(bits) else sum(bits >= bound for bound in BOUNDS)


def contrast(pair: Pair) -> float:
    """WCAG contrast ratio of ink and ground, 1..21.

    >>> round(contrast(("#000000", "#ffffff")))
    21
    """
    dark, light = sorted(luminance(colour) for colour in pair)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, 0..1."""
    values = [int(colour[i:j], 16) / 255 for i, j in pairwise((1, 3, 5, 7))]
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue

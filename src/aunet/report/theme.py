"""What all pages share, as custom properties of CSS: paper, ink, faces, and the tones of units and of bits.

A colour has its light and its dark form in one property, so that a page that sets `color-scheme` changes everything.

>>> [line for line in theme().splitlines() if "--bits-0" in line]
['  --bits-0: light-dark(#f4f1ea, #211f1b);', '  --bits-0-ink: light-dark(#3b3a36, #b5b0a4);']
"""

from collections.abc import Iterator
from html import escape
from importlib import resources

from aunet.report import colours


def theme() -> str:
    """A stylesheet of properties only: grounds `--unit-HUE-TONE` and `--bits-STEP`, inks `...-ink`, lines `--line-HUE`.

    `--bits-bounds` and `--bits-labels` are the steps themselves, for scripts.
    """
    shared = resources.files("aunet.report").joinpath("theme.css").read_text(encoding="utf-8")
    lines = "".join(f"  {name}: {value};\n" for name, value in _properties())
    return f"{shared}:root {{\n{lines}}}\n"


def opening(title: str, policy: str, style: str) -> str:
    """The beginning of a page that stands alone, up to its content: `policy` is its Content-Security-Policy."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
"""


def _properties() -> Iterator[tuple[str, str]]:
    for hue, (tones, dark_tones) in enumerate(zip(colours.UNITS_LIGHT, colours.UNITS_DARK, strict=True)):
        for tone in range(2):
            yield from _pair(f"--unit-{hue}-{tone}", tones[tone], dark_tones[tone])
    for hue, (line, dark_line) in enumerate(zip(colours.LINES_LIGHT, colours.LINES_DARK, strict=True)):
        yield f"--line-{hue}", f"light-dark({line}, {dark_line})"
    for step, (light, dark) in enumerate(zip(colours.HEAT_LIGHT, colours.HEAT_DARK, strict=True)):
        yield from _pair(f"--bits-{step}", light, dark)
    yield "--bits-bounds", " ".join(f"{bound:g}" for bound in colours.BOUNDS)
    yield "--bits-labels", " ".join(colours.LABELS)


def _pair(name: str, light: colours.Pair, dark: colours.Pair) -> Iterator[tuple[str, str]]:
    yield name, f"light-dark({light[1]}, {dark[1]})"
    yield f"{name}-ink", f"light-dark({light[0]}, {dark[0]})"

"""A passage in the terminal: the units of each stage and the bits of each byte, in colour or, without colour, in signs.

Every coloured cell sets both its ink and its ground, so it reads the same on dark and on light terminals. Nothing of
the text reaches the terminal as a control sequence: see `aunet.report.passage.visible`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.style import Style
from rich.text import Text

from aunet.report import colours
from aunet.report.passage import Character, Passage

UNIT_STYLES_16 = ("black on bright_cyan", "bright_white on blue")
"""For terminals with the 16 named colours, where two tones of one hue may be the same."""
HEAT_STYLES_16 = (
    *("black on bright_white", "black on bright_white"),
    *("black on bright_yellow", "black on bright_yellow"),
    *("black on bright_red", "black on bright_red"),
    *("bright_white on red", "bright_white on red"),
)
FEW = ("standard", "windows")
"""Colour systems of `rich` with 16 named colours."""
PLAIN = Style()


@dataclass(frozen=True)
class Cell:
    """What cannot be broken over two lines: a character as it is shown."""

    shown: str
    style: Style = PLAIN
    below: str = ""
    """What stands under it."""
    last: bool = False
    """Whether the text itself breaks the line here."""


def render(passage: Passage, rule: str, stages: Sequence[int] | None = None) -> "PassageView":
    """What `rich` prints: the units of each stage from the second on, then the bits of each byte where they are known.

    `rule`: the splitting rule, one part per level. `stages`: which ones to show; all by default.
    """
    return PassageView(passage, rule, tuple(range(2, passage.stages + 1) if stages is None else stages))


@dataclass(frozen=True)
class PassageView:
    """Draws itself for the console that prints it."""

    passage: Passage
    rule: str
    stages: tuple[int, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        system = None if console.no_color else console.color_system
        for stage in self.stages:
            yield self._head(stage)
            yield from _lines(self._units(stage, system), options.max_width)
            yield Text()
        if self.passage.bits is not None:
            yield self._head(1)
            yield from _lines(self._bits(system), options.max_width)
            yield Text()
        yield self._legend(system)

    def _head(self, stage: int) -> Text:
        bits, parts = self.passage.bits_per_byte, self.rule.split("+")
        if stage == 1:
            rest = ["bytes", f"{len(self.passage):,} units", "" if bits is None else f"{bits:.3f} bits per byte"]
        else:
            size = f"{self.passage.contraction(stage):.2f} bytes per unit"
            rest = [*parts[stage - 2 : stage - 1], f"{self.passage.closed(stage):,} units", size]
        return Text.assemble((f"stage {stage}", "bold"), *(f"  {part}" for part in rest if part))

    def _units(self, stage: int, system: str | None) -> Iterator[Cell]:
        tones = _unit_styles(stage, system)
        for k, unit in enumerate(self.passage.units(stage)):
            style = tones[k % 2] + Style(italic=True) if unit.open else tones[k % 2]
            for character in self.passage.characters(unit.start, unit.end):
                shown, last = character.shown, character.text == "\n"
                if system is None:
                    closes = character.end == unit.end and not unit.open
                    shown = ("\\|" if shown == "|" else shown) + ("|" if closes else "")
                yield Cell(shown, style, last=last)

    def _bits(self, system: str | None) -> Iterator[Cell]:
        styles = _heat_styles(system)
        for characters in _drawn_together(self.passage.characters()):
            bits = self.passage.bits_of(characters[0].start, characters[-1].end) or 0.0
            shown = "".join(character.shown for character in characters)
            digit = str(int(bits)) if bits < 10 else "+"
            below = digit if system is None else ""
            yield Cell(shown, styles[colours.step(bits)], below, any(one.text == "\n" for one in characters))

    def _legend(self, system: str | None) -> Text:
        text = Text()
        if system is None:
            text.append("| ends a unit, a bar of the text is \\|")
            if self.passage.bits is not None:
                text.append("; under each character its bits, rounded down, + from ten on")
        elif self.passage.bits is not None:
            text.append("bits of a character ")
            for label, style in zip(colours.LABELS, _heat_styles(system), strict=True):
                text.append(f" {label} ", style=style)
        return text


def _drawn_together(characters: Iterable[Character]) -> Iterator[list[Character]]:
    """Characters with the marks that are drawn on them: accents and vowels that have no width of their own."""
    together: list[Character] = []
    for character in characters:
        if cell_len(character.shown) and any(cell_len(one.shown) for one in together):
            yield together
            together = []
        together.append(character)
    if together:
        yield together


def _unit_styles(stage: int, system: str | None) -> list[Style]:
    """The two styles of a stage's units for a colour system of `rich`."""
    if system is None or system in FEW:
        return [PLAIN if system is None else Style.parse(style) for style in UNIT_STYLES_16]
    pairs = colours.UNITS_LIGHT[(stage - 2) % len(colours.UNITS_LIGHT)]
    return [Style(color=ink, bgcolor=ground) for ink, ground in pairs]


def _heat_styles(system: str | None) -> list[Style]:
    """The styles of the steps of bits for a colour system of `rich`."""
    if system is None or system in FEW:
        return [PLAIN if system is None else Style.parse(style) for style in HEAT_STYLES_16]
    return [Style(color=ink, bgcolor=ground) for ink, ground in colours.HEAT_LIGHT]


def _lines(cells: Iterable[Cell], width: int) -> Iterator[Text]:
    """Lines of at most `width`. Broken here and not by `rich`, which would drop the spaces at a line's end."""
    line: list[Cell] = []
    used = 0
    for cell in cells:
        size = cell_len(cell.shown)
        if line and used + size > width:
            yield from _line(line)
            line, used = [], 0
        line.append(cell)
        used += size
        if cell.last:
            yield from _line(line)
            line, used = [], 0
    if line:
        yield from _line(line)


def _line(cells: Sequence[Cell]) -> Iterator[Text]:
    text = Text(no_wrap=True, overflow="ignore")
    run = ""
    for cell, following in zip(cells, [*cells[1:], None], strict=True):
        run += cell.shown
        if following is None or following.style != cell.style:
            text.append(run, cell.style)
            run = ""
    yield text
    if any(cell.below for cell in cells):
        yield Text("".join(cell.below.ljust(cell_len(cell.shown)) for cell in cells), no_wrap=True, overflow="ignore")

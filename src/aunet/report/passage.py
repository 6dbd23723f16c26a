"""A piece of text as a model sees it: bytes, their levels, the units of each stage and the bits of each byte.

Shapes: n bytes. Stages count from 1 (bytes); a unit of stage s ends at each byte whose level is at least s - 1.

>>> from aunet.splitting import splitter
>>> passage = Passage("naïve idea".encode(), splitter("word1").levels("naïve idea".encode()), stages=2)
>>> [passage.data[unit.start : unit.end].decode() for unit in passage.units(2)]
['naïve ', 'idea']
>>> [character.shown for character in passage.characters(0, 3)], passage.units(2)[-1].open
(['n', 'a', '\\\\xc3'], True)
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import regex  # type: ignore[import-untyped]

from aunet.errors import AUNetError

SIGNS = {"\n": "↵", "\t": "⇥"}
IGNORABLE = regex.compile(r"\p{Default_Ignorable_Code_Point}")
"""Letters and marks, such as variation selectors and fillers, that are nothing to see or change what is beside them."""


@dataclass(frozen=True)
class Character:
    """A UTF-8 character of the bytes [start, end), or one byte that is part of none."""

    start: int
    end: int
    text: str
    """The character; a lone surrogate U+DC80..U+DCFF for a byte that is part of none."""
    shown: str
    """How it is written: itself, or a sign or an escape where it has no shape."""

    @property
    def valid(self) -> bool:
        """Whether these bytes are a character."""
        return not "\udc80" <= self.text <= "\udcff"


@dataclass(frozen=True)
class Unit:
    """The bytes [start, end) that one position of a stage stands for."""

    start: int
    end: int
    open: bool = False
    """The bytes behind the last pool position: a unit that is not complete."""


@dataclass(frozen=True)
class Passage:
    """Bytes with their levels and, where a model has read them, their bits."""

    data: bytes
    levels: npt.NDArray[np.uint8]
    """How many poolings each byte survives, [n]."""
    bits: npt.NDArray[np.float64] | None = None
    """-log2 of the probability of each byte after the bytes before it, [n]."""
    end_bits: float | None = None
    """Bits of the end of the document, if the passage is a whole one: they count in its bits per byte."""
    stages: int = field(default=0)
    """Stages of the model; 0: as many as the levels show."""

    def __post_init__(self) -> None:
        """Raises AUNetError where lengths or stages disagree."""
        found = int(self.levels.max(initial=0)) + 1
        if len(self.levels) != len(self.data) or (self.bits is not None and len(self.bits) != len(self.data)):
            raise AUNetError(f"passage: {len(self.data)} bytes need as many levels and bits")
        if self.stages and self.stages < found:
            raise AUNetError(f"passage: level {found - 1} needs {found} stages, not {self.stages}")
        object.__setattr__(self, "stages", self.stages or found)

    def __len__(self) -> int:
        return len(self.data)

    @property
    def bits_per_byte(self) -> float | None:
        """Bits of the bytes, and of the end where it is known, over the bytes; None without bits or bytes."""
        if self.bits is None or not self.data:
            return None
        return (float(self.bits.sum()) + (self.end_bits or 0.0)) / len(self.data)

    def units(self, stage: int) -> list[Unit]:
        """The units of a stage in order; together they are all bytes, and none is empty."""
        ends = (np.flatnonzero(self.levels >= stage - 1) + 1).tolist()
        units = [Unit(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        closed = ends[-1] if ends else 0
        return [*units, Unit(closed, len(self.data), open=True)] if closed < len(self.data) else units

    def closed(self, stage: int) -> int:
        """Number of complete units of a stage: how often it is computed, the start of the document not counted."""
        return int((self.levels >= stage - 1).sum())

    def contraction(self, stage: int) -> float:
        """Bytes per unit of a stage."""
        return len(self.data) / max(self.closed(stage), 1)

    def characters(self, start: int = 0, end: int | None = None) -> list[Character]:
        """The characters of the bytes [start, end), in order; a character cut at either end is shown as its bytes."""
        characters = []
        for text in self.data[start:end].decode("utf-8", "surrogateescape"):
            size = len(text.encode("utf-8", "surrogateescape"))
            characters.append(Character(start, start + size, text, visible(text)))
            start += size
        return characters

    def bits_of(self, start: int, end: int) -> float | None:
        """Bits of the bytes [start, end) together."""
        return None if self.bits is None else float(self.bits[start:end].sum())


def visible(character: str) -> str:
    r"""How a character is written where it must neither vanish nor act: signs, and escapes for what has no shape.

    >>> [visible(character) for character in "a \n\x1b\u202e\ufe0f\udcff"]
    ['a', ' ', '↵', '\\x1b', '\\u202e', '\\ufe0f', '\\xff']
    """
    if character in SIGNS:
        return SIGNS[character]
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    if character.isprintable() and not IGNORABLE.match(character):
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"

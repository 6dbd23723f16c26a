"""Bytes to classes of characters, by one table that the stream walks and numpy gathers.

A character is seen at its last byte; the bytes before it are no character yet. Classes are those of the `regex` package
(`\\p{L}`, `\\p{N}`, `\\s`), which the published rules are written in. Every byte string is covered, and each byte is
decided as it comes:

- a byte that UTF-8 does not allow where it stands (0xFF, a continuation byte that continues nothing, the second byte of
  an overlong form, of a surrogate or of a code point above U+10FFFF) is a character of class OTHER;
- a byte that starts or continues a character is none yet. If the character is then cut short, its bytes stay without a
  character, and the byte that cut it short is looked at as if they were not there.
"""

import functools
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import regex  # type: ignore[import-untyped]


class Char(IntEnum):
    """What a rule knows of a character."""

    NONE = 0
    """No character ends here; before the first character of a document there is this one."""
    LETTER = 1
    DIGIT = 2
    OTHER = 3
    """Punctuation, symbols, marks, control characters, impossible bytes."""
    SPACE = 4
    """U+0020."""
    BLANK = 5
    """Whitespace but U+0020 and line ends."""
    LINE_END = 6
    """Line feed or carriage return."""


WHITESPACE = (Char.SPACE, Char.BLANK, Char.LINE_END)
CLASS_BITS = 7
"""Mask of the class in an entry of the table; the rest is the next row."""


class Utf8Table(NamedTuple):
    """An automaton over bytes, row 0 the start of a character.

    `flat[row << 8 | byte]` is next row << 8 | class, so that `entry & ~255 | byte` is the index of the step after.
    """

    flat: npt.NDArray[np.int32]
    """[rows * 256]"""
    cells: memoryview
    """The same numbers; one look-up from Python costs a third of numpy's."""
    ascii: bytes
    """Classes of the 256 bytes at the start, for `bytes.translate`; only those of ASCII are final."""


@functools.cache
def utf8_table() -> Utf8Table:
    """The table of the installed Unicode version: about 400 rows, built on first use in some 70 ms."""
    classes = _classes_of_code_points()
    rows: list[npt.NDArray[np.int32]] = [_start_row(classes)]

    def row(first: int, entries: npt.NDArray[np.int32]) -> int:
        """Append the row in which the bytes `first`, first + 1, ... continue a character and all others start anew."""
        rows.append(rows[0].copy())
        rows[-1][first : first + len(entries)] = entries
        return len(rows) - 1

    # The last byte tells 64 code points apart. Most blocks of 64 look alike, and equal ones share a row.
    last: dict[bytes, int] = {}
    after_block = np.zeros(len(classes) >> 6, dtype=np.int32)
    for block, of_64 in enumerate(classes.reshape(-1, 64)):
        key = of_64.tobytes()
        if key not in last:
            last[key] = row(0x80, of_64.astype(np.int32))
        after_block[block] = last[key] << 8

    # Two bytes before the end there are 64 blocks to tell apart, and again most groups of 64 look alike.
    middle: dict[bytes, int] = {}
    after_group = np.zeros(len(classes) >> 12, dtype=np.int32)
    for group, of_64_blocks in enumerate(after_block.reshape(-1, 64)):
        key = of_64_blocks.tobytes()
        if key not in middle:
            middle[key] = row(0x80, of_64_blocks)
        after_group[group] = middle[key] << 8

    rows[0][0xC2:0xE0] = after_block[2:32]
    rows[0][0xE0:0xF0] = after_group[:16]
    rows[0][0xE0] = row(0xA0, after_block[32:64]) << 8  # no overlong forms
    rows[0][0xED] = row(0x80, after_block[0xD000 >> 6 : 0xD800 >> 6]) << 8  # no surrogates
    rows[0][0xF0] = row(0x90, after_group[16:64]) << 8
    for lead in (1, 2, 3):
        rows[0][0xF0 + lead] = row(0x80, after_group[64 * lead : 64 * lead + 64]) << 8
    rows[0][0xF4] = row(0x80, after_group[256:272]) << 8  # nothing above U+10FFFF

    table = np.stack(rows)
    table[1:, 0xC2:0xF5] = rows[0][0xC2:0xF5]  # leads were not known when the rows were copied
    flat = table.reshape(-1)
    flat.setflags(write=False)
    return Utf8Table(flat, flat.data, (rows[0] & CLASS_BITS).astype(np.uint8).tobytes())


def _classes_of_code_points() -> npt.NDArray[np.uint8]:
    """Classes of all code points, uint8 [0x110000]."""
    text = np.arange(0x110000, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")
    classes = np.full(0x110000, Char.OTHER, dtype=np.uint8)
    for pattern, char in ((r"\p{L}+", Char.LETTER), (r"\p{N}+", Char.DIGIT), (r"\s+", Char.BLANK)):
        for match in regex.finditer(pattern, text):
            classes[match.start() : match.end()] = char
    classes[[0x0A, 0x0D]] = Char.LINE_END
    classes[0x20] = Char.SPACE
    return classes


def _start_row(classes: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """The row at the start of a character, without the leads: ASCII, and bytes that cannot stand here."""
    entries = np.full(256, Char.OTHER, dtype=np.int32)
    entries[:0x80] = classes[:0x80]
    return entries


def classify(data: bytes, start: int, stop: int) -> npt.NDArray[np.uint8]:
    """Classes of data[start:stop], uint8 [stop - start]; reads up to three bytes before `start`.

    >>> [Char(c).name for c in classify("né!".encode(), 0, 4)]
    ['LETTER', 'NONE', 'LETTER', 'OTHER']
    """
    table = utf8_table()
    block = data[start:stop]
    classes = np.frombuffer(bytearray(block.translate(table.ascii)), dtype=np.uint8)
    if block.isascii():
        return classes
    # A character has at most four bytes, and a lead byte starts anew from every row: so three steps from row 0 reach
    # the right row, wherever they began.
    before = min(start, 3)
    window = np.frombuffer(b"\0" * (3 - before) + data[start - before : stop], dtype=np.uint8)
    at = np.flatnonzero(window[3:] >= 0x80)
    flat = table.flat
    entry = flat[window[at]]
    for step in (1, 2, 3):
        entry = flat[(entry & ~255) | window[at + step]]
    classes[at] = entry & CLASS_BITS
    return classes

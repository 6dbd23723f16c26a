"""Rules that look at a character and the one before it, from one function that says what happens between the two.

The function is tabulated over pairs of classes. The stream looks pairs up one by one; `levels` looks them all up at
once and then mends the two things that reach further back: runs that are cut into groups, and counts of closed words.
A new rule needs neither a stream nor numpy code of its own.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntFlag
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from aunet.splitting.characters import CLASS_BITS, Char, classify, utf8_table
from aunet.splitting.protocol import Levels

BLOCK = 1 << 16
"""Bytes handled at once: the temporary arrays of one block stay in the cache of a core."""
MAX_DEPTH = 63
"""Levels share a byte with the flags CLOSE and RESET while a block is handled."""


class Action(IntFlag):
    """What happens at a character."""

    SKIP = 0
    POOL = 1
    """Pool at every level."""
    CLOSE = 2
    """A word ends here: pool at the levels whose count is full."""
    RESET = 4
    """Begin to count words anew."""


@dataclass(frozen=True)
class PairRule:
    """A splitter from an `action` between neighbours.

    `groups` cuts runs of a class into groups of so many characters: the first character of a run is the action's
    business, of each further group pools. `counts` gives one level per entry n: every n-th CLOSE since the last RESET
    survives it, if it survived the ones before. The action is asked with Char.NONE for "before" at the start of a
    document.
    """

    rule: str
    action: Callable[[Char, Char], Action]
    groups: tuple[tuple[Char, int], ...] = ()
    counts: tuple[int, ...] = (1,)

    @property
    def depth(self) -> int:
        """One level per count."""
        return len(self.counts)

    def levels(self, data: bytes) -> Levels:
        """Levels of a whole document, uint8 [len(data)]."""
        if len(data) <= BLOCK:
            return self._block(data, 0, len(data), _Carry())[0]
        levels = np.empty(len(data), dtype=np.uint8)
        carry = _Carry()
        for start in range(0, len(data), BLOCK):
            stop = min(start + BLOCK, len(data))
            levels[start:stop], carry = self._block(data, start, stop, carry)
        return levels

    def stream(self) -> "PairStream":
        """A stream at the start of a document."""
        return PairStream(self)

    @functools.cached_property
    def actions(self) -> tuple[int, ...]:
        """Actions [before << 3 | character]; plain integers, because a flag costs ten times as much to test."""
        return tuple(
            int(self.action(Char(pair >> 3), Char(pair & 7))) if max(pair >> 3, pair & 7) < len(Char) else 0
            for pair in range(64)
        )

    @functools.cached_property
    def sizes(self) -> tuple[int, ...]:
        """Group size per class, 1 where runs are not cut (then the place in a run is always 0)."""
        sizes = dict(self.groups)
        return tuple(sizes.get(char, 1) for char in Char)

    @functools.cached_property
    def period(self) -> int:
        """Counts are needed modulo this number only."""
        return math.lcm(*self.counts)

    @functools.cached_property
    def _marks(self) -> bytes:
        """Per pair a level, and the flags _CLOSE and _RESET where counting must follow; for `bytes.translate`."""
        marks = bytearray(256)
        for pair, action in enumerate(self.actions):
            if self.period == 1:  # every word survives every level
                marks[pair] = self.depth if action & (Action.POOL | Action.CLOSE) else 0
            else:
                flag = _CLOSE if action & Action.CLOSE else _RESET if action & Action.RESET else 0
                marks[pair] = flag | (self.depth if action & Action.POOL else 0)
        return bytes(marks)

    def _block(self, data: bytes, start: int, stop: int, carry: "_Carry") -> tuple[Levels, "_Carry"]:
        """Levels of data[start:stop] after `carry`."""
        classes = classify(data, start, stop)
        at = None
        if not data[start:stop].isascii():
            at = np.flatnonzero(classes != Char.NONE)
            classes = classes[at]
        # As many characters of the carried run as lie in its current group stand in front.
        lead = carry.run + 1
        chars = np.empty(lead + len(classes), dtype=np.uint8)
        chars[:lead] = carry.before
        chars[lead:] = classes
        pairs = ((chars[:-1] << 3) | chars[1:]).tobytes()
        marks = np.frombuffer(bytearray(pairs.translate(self._marks)), dtype=np.uint8)
        for char, size in self.groups:
            if bytes([char << 3 | char]) * size in pairs:  # most text has no run longer than a group
                _cut_runs(marks, chars, int(char), size, self.depth)
        marks = marks[carry.run :]
        words = self._count(marks, carry.words) if self.period > 1 else 0
        before = int(chars[-1])
        after = _Carry(before, _place_in_run(chars, before, self.sizes[before]), words)
        if at is None:
            return marks, after
        levels = np.zeros(stop - start, dtype=np.uint8)
        levels[at] = marks
        return levels, after

    def _count(self, marks: Levels, count: int) -> int:
        """Replace the flags in `marks` [c] by levels, counting on from `count`; returns the count at the end."""
        at = np.flatnonzero(marks >= _RESET)
        if not len(at):
            return count
        flagged = marks[at]
        closes = flagged >= _CLOSE
        numbers: npt.NDArray[np.int64] = np.cumsum(closes, dtype=np.int64) + count
        if not closes.all():
            numbers = numbers - np.maximum.accumulate(np.where(closes, 0, numbers))
        survives = closes
        level = np.zeros(len(at), dtype=np.uint8)
        for n in self.counts:
            if n > 1:
                survives = survives & (numbers % n == 0)
            level += survives
        marks[at] = np.maximum(level, flagged & (_RESET - 1))
        return int(numbers[-1]) % self.period


_POOLS, _CLOSES, _RESETS = int(Action.POOL), int(Action.CLOSE), int(Action.RESET)
_CLOSE, _RESET = 128, 64


class _Carry(NamedTuple):
    """What the characters so far leave to the next: the last class, its place in its group, the count of words."""

    before: int = Char.NONE
    run: int = 0
    words: int = 0


def _cut_runs(marks: Levels, chars: npt.NDArray[np.uint8], char: int, size: int, depth: int) -> None:
    """Pool the first character of each further group in runs of `char`; marks[i] belongs to chars[i + 1]."""
    alike = chars == char
    reach = 1  # alike[i] says that chars[i : i + reach] are alike; doubled until it spans more than a group
    while reach < size + 1:
        step = min(reach, size + 1 - reach)
        alike = alike[step:] & alike[:-step]
        reach += step
    beyond = np.flatnonzero(alike)
    # beyond[j] + size is at least `size` characters into its run; the first of each stretch exactly so many.
    first = np.empty(len(beyond), dtype=bool)
    first[0] = True
    np.not_equal(beyond[1:], beyond[:-1] + 1, out=first[1:])
    opening = np.maximum.accumulate(np.where(first, beyond, 0))
    marks[beyond[(beyond - opening) % size == 0] + (size - 1)] = depth


def _place_in_run(chars: npt.NDArray[np.uint8], char: int, size: int) -> int:
    """Place of the last character in its group of `size`."""
    if size == 1:
        return 0
    differs = chars[::-1] != char
    length = int(differs.argmax()) or len(chars)  # the last character is alike, so 0 means that none differs
    return (length - 1) % size


class PairStream:
    """A PairRule, byte by byte; its state is four integers."""

    __slots__ = ("_actions", "_before", "_cells", "_count", "_row", "_rule", "_run", "_sizes")

    def __init__(self, rule: PairRule) -> None:
        self._rule = rule
        self._cells = utf8_table().cells
        self._actions = rule.actions
        self._sizes = rule.sizes
        self._row = 0
        self._before = int(Char.NONE)
        self._run = 0
        self._count = 0

    def push(self, byte: int) -> int:
        """Level of the next byte (0..255)."""
        if not 0 <= byte <= 255:
            raise ValueError(f"{byte} is not a byte; document marks are not pushed")
        entry = self._cells[self._row | byte]
        char = entry & CLASS_BITS
        self._row = entry ^ char
        if not char:
            return 0
        before, self._before = self._before, char
        if char == before:
            self._run = run = (self._run + 1) % self._sizes[char]
            if not run and self._sizes[char] > 1:
                return self._rule.depth
        else:
            self._run = 0
        action = self._actions[before << 3 | char]
        if not action:
            return 0
        closes = action & _CLOSES
        if closes:
            self._count = (self._count + 1) % self._rule.period
        elif action & _RESETS:
            self._count = 0
        if action & _POOLS:
            return self._rule.depth
        return self._closed() if closes else 0

    def _closed(self) -> int:
        """Level of a word that just closed."""
        level = 0
        for n in self._rule.counts:
            if self._count % n:
                break
            level += 1
        return level

    def copy(self) -> "PairStream":
        """An independent stream at the same place."""
        twin = PairStream(self._rule)
        twin._row, twin._before, twin._run, twin._count = self._row, self._before, self._run, self._count
        return twin

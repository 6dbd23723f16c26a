"""The published rules, fixed windows, stacks, and the table of all of them.

Every rule here is causal in the strictest sense: the level of byte i is what the rule gives when byte i is the last one
that exists. Where the published regexes look ahead, their marks on whole texts therefore differ; each rule says where.
"""

import difflib
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from aunet.config import FIXED, WORDS
from aunet.errors import ConfigError
from aunet.splitting.characters import WHITESPACE, Char
from aunet.splitting.pairs import MAX_DEPTH, Action, PairRule
from aunet.splitting.protocol import Levels, Splitter, Stream

GROUP = 3
"""Digits, and other characters that are neither letters nor whitespace, are pooled in groups of this many."""
PRETOK_LETTERS = 16


def words(*counts: int) -> PairRule:
    """Rule `word` (the paper's main rule): a level per n in `counts`, whose units are words, pairs of words, ...

    Pooled at every level: the first of each group of at most 3 digits; the first of each group of at most 3 characters
    that are neither letters, digits nor whitespace; a line end after a letter or a digit, or that opens the document.
    Pooled at the level of n: the whitespace that closes every n-th word. A word is anything but whitespace; counting
    begins anew after two whitespace characters in a row. Line ends directly after punctuation belong to its group: the
    first of them only closes the word.

    On whole texts the reference (`\\s*[\\r\\n]`) pools the first character of whitespace at every level if a line end
    comes later in it. Here that character is judged when it is read, as the end of a word, and the line end after it is
    not pooled: whitespace is pooled on its first character or not at all. So in "a \\n" the space has the level that
    its count gives, and in "  \\n" at the start of a document nothing is pooled.

    >>> words(1, 2).levels(b"one two, three\\n").tolist()
    [0, 0, 0, 1, 0, 0, 0, 2, 2, 0, 0, 0, 0, 0, 2]
    """
    rule = "+".join(f"word{n}" for n in counts)
    return PairRule(rule, _word, ((Char.DIGIT, GROUP), (Char.OTHER, GROUP)), counts)


def _word(before: Char, char: Char) -> Action:
    if char in (Char.DIGIT, Char.OTHER):
        return Action.SKIP if char == before else Action.POOL
    if char not in WHITESPACE:
        return Action.SKIP
    if before in WHITESPACE:
        return Action.RESET
    if before == Char.NONE:
        return Action.POOL if char == Char.LINE_END else Action.SKIP
    if char == Char.LINE_END and before != Char.OTHER:
        return Action.POOL | Action.CLOSE
    return Action.CLOSE


def pretok() -> PairRule:
    """Rule `pretok`: the start of every match of the published pre-tokenization regex.

    That is `( ?\\p{L}{1,16})|\\p{N}{1,3}| ?([^\\s\\p{L}\\p{N}]){1,3}+[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+`.

    On whole texts the regex looks ahead in whitespace: of several spaces before a word it pools the last, where the
    match of the word begins, and a line end takes the blanks before it into its own match. Here a character of
    whitespace is judged when it is read: the first is pooled, and the first blank after a line end. What follows U+0020
    is then as in the regex: a letter or a mark belongs to the match that the space began. So in "a  b" the first space
    is pooled and neither the second nor b, and " \\tb" gives 1, 0, 1.

    >>> pretok().levels(b"It's 1234 now").tolist()
    [1, 0, 1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0]
    """
    groups = ((Char.LETTER, PRETOK_LETTERS), (Char.DIGIT, GROUP), (Char.OTHER, GROUP))
    return PairRule("pretok", _pretok, groups)


def _pretok(before: Char, char: Char) -> Action:
    inside: tuple[Char, ...]
    match char:
        case Char.LETTER | Char.OTHER:
            inside = (char, Char.SPACE)
        case Char.DIGIT:
            inside = (Char.DIGIT,)
        case Char.LINE_END:
            inside = (Char.OTHER, *WHITESPACE)
        case _:
            inside = (Char.SPACE, Char.BLANK)
    return Action.SKIP if before in inside else Action.POOL


@dataclass(frozen=True)
class Fixed:
    """Rule `fixed-W`: every W-th byte, whatever it is (paper v2, byte[::w]).

    >>> Fixed(3).levels(b"abcdefg").tolist()
    [0, 0, 1, 0, 0, 1, 0]
    """

    width: int

    @property
    def rule(self) -> str:
        """`fixed-W`."""
        return f"fixed-{self.width}"

    @property
    def depth(self) -> int:
        """One level."""
        return 1

    def levels(self, data: bytes) -> Levels:
        """Levels of a whole document, uint8 [len(data)]."""
        levels = np.zeros(len(data), dtype=np.uint8)
        levels[self.width - 1 :: self.width] = 1
        return levels

    def stream(self) -> "FixedStream":
        """A stream at the start of a document."""
        return FixedStream(self.width)


class FixedStream:
    """Counts bytes."""

    __slots__ = ("_seen", "_width")

    def __init__(self, width: int, seen: int = 0) -> None:
        self._width = width
        self._seen = seen

    def push(self, byte: int) -> int:
        """Level of the next byte."""
        self._seen = (self._seen + 1) % self._width
        return 0 if self._seen else 1

    def copy(self) -> "FixedStream":
        """An independent stream at the same place."""
        return FixedStream(self._width, self._seen)


@dataclass(frozen=True)
class Stack:
    """Splitters one after the other: a byte reaches the levels of the next one only if it has the highest of this one.

    Nothing obliges the next rule to pool where this one does: `fixed-4+fixed-6` is well-defined and pools every 12th
    byte at its second level. The empty stack has depth 0.

    >>> Stack((words(1), Fixed(2))).levels(b"a bc d").tolist()
    [0, 2, 0, 0, 1, 0]
    """

    parts: tuple[Splitter, ...]

    @property
    def rule(self) -> str:
        """The parts' rules joined by `+`."""
        return "+".join(part.rule for part in self.parts)

    @property
    def depth(self) -> int:
        """Sum of the parts' depths."""
        return sum(part.depth for part in self.parts)

    def levels(self, data: bytes) -> Levels:
        """Levels of a whole document, uint8 [len(data)]."""
        levels = np.zeros(len(data), dtype=np.uint8)
        depth = 0
        for part in self.parts:
            levels += part.levels(data) * (levels == depth)
            depth += part.depth
        return levels

    def stream(self) -> "StackStream":
        """A stream at the start of a document."""
        return StackStream([(part.depth, part.stream()) for part in self.parts])


class StackStream:
    """Streams of the parts of a stack, side by side."""

    __slots__ = ("_parts",)

    def __init__(self, parts: list[tuple[int, Stream]]) -> None:
        self._parts = parts

    def push(self, byte: int) -> int:
        """Level of the next byte."""
        level = 0
        survives = True
        for depth, stream in self._parts:
            own = stream.push(byte)  # every part sees every byte
            if survives:
                level += own
                survives = own == depth
        return level

    def copy(self) -> "StackStream":
        """An independent stream at the same place."""
        return StackStream([(depth, stream.copy()) for depth, stream in self._parts])

    __copy__ = copy  # a shallow copy would share the parts


@dataclass(frozen=True)
class Form:
    """How a rule is written, and what builds it from the numbers in its name."""

    pattern: str
    written: str
    build: Callable[..., Splitter]
    examples: tuple[str, ...]


RULES = (
    Form(WORDS.pattern, "wordN", words, ("word1", "word2", "word4")),
    Form(r"pretok", "pretok", pretok, ("pretok",)),
    Form(FIXED.pattern, "fixed-W", Fixed, ("fixed-4", "fixed-8")),
)
"""All rules. A new one is a line here; PairRule shows the shortest way to write one."""


@functools.lru_cache(maxsize=64)
def splitter(rule: str) -> Splitter:
    """The splitter of a rule, or of several joined by `+` from the shallowest level to the deepest; "" has no level.

    Raises ConfigError for a rule that does not exist, naming the nearest one. Splitters are immutable and shared.

    >>> splitter("word1+word2+word4").levels(b"to be or not to be").tolist()
    [0, 0, 1, 0, 0, 2, 0, 0, 1, 0, 0, 0, 3, 0, 0, 1, 0, 0]
    """
    names = rule.split("+") if rule else []
    if len(names) > MAX_DEPTH:
        raise ConfigError(f"splitter {rule[:40]!r}...: {len(names)} levels; at most {MAX_DEPTH} are possible")
    parts: list[Splitter] = []
    counts: list[int] = []
    for name in names:
        part = _single(name, rule)
        if isinstance(part, PairRule) and part.action is _word:
            # Neighbouring word rules share one pass: they differ in their counts only.
            if counts:
                parts.pop()
            counts += part.counts
            part = words(*counts)
        else:
            counts = []
        parts.append(part)
    return parts[0] if len(parts) == 1 else Stack(tuple(parts))


def _single(name: str, rule: str) -> Splitter:
    for form in RULES:
        match = re.fullmatch(form.pattern, name, re.ASCII)
        if match:
            return form.build(*map(int, match.groups()))
    examples = [example for form in RULES for example in form.examples]
    near = difflib.get_close_matches(name, examples, n=1, cutoff=0.5)
    where = f" in {rule!r}" if name != rule else ""
    hint = f"did you mean {near[0]}? " if near else ""
    written = ", ".join(form.written for form in RULES)
    raise ConfigError(f"unknown splitting rule {name!r}{where}; {hint}rules: {written} (N, W from 1), joined by +")

"""Segmentation by words that are looked up: what `tokenizers` gives, three to four times as fast and in less memory.

The usual byte-level BPE first cuts a text by one regular expression and then merges inside the pieces, so the tokens of
a piece depend on nothing else and are remembered.
"""

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import regex  # type: ignore[import-untyped]

REMEMBERED = 64 << 20
"""Bytes at most that pieces and their tokens take."""
LONGEST = 64
"""Characters of a piece that is remembered; a longer one hardly comes again."""
ENTRY, ID = 100, 32
"""Bytes in memory of an entry of the table without what it refers to, and of the number of a token."""
CLASSES = regex.compile(r"\\[pP]\{\^?\w+\}|\\[sSdDwW]")
"""What an expression asks of a character; how that is answered depends on the version of Unicode."""
FOREIGN = regex.compile(
    r"\\(?![pP]\{\^?\w+\}|[sSdDwWrnt]|u[0-9A-Fa-f]{4}|[^\p{L}\p{N}])"  # escapes that are read in different ways
    r"|\[[^\]]*\[|&&|\{[\d,]*\}\+|\(\?(?!i?:|<?[!=])"  # sets in sets, possessive counts, flags and names
)
"""What the two libraries may read in different ways in an expression."""


class Agreement:
    """Characters of which both libraries say the same wherever an expression asks; each is asked about once."""

    def __init__(self, asked: Iterable[str]) -> None:
        """`asked`: expressions for single characters, such as `\\p{L}`."""
        from tokenizers import Regex
        from tokenizers.pre_tokenizers import Split

        self._asked = [(regex.compile(one), Split(Regex(one), "removed")) for one in asked]
        self._alike: set[str] = set()

    def on(self, text: str) -> bool:
        """Whether there is no other character in a text."""
        if not (new := set(text) - self._alike):
            return True
        letters = "".join(sorted(new))
        for ours, theirs in self._asked:
            left = "".join(part for part, _ in theirs.pre_tokenize_str(letters))
            new -= set(ours.sub("", letters)) ^ set(left)
        self._alike |= new
        return len(new) == len(letters)


class Words:
    """Cuts a text by a regular expression that leaves nothing out."""

    def __init__(
        self, cuts: "regex.Pattern[str]", agreement: Agreement, model: Any, letters: Mapping[int, str]
    ) -> None:
        """`model`: merges inside a piece, spelled in `letters`, the alphabet of bytes."""
        self._cuts, self._agreement, self._model, self._letters = cuts, agreement, model, letters
        self._known: dict[str, list[int]] = {}
        self._room = REMEMBERED

    def ids(self, text: str) -> list[int] | None:
        """The tokens of a text; None where the expression leaves a part of it out, or the library may cut otherwise."""
        pieces = self._cuts.findall(text)
        if sum(map(len, pieces)) != len(text):
            return None
        found: list[int] = []
        for piece in pieces:
            ids = self._known.get(piece)
            if ids is None:
                if not self._agreement.on(piece):
                    return None
                spelled = "".join(map(self._letters.__getitem__, piece.encode()))
                ids = [token.id for token in self._model.tokenize(spelled)]
                self._remember(piece, ids)
            found += ids
        return found

    def _remember(self, piece: str, ids: list[int]) -> None:
        size = ENTRY + sys.getsizeof(piece) + sys.getsizeof(ids) + ID * len(ids)
        if len(piece) <= LONGEST and size <= self._room:
            self._known[piece] = ids
            self._room -= size


def words_of(values: Mapping[str, Any], model: Any, letters: Mapping[int, str]) -> Words | None:
    """For the content of a tokenizer.json; None where it works in another way."""
    match values:
        case {
            "normalizer": None,
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False},
                    {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
                ],
            },
        }:
            if FOREIGN.search(pattern):
                return None
            try:
                cuts = regex.compile(pattern)
                agreement = Agreement(_asked(pattern))
            except Exception:  # of either library, which have a class of their own and this very one
                return None
            return None if cuts.groups else Words(cuts, agreement, model, letters)
    return None


def _asked(pattern: str) -> set[str]:
    """What an expression asks of single characters: their classes, and without regard to case what spells a word."""
    asked = set(CLASSES.findall(pattern))
    if "(?i:" in pattern:
        spelled = regex.findall("[A-Za-z]+", regex.sub(r"\\u.{4}|\\.|\(\?i", "", CLASSES.sub("", pattern)))
        asked |= {f"(?i:{word})" for word in {*spelled, *"".join(spelled)}}
    return asked

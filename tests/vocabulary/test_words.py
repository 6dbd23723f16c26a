"""Words that are looked up are those of the library, or the library is asked."""

import json
import sys
from typing import Any

import pytest
from tokenizers import Tokenizer

from aunet.vocabulary import Tokens, words
from aunet.vocabulary.words import LONGEST, Agreement, Words
from tests.vocabulary.bpe import trained

NEWEST = ("\U000323b0", "\U00016ea0", "\u0558", "\u088f", "\u0295", "\u05c8", "\U00011de0", "\U0001faea")
"""Characters that one version of Unicode takes for letters, marks or numbers and another does not."""


def with_cuts(text: str, pattern: str) -> Tokens:
    values: dict[str, Any] = json.loads(text)
    values["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": pattern}
    return Tokens(json.dumps(values), "t.json")


def looked_up(vocabulary: Tokens) -> Words:
    assert vocabulary._words is not None
    return vocabulary._words


@pytest.mark.parametrize("letter", NEWEST)
def test_characters_that_the_libraries_class_in_different_ways_are_cut_as_the_library_does(letter: str) -> None:
    sample = f"x {letter}! y a{letter} 1{letter}! "
    text = trained(400, [sample * 20])
    library = Tokenizer.from_str(text)
    assert Tokens(text, "t.json").encode(sample.encode()).tolist() == library.encode(sample).ids


def test_the_libraries_are_asked_about_every_character() -> None:
    # What \h means differs for ever: blanks in one library, digits to the base 16 in the other.
    agreement = Agreement([r"\s", r"\h"])
    assert agreement.on("xyz\n")
    assert not agreement.on("xaz")
    assert not agreement.on("xaz"), "also when it is asked again"
    assert not agreement.on("x z")
    assert agreement.on("x")


@pytest.mark.parametrize(
    "pattern", [r"\h+|\H+", r"[a[bc]]+|[^a[bc]]+", r"[a-z&&[^b]]+|.+", r"\S{1,3}+|\s+", r"\w+\b|.+"]
)
def test_expressions_that_may_be_read_in_two_ways_are_left_to_the_library(pattern: str) -> None:
    assert with_cuts(trained(), pattern)._words is None


def test_words_without_regard_to_case_are_asked_about() -> None:
    cuts = r"(?i:'s|'ll)|[^\s\p{L}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"
    assert words._asked(cuts) == {r"\p{L}", r"\p{N}", r"\s", "(?i:s)", "(?i:l)", "(?i:ll)"}
    assert looked_up(with_cuts(trained(), cuts)).ids("it's") is not None


def test_long_pieces_are_not_remembered() -> None:
    vocabulary = Tokens(trained(), "t.json")
    for length in (LONGEST, LONGEST + 1):
        vocabulary.encode(b"q" * length)
    known = looked_up(vocabulary)._known
    assert "q" * LONGEST in known
    assert max(map(len, known)) == LONGEST


def test_what_is_remembered_has_a_limit_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "REMEMBERED", 20_000)
    text = trained()
    vocabulary, library = Tokens(text, "t.json"), Tokenizer.from_str(text)
    sample = " ".join(chr(97 + i % 26) * (1 + i % 60) for i in range(1000))
    assert vocabulary.encode(sample.encode()).tolist() == library.encode(sample).ids
    known = looked_up(vocabulary)._known
    taken = sum(sys.getsizeof(piece) + sys.getsizeof(ids) for piece, ids in known.items())
    assert 5_000 < taken < 20_000

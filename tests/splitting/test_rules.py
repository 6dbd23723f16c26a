import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import regex
from byte_strings import any_bytes, texts
from hypothesis import given, settings
from hypothesis import strategies as st

from aunet.errors import ConfigError
from aunet.splitting import RULES, splitter

NAMES = [
    "",
    "word1",
    "word1+word2",
    "word1+word2+word4",
    "word2",
    "word3+word8",
    "pretok",
    "fixed-1",
    "fixed-5",
    "fixed-4+fixed-16",
    "fixed-4+fixed-6",
    "pretok+fixed-16",
    "word1+word2+pretok+word4",
]
STACKS = ["word1+word2+word4", "pretok+fixed-16", "fixed-4+fixed-6+word2", "word3+pretok+word1+word2"]
ODD = [b"", b"word", b"\x80", b"\xff" * 5, b"\xf0\x9f", b"\xed\xa0\x80", b"\x80" * 4, b"a" * 1_000_000]


@pytest.mark.parametrize("rule", NAMES)
@given(data=any_bytes)
@settings(max_examples=60)
def test_streaming_equals_offline(rule: str, data: bytes) -> None:
    made = splitter(rule)
    levels = made.levels(data)
    stream = made.stream()
    assert levels.dtype == np.uint8
    assert levels.tolist() == [stream.push(byte) for byte in data]
    assert made.rule == rule
    assert made.depth == (rule.count("+") + 1 if rule else 0)
    assert all(level <= made.depth for level in levels)


@pytest.mark.parametrize("rule", NAMES)
@given(data=any_bytes, more=any_bytes)
@settings(max_examples=40)
def test_what_follows_changes_nothing(rule: str, data: bytes, more: bytes) -> None:
    made = splitter(rule)
    assert made.levels(data + more)[: len(data)].tolist() == made.levels(data).tolist()


@pytest.mark.parametrize("rule", NAMES)
@given(data=any_bytes, tails=st.tuples(any_bytes, any_bytes))
@settings(max_examples=25)
def test_copies_go_their_own_way(rule: str, data: bytes, tails: tuple[bytes, bytes]) -> None:
    stream = splitter(rule).stream()
    for byte in data:
        stream.push(byte)
    twin = stream.copy()
    third = copy.copy(stream)
    for tail, one in zip((*tails, tails[0]), (stream, twin, third), strict=True):
        assert [one.push(byte) for byte in tail] == splitter(rule).levels(data + tail)[len(data) :].tolist()


@pytest.mark.parametrize("rule", STACKS)
@given(data=any_bytes)
@settings(max_examples=40)
def test_a_level_needs_the_marks_of_all_rules_up_to_it(rule: str, data: bytes) -> None:
    kept = np.ones(len(data), dtype=bool)
    levels = np.zeros(len(data), dtype=np.uint8)
    for part in rule.split("+"):
        kept &= splitter(part).levels(data) > 0
        levels += kept
    assert splitter(rule).levels(data).tolist() == levels.tolist()


@pytest.mark.parametrize("rule", NAMES)
@pytest.mark.parametrize("data", ODD)
def test_odd_input_has_levels(rule: str, data: bytes) -> None:
    assert len(splitter(rule).levels(data)) == len(data)


@pytest.mark.parametrize(
    ("data", "levels"),
    [
        (b"\xff", [1]),  # impossible: decided at once
        (b"a\x80 b", [0, 1, 1, 0]),  # a continuation byte that continues nothing
        (b"a\xe2\x82b c", [0, 0, 0, 0, 1, 0]),  # cut short: nothing was there
        (b"\xe2\x82.", [0, 0, 1]),  # and what cuts it short is itself
        (b"\xe2\x82 a", [0, 0, 0, 0]),  # so no word is closed here
        (b"\xc0\xaf", [1, 0]),  # overlong: two characters of one group
        (b"\xed\xa0\x80", [0, 1, 0]),  # surrogate: refused at its second byte
        (b"\xf4\x90\x80\x80", [0, 1, 0, 0]),  # above U+10FFFF
        ("…".encode(), [0, 0, 1]),  # a level sits on the last byte
    ],
)
def test_bytes_that_are_not_text(data: bytes, levels: list[int]) -> None:
    assert splitter("word1").levels(data).tolist() == levels


def test_equals_the_reference_where_it_is_causal(shared: Callable[[str], Path]) -> None:
    cases = [json.loads(line) for line in shared("golden/splits.jsonl").read_text(encoding="utf-8").splitlines()]
    causal = [case for case in cases if case["causal"]]
    assert causal
    for case in causal:
        data = bytes.fromhex(case["bytes_hex"])
        assert splitter(case["rule"]).levels(data).tolist() == case["levels"], (case["rule"], data)


WORD_START = regex.compile(r"\p{N}{1,3}|[^\s\p{L}\p{N}]{1,3}[\r\n]*|\s*[\r\n]")
PRETOK = regex.compile(r"( ?\p{L}{1,16})|\p{N}{1,3}| ?([^\s\p{L}\p{N}]){1,3}+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+")


def published(rule: str, text: str) -> int:
    """Level of the last character of `text` by the published regexes."""
    last = len(text) - 1
    if rule == "pretok":
        return int(any(match.start() == last for match in PRETOK.finditer(text)))
    counts = [int(part.removeprefix("word")) for part in rule.split("+")]
    if any(match.start() == last for match in WORD_START.finditer(text)):
        return len(counts)
    level = 0
    for n in counts:
        if not any(match.end() - 1 == last for match in regex.finditer(rf"(\S+?\s){{{n}}}", text)):
            break
        level += 1
    return level


@pytest.mark.parametrize("rule", ["word1", "word1+word2+word4", "word3+word6", "word2+word3", "pretok"])
@given(text=texts)
@settings(max_examples=150, deadline=None)
def test_a_level_is_what_the_published_rule_gives_to_the_last_character(rule: str, text: str) -> None:
    levels = splitter(rule).levels(text.encode())
    end = 0
    for i, character in enumerate(text):
        end += len(character.encode())
        assert levels[end - 1] == published(rule, text[: i + 1]), (text, i)


@pytest.mark.parametrize(
    ("rule", "data", "levels"),
    [
        ("word1+word2", b"!\n \n", [2, 1, 0, 0]),  # on whole texts 2120
        ("word1+word2", b"a \n", [0, 1, 0]),  # 020
        ("word1", b"  \nword", [0, 0, 0, 0, 0, 0, 0]),  # 1000000
        ("pretok", b"a  b  c", [1, 1, 0, 0, 1, 0, 0]),  # 1110110
        ("pretok", b"a\n  \nb", [1, 1, 1, 0, 0, 1]),  # 110001
    ],
)
def test_decisions_where_the_published_rule_looks_ahead(rule: str, data: bytes, levels: list[int]) -> None:
    assert splitter(rule).levels(data).tolist() == levels


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("wrod1", "unknown splitting rule 'wrod1'; did you mean word1?"),
        ("word1+pretock", "unknown splitting rule 'pretock' in 'word1+pretock'; did you mean pretok?"),
        ("fixed4", "unknown splitting rule 'fixed4'; did you mean fixed-4?"),
        ("fixed-0", "unknown splitting rule 'fixed-0'; did you mean fixed-"),
        ("word", "unknown splitting rule 'word'; did you mean word"),
        ("word0", "unknown splitting rule 'word0'; did you mean word"),
        ("word1+", "unknown splitting rule '' in 'word1+'; rules: wordN, pretok, fixed-W"),
        ("word1 +word2", "unknown splitting rule 'word1 '"),
        ("word٣", "unknown splitting rule 'word٣'"),
        ("word12345678901", "unknown splitting rule 'word12345678901'"),
        ("+".join(["fixed-2"] * 64), "64 levels; at most 63"),
    ],
)
def test_unknown_rules_are_refused_in_one_line(rule: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        splitter(rule)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_huge_numbers_and_many_levels_are_fine() -> None:
    rule = "+".join(["word1"] * 61 + ["word999999999", "word999999998"])
    assert splitter(rule).levels(b"a b. ").tolist() == [0, 61, 0, 63, 61]
    assert splitter("fixed-999999999").levels(b"abc").tolist() == [0, 0, 0]


def test_every_rule_in_the_table_has_working_examples() -> None:
    for form in RULES:
        for example in form.examples:
            assert splitter(example).rule == example


@pytest.mark.parametrize("rule", NAMES)
def test_splitters_travel_to_loader_workers(rule: str) -> None:
    made = splitter(rule)
    data = b"One, two three.\nFour 1234"
    assert pickle.loads(pickle.dumps(made)).levels(data).tolist() == made.levels(data).tolist()

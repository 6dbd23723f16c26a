import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aunet.errors import AUNetError
from aunet.report.passage import Passage, visible
from tests.report.passages import NASTY, RULES, make, texts


@given(texts(), st.sampled_from(RULES))
def test_units_end_at_pooled_positions(data: bytes, rule: str) -> None:
    passage = make(data, rule)
    for stage in range(1, passage.stages + 1):
        units = passage.units(stage)
        assert b"".join(data[unit.start : unit.end] for unit in units) == data
        assert all(unit.start < unit.end for unit in units)
        for unit in units:
            levels = passage.levels[unit.start : unit.end]
            assert (levels[:-1] < stage - 1).all()
            assert (levels[-1] >= stage - 1) != unit.open
        assert not any(unit.open for unit in units[:-1])
        assert passage.closed(stage) == sum(not unit.open for unit in units)


@given(texts())
def test_units_of_a_deeper_stage_are_unions_of_units(data: bytes) -> None:
    passage = make(data, "word1+word2+word4")
    for stage in range(2, passage.stages):
        starts = {unit.start for unit in passage.units(stage)}
        assert starts >= {unit.start for unit in passage.units(stage + 1)}


def test_units_of_a_known_text() -> None:
    passage = Passage(b"abcdef", np.array([0, 1, 0, 2, 1, 0], dtype=np.uint8))
    assert passage.stages == 3
    assert [(unit.start, unit.end, unit.open) for unit in passage.units(2)] == [
        (0, 2, False),
        (2, 4, False),
        (4, 5, False),
        (5, 6, True),
    ]
    assert [(unit.start, unit.end, unit.open) for unit in passage.units(3)] == [(0, 4, False), (4, 6, True)]
    assert len(passage.units(1)) == 6
    assert passage.contraction(2) == 2


@given(texts(), st.integers(0, 60), st.integers(0, 60))
def test_characters_are_all_bytes_in_order(data: bytes, a: int, b: int) -> None:
    start, end = sorted((min(a, len(data)), min(b, len(data))))
    characters = make(data).characters(start, end)
    at = start
    for character in characters:
        assert character.start == at
        at = character.end
        assert character.text.encode("utf-8", "surrogateescape") == data[character.start : character.end]
        assert character.valid or character.end == character.start + 1
    assert at == end or not characters


def test_whole_characters_stay_whole_and_cut_ones_are_bytes() -> None:
    passage = make("é€".encode())
    assert [(character.shown, character.start, character.end) for character in passage.characters()] == [
        ("é", 0, 2),
        ("€", 2, 5),
    ]
    assert [character.shown for character in passage.characters(1, 4)] == [r"\xa9", r"\xe2", r"\x82"]


@given(st.characters())
def test_nothing_shown_can_act_or_vanish(character: str) -> None:
    shown = visible(character)
    assert shown.isprintable()
    assert shown == character or len(shown) in (1, 4, 6, 10)


@pytest.mark.parametrize(
    "written",
    [r"\u00ad", r"\u034f", r"\u115f", r"\u180b", r"\u200b", r"\ufe0f", r"\uffa0", r"\U000e0041", r"\U000e0100"],
)
def test_what_is_drawn_as_nothing_is_written_out(written: str) -> None:
    assert visible(written.encode().decode("unicode_escape")) == written


@given(texts())
def test_bits_of_characters_add_up(data: bytes) -> None:
    passage = make(data)
    assert passage.bits is not None
    total = sum(passage.bits_of(character.start, character.end) or 0 for character in passage.characters())
    assert total == pytest.approx(passage.bits.sum())


def test_bits_per_byte_counts_the_end_and_never_divides_by_it() -> None:
    levels = np.zeros(4, dtype=np.uint8)
    assert Passage(b"abcd", levels, np.ones(4), end_bits=2.0).bits_per_byte == 1.5
    assert Passage(b"abcd", levels, np.ones(4)).bits_per_byte == 1.0
    assert Passage(b"abcd", levels).bits_per_byte is None
    assert Passage(b"", levels[:0], np.ones(0)).bits_per_byte is None


def test_the_empty_passage_has_no_units() -> None:
    passage = make(b"")
    assert passage.units(1) == passage.units(2) == []
    assert passage.contraction(2) == 0
    assert passage.characters() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"levels": np.zeros(3, dtype=np.uint8)},
        {"bits": np.zeros(5)},
        {"levels": np.array([0, 2, 0, 0], dtype=np.uint8), "stages": 2},
    ],
)
def test_lengths_and_levels_that_disagree_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(AUNetError, match="passage"):
        Passage(**{"data": b"abcd", "levels": np.zeros(4, dtype=np.uint8), **fields})  # type: ignore[arg-type]


def test_the_nasty_text_is_nasty() -> None:
    shown = [character.shown for character in make(NASTY).characters()]
    assert {"↵", "⇥", r"\x1b", r"\u202e", r"\u2028", r"\xff", r"\xed"} <= set(shown)

import numpy as np
import pytest
from corpora import Residues, pieces
from hypothesis import given
from hypothesis import strategies as st

from aunet.bytes import BOS, EOS
from aunet.data.rows import Piece, build_row, piece_stop
from aunet.data.text import read
from aunet.splitting import splitter
from aunet.vocabulary import BYTES


def levels_of(*highest, n):
    found = np.zeros(n, dtype=np.uint8)
    found[list(highest)] = 2
    return found


def test_a_row_of_two_documents_and_a_tail():
    first, second, long = map(BYTES.encode, (b"ab", b"c", b"defgh"))
    zeros = np.zeros(5, dtype=np.uint8)
    row = build_row([Piece(first, zeros[:2], 0, 2), Piece(second, zeros[:1], 0, 1), Piece(long, zeros, 2, 5)], depth=2)
    a, b, c, _, _, f, g, h = b"abcdefgh"
    assert row.ids.tolist() == [BOS, a, b, BOS, c, f, g, h]
    assert row.targets.tolist() == [a, b, EOS, c, EOS, g, h, EOS]
    assert row.levels.tolist() == [2, 0, 0, 2, 0, 2, 0, 0]
    assert row.starts.tolist() == [0, 3, 5, 8]
    assert row.counts == (8, 3, 3)
    assert row.bytes == 6


def test_the_position_before_a_cut_predicts_the_byte_after_it():
    document = BYTES.encode(b"abcdef")
    levels = np.zeros(6, dtype=np.uint8)
    before, after = build_row([Piece(document, levels, 0, 4)], 1), build_row([Piece(document, levels, 4, 6)], 1)
    assert before.targets[-1] == ord("e")
    assert after.ids[0] == ord("e")
    assert after.targets[-1] == EOS
    assert EOS not in before.targets


def test_the_caller_keeps_its_levels():
    levels = np.zeros(4, dtype=np.uint8)
    ids = BYTES.encode(b"abcd")
    build_row([Piece(ids, levels, 0, 4), Piece(ids, levels, 2, 4)], 3)
    assert not levels.any()


@pytest.mark.parametrize(
    ("levels", "start", "room", "stop"),
    [
        (levels_of(n=10), 0, 10, 10),  # fits the row
        (levels_of(n=10), 0, 9, None),  # fits a row, but not the rest of this one
        (levels_of(n=11), 0, 4, None),  # fits no row, and the room is too small for a piece
        (levels_of(7, 9, n=20), 0, 10, 9),  # the last highest level in reach ends up in front
        (levels_of(10, n=20), 0, 10, 10),  # just after the room: the cut before it is in reach
        (levels_of(4, n=20), 0, 10, 10),  # too near the start: would waste more than half of the room
        (levels_of(5, n=20), 0, 10, 5),
        (levels_of(n=20), 0, 10, 10),  # no highest level anywhere
        (levels_of(8, 17, n=30), 8, 10, 17),  # going on from a cut
        (levels_of(n=30), 20, 10, 30),  # the rest of a document
        (levels_of(3, n=30), 0, 5, 3),  # half a row is enough room
    ],
)
def test_where_a_piece_stops(levels, start, room, stop):
    assert piece_stop(levels, start, room, 10, depth=2) == stop


def test_every_position_qualifies_at_depth_zero():
    assert piece_stop(np.zeros(30, dtype=np.uint8), 0, 10, 10, 0) == 10


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=8), st.integers(0, 3))
def test_counts_are_those_of_the_levels(documents, depth):
    rule = Residues(depth=min(depth, 2))
    row = build_row([Piece(*read(text, rule, BYTES), 0, len(text)) for text in documents], depth)
    assert row.counts == tuple(int((row.levels >= level).sum()) for level in range(depth + 1))
    assert pieces(row) == [(text, True, True) for text in documents]


def test_levels_of_a_real_splitter():
    text = b"Hello world, hello"
    rule = splitter("word1+word2")
    row = build_row([Piece(*read(text, rule, BYTES), 0, len(text))], rule.depth)
    assert row.levels[0] == 2
    assert row.levels[1:].tolist() == rule.levels(text).tolist()

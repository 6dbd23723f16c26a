from itertools import pairwise
from typing import ClassVar

import pytest
from corpora import Residues, pieces, same
from hypothesis import given
from hypothesis import strategies as st

from aunet.data.blocks import Block, Format
from aunet.data.formats import FORMATS
from aunet.data.lanes import Lane, LaneSpec, LaneState
from aunet.errors import AUNetError


class Memory(Format):
    """Documents that stand in the test; a None among them is a problem."""

    texts: ClassVar[dict[str, list[bytes | None]]] = {}

    def blocks(self, path, size, block_bytes, field, problems):
        raise NotImplementedError

    def read(self, block, position, field, problems):
        for number, text in enumerate(self.texts[block.path][position:], start=position + 1):
            if text is None:
                problems.add("bad", f"{block.path}:{number}", "bad")
            else:
                yield number, text


@pytest.fixture(scope="module", autouse=True)
def memory():
    FORMATS["memory"] = Memory()
    yield
    del FORMATS["memory"]


def spec_of(blocks, seq_len=16, shuffle_documents=4, shuffle_bytes=1 << 20, seed=0):
    Memory.texts = {str(i): texts for i, texts in enumerate(blocks)}
    made = tuple(Block("memory", name, 0, len(texts), 1, 1) for name, texts in Memory.texts.items())
    return LaneSpec(0, 0, made, "text", seed, seq_len, shuffle_documents, shuffle_bytes)


@st.composite
def lanes(draw, bad=False):
    text = st.binary(min_size=1, max_size=50)
    blocks = draw(st.lists(st.lists(text | st.none() if bad else text, max_size=8), min_size=1, max_size=4))
    if not any(text for block in blocks for text in block):
        blocks[0].append(b"only one")
    spec = spec_of(
        blocks,
        seq_len=draw(st.integers(2, 40)),
        shuffle_documents=draw(st.integers(1, 6)),
        shuffle_bytes=draw(st.integers(1, 200)),
        seed=draw(st.integers(0, 3)),
    )
    return spec, Residues(depth=draw(st.integers(0, 2)))


def rows_of_epochs(lane, epochs):
    """Rows up to the one after which the lane stands in epoch `epochs` or later."""
    taken = [lane.next_row()]
    while taken[-1].state.epoch < epochs:
        taken.append(lane.next_row())
    return taken


@given(lanes())
def test_every_document_once_per_epoch_in_order_and_whole(case):
    spec, rule = case
    documents = [text for block in Memory.texts.values() for text in block]
    read, part = [], b""
    for taken in rows_of_epochs(Lane(spec, rule), 2):
        assert taken.row.bytes <= spec.seq_len
        for text, first, last in pieces(taken.row):
            assert first == (not part), "a document goes on where it was cut, before the next one starts"
            part += text
            if last:
                read.append(part)
                part = b""
    n = len(documents)
    assert sorted(read[:n]) == sorted(read[n : 2 * n]) == sorted(documents)


@given(lanes())
def test_cuts_and_levels(case):
    spec, rule = case
    done = b""
    rows = rows_of_epochs(Lane(spec, rule), 1)
    queue = [(piece, row.row, i) for row in rows for i, piece in enumerate(pieces(row.row))]
    whole = []  # the document of each piece, or None for one that is not complete
    for (text, first, last), _, _ in queue:
        done = text if first else done + text
        whole.append(done if last else None)
    for k in reversed(range(len(queue) - 1)):
        if whole[k] is None and whole[k + 1] is not None and not queue[k][0][2]:
            whole[k] = whole[k + 1]
    at = 0
    for ((text, first, last), row, i), document in zip(queue, whole, strict=True):
        at = 0 if first else at
        start, stop = row.starts[i], row.starts[i + 1]
        if document is not None:
            levels = rule.levels(document)
            assert row.levels[start] == rule.depth
            inner = levels[at : at + len(text)] if first else levels[at + 1 : at + len(text)]
            assert row.levels[start + 1 : stop].tolist() == inner.tolist()
            if len(document) <= spec.seq_len:
                assert first
                assert last
            elif not last:
                room = spec.seq_len - sum(len(other) for other, _, _ in pieces(row)[:i])
                assert 2 * room >= spec.seq_len
                reach = range(at + max(room // 2, 1), at + room + 1)
                highest = [c for c in reach if levels[c] == rule.depth]
                assert at + len(text) == (highest[-1] if highest else at + room)
                assert i == len(row.starts) - 2, "a cut closes the row"
        at += len(text)


@given(lanes())
def test_rows_are_packed_greedily(case):
    spec, rule = case
    for before, after in pairwise(rows_of_epochs(Lane(spec, rule), 1)):
        (text, first, last), *_ = pieces(after.row)
        if first and last:
            assert before.row.bytes + len(text) > spec.seq_len or not pieces(before.row)[-1][2]


@given(lanes(bad=True), st.data())
def test_a_lane_goes_on_from_any_row(case, data):
    spec, rule = case
    rows = rows_of_epochs(Lane(spec, rule), 2)
    k = data.draw(st.integers(0, len(rows) - 1))
    resumed = Lane(spec, rule, rows[k].state)
    for expected in rows[k + 1 :]:
        found = resumed.next_row()
        assert same(found.row, expected.row)
        assert found.state == expected.state
        assert found.problems.counts == expected.problems.counts


@given(lanes(bad=True))
def test_problems_are_counted_once(case):
    spec, rule = case
    expected = sum(text is None for block in Memory.texts.values() for text in block)
    rows = rows_of_epochs(Lane(spec, rule), 2)
    assert sum(taken.problems.counts.get("bad", 0) for taken in rows) == expected
    assert sum(len(taken.problems.first) for taken in rows) == min(expected, 1)


def order_of_reading(spec, epochs):
    return [
        text.decode() for taken in rows_of_epochs(Lane(spec, Residues()), epochs) for text, _, _ in pieces(taken.row)
    ]


def test_epochs_and_seeds_differ_and_windows_are_bounded():
    texts = [[f"{block}{letter}".encode() for letter in "abcdefghij"] for block in range(6)]
    spec = spec_of(texts, shuffle_documents=10)
    read = order_of_reading(spec, 2)
    first, second = read[:60], read[60:120]
    assert first != second
    assert order_of_reading(spec_of(texts, shuffle_documents=10, seed=1), 1)[:60] != first
    assert order_of_reading(spec_of(texts, shuffle_documents=10), 1)[:60] == first
    # As many documents in a window as in a block: a window is a shuffled block, and blocks come in shuffled order.
    windows = [first[i : i + 10] for i in range(0, 60, 10)]
    assert all(len({text[0] for text in window}) == 1 for window in windows)
    assert all(window != sorted(window) for window in windows)
    assert len({"".join(text[1] for text in window) for window in windows}) == 6, "each shuffled in its own way"
    assert [window[0][0] for window in windows] != sorted(window[0][0] for window in windows)
    wide = order_of_reading(spec_of(texts, shuffle_documents=60), 1)
    assert len({text[0] for text in wide[:10]}) > 2


def test_a_window_of_many_bytes_is_closed():
    spec = spec_of([[b"x" * 100] * 10], shuffle_documents=1000, shuffle_bytes=250)
    lane = Lane(spec, Residues())
    assert lane.next_row().state.position == 0
    while lane.state.position == 0:
        lane.next_row()
    assert lane.state == LaneState(position=3)


def test_documents_that_vanish():
    spec = spec_of([[None, None]])
    with pytest.raises(AUNetError) as error:
        Lane(spec, Residues()).next_row()
    assert str(error.value) == "0: has no documents any more; the file changed"

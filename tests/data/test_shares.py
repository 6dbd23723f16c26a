"""Ranks share out the rows: together they read what a single one reads, whatever their number after each resumption."""

import json
from collections import Counter

import pytest
from corpora import Residues, pieces, same, sentences, write
from hypothesis import given, settings
from hypothesis import strategies as st

from aunet.config import DataConfig, SourceConfig
from aunet.data import Loader, Share, sources

RULE = Residues()
ENGLISH, MORE = (sentences(40, words=15, seed=seed) for seed in (0, 1))
MORE = [f"more {text}" for text in MORE]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Two sources of several lanes, whose documents are all different and often longer than a row."""
    root = tmp_path_factory.mktemp("shares")
    paths = write(root / "a.jsonl", ENGLISH), write(root / "b.parquet", MORE)
    patch = pytest.MonkeyPatch()
    patch.setattr(sources, "SMALLEST_BLOCK", 500)
    yield DataConfig(
        sources=tuple(SourceConfig(path=str(path)) for path in paths),
        seq_len=96,
        lanes=3,
        shuffle_documents=7,
        workers=0,
        prefetch=2,
    )
    patch.undo()


@pytest.fixture(scope="module")
def single(config):
    """The rows of one rank over more than two epochs, and the state after each."""
    with Loader(config, RULE) as loader:
        found = [(loader.next_row(), loader.state_dict()) for _ in range(400)]
        assert min(loader.epochs) >= 2
    return found


def read_by(config, ranks, steps, rows_per_step, state, workers=0):
    """The rows that so many ranks read in so many steps, in the order of the run, and the state that all end in."""
    shares = []
    states = []
    for rank in range(ranks):
        with Loader(config.model_copy(update={"workers": workers}), RULE, share=Share(rank, ranks)) as loader:
            if state:
                loader.load_state_dict(state)
            first = loader.rows
            shares.append([row for _ in range(steps) for row in loader.next_rows(rows_per_step)])
            states.append(json.loads(json.dumps(loader.state_dict())))
    assert all(other == states[0] for other in states), "every rank knows the state of all"
    counts = [len(rows) for rows in shares]
    assert max(counts) - min(counts) <= 1
    waiting = [iter(rows) for rows in shares]
    rows = [next(waiting[number % ranks]) for number in range(first, first + steps * rows_per_step)]
    return rows, states[0]


@settings(max_examples=15)
@given(
    ranks=st.permutations([4, 2, 3, 1]) | st.just([4, 2, 3]),
    steps=st.lists(st.integers(0, 9), min_size=4, max_size=4),
    rows_per_step=st.integers(1, 11),
)
def test_ranks_that_change_read_the_rows_of_one_and_every_document_once(config, single, ranks, steps, rows_per_step):
    rows, state = [], None
    for count, n in zip(ranks, steps, strict=False):
        more, state = read_by(config, count, n, rows_per_step, state)
        rows += more
    assert all(same(row, expected) for row, (expected, _) in zip(rows, single, strict=False))
    assert not rows or state == json.loads(json.dumps(single[len(rows) - 1][1]))
    rest, _ = read_by(config, ranks[-1], len(single) - len(rows), 1, state)
    assert first_epoch(rows + rest, single) == Counter(text.encode() for text in ENGLISH + MORE)


def first_epoch(rows, single):
    """How often each document is read in the first epoch of every lane, counted from the pieces in the rows."""
    lanes: dict[tuple[int, int], list[bytes]] = {}
    open_ends: dict[tuple[int, int], bytes] = {}
    before = [[0] * len(source) for source in single[0][1]["lanes"]]
    for row, (_, state) in zip(rows, single, strict=False):
        counts = [[lane[0] for lane in source] for source in state["lanes"]]
        lane = next((s, i) for s, source in enumerate(counts) for i, n in enumerate(source) if n != before[s][i])
        before = counts
        for text, first, last in pieces(row):
            assert first == (lane not in open_ends)
            open_ends[lane] = open_ends.get(lane, b"") + text
            if last:
                lanes.setdefault(lane, []).append(open_ends.pop(lane))
    read: Counter[bytes] = Counter()
    for documents in lanes.values():
        size = len(set(documents))
        assert len(documents) > size, "the epoch has ended"
        read.update(documents[:size])
    return read


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_of_ranks_change_nothing(config, single, workers):
    before, state = read_by(config, 2, 5, 7, None, workers)
    after, _ = read_by(config, 3, 4, 7, state, workers)
    assert all(same(row, expected) for row, (expected, _) in zip(before + after, single, strict=False))


def test_the_next_row_of_a_share_passes_over_the_others(config, single):
    with Loader(config, RULE, share=Share(1, 3)) as loader:
        for number in (1, 4, 7):
            assert same(loader.next_row(), single[number][0])
            assert loader.rows == number + 1

"""The layout against a loop over positions."""

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packs import random_pack

from aunet.model.layout import build_layout


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=6),
    depth=st.integers(0, 3),
    offsets=st.integers(1, 5),
    deepen=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_equals_a_loop(lengths: list[int], depth: int, offsets: int, deepen: float, seed: int) -> None:
    pack = random_pack(depth, lengths, seed, deepen)
    layouts = build_layout(pack.levels, pack.starts, pack.counts, offsets)
    assert len(layouts) == depth + 1
    documents = [pack.document(n).levels.tolist() for n in range(len(lengths))]
    for s, layout in enumerate(layouts):
        starts, positions, kept, segments, distances = [0], [], [], [], []
        for document in documents:
            units = [level for level in document if level >= s]
            for i, level in enumerate(units):
                if level > s:
                    kept.append(len(positions))
                positions.append(i)
                segments.append(len(kept) - 1)
                distances.append((len(positions) - 1 - kept[-1]) % offsets if kept else 0)
            starts.append(len(positions))
        assert layout.starts_N.tolist() == starts
        assert layout.position_T.tolist() == positions
        assert layout.longest >= max(b - a for a, b in itertools.pairwise(starts))
        if s == depth:
            assert layout.pooling is None
            continue
        pooling = layout.pooling
        assert pooling is not None
        assert pooling.kept_U.tolist() == kept
        assert pooling.segment_T.tolist() == segments
        assert pooling.offset_T.tolist() == distances
        order = pooling.order_T.tolist()
        assert order == sorted(range(len(positions)), key=lambda t: distances[t])
        assert pooling.slices_P.tolist() == [sum(d <= p for d in distances) for p in range(offsets)]


def test_the_bound_on_the_length_is_the_given_one_or_the_units_of_the_stage() -> None:
    pack = random_pack(2, [7, 3])
    layouts = build_layout(pack.levels, pack.starts, pack.counts, 4, longest=7)
    assert [layout.longest for layout in layouts] == [min(7, count) for count in pack.counts]


def test_levels_of_the_caller_are_not_changed() -> None:
    pack = random_pack(2, [7, 3])
    before = pack.levels.clone()
    build_layout(pack.levels, pack.starts, pack.counts, 4)
    assert torch.equal(pack.levels, before)

"""Look-ups of a text that is read in pieces."""

from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aunet.infer.trail import Trail, rows_of
from aunet.model.layout import build_layout
from aunet.model.lookup import lookup_rows
from tests.model.packs import random_pack, small_config, small_model, with_known, with_lookups

cuts = st.lists(st.integers(0, 20), max_size=12)


@settings(max_examples=150, deadline=None)
@given(
    stages=st.sampled_from([1, 2, 3, 4]),
    length=st.integers(1, 80),
    sizes=cuts,
    deepen=st.sampled_from([0.0, 0.4, 1.0]),
    seed=st.integers(0, 2**31),
    known=st.booleans(),
)
def test_any_cut_looks_up_what_the_whole_text_does(
    stages: int, length: int, sizes: Sequence[int], deepen: float, seed: int, known: bool
) -> None:
    change = with_known if known else with_lookups
    lookups, packed = (
        small_model(change(small_config(stages))).lookups,
        random_pack(stages - 1, [length], seed, deepen),
    )
    whole = lookup_rows(lookups, packed.ids, build_layout(packed.levels, packed.starts, packed.counts, 4))
    trail, ids, levels = Trail.of(lookups), packed.ids.tolist(), packed.levels.tolist()
    pieces = []
    for size in [*sizes, length]:
        branch = trail.copy()
        branch.read(ids[:3], levels[:3])  # another continuation changes nothing
        pieces.append(trail.read(ids[:size], levels[:size]))
        ids, levels = ids[size:], levels[size:]
    for expected, parts in zip(whole, zip(*pieces, strict=True), strict=True):
        assert expected is not None
        assert torch.equal(torch.from_numpy(np.concatenate([part for part in parts if part is not None])), expected)


def test_sequences_are_end_to_end() -> None:
    lookups = small_model(with_lookups(small_config(2))).lookups
    packed = random_pack(1, [7, 1, 12])
    whole = lookup_rows(lookups, packed.ids, build_layout(packed.levels, packed.starts, packed.counts, 4))
    found = rows_of([Trail.of(lookups) for _ in range(3)], packed.ids.tolist(), packed.levels.tolist(), [7, 1, 12])
    for expected, rows in zip(whole, found, strict=True):
        assert rows is not None
        assert torch.equal(torch.from_numpy(rows), expected) if expected is not None else False


def test_a_model_without_lookups_has_nothing_to_remember() -> None:
    trail = Trail.of([None] * 3)
    assert trail.read([256, 97], [2, 0]) == [None, None, None]
    assert trail.begun == ()

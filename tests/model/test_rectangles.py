"""Documents laid out as rectangles and back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from aunet.model.rectangles import STEP, Rectangles


def _starts(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0)


@given(st.lists(st.integers(0, 5 * STEP), min_size=1, max_size=12).filter(any))
def test_every_position_comes_back_and_no_document_is_cut(lengths: list[int]) -> None:
    total = sum(lengths)
    rectangles = Rectangles.of(_starts(lengths), total, max(lengths))
    x_TD = torch.randn(total, 3)
    parts = list(rectangles.gather(x_TD))
    assert torch.equal(rectangles.scatter(parts), x_TD)
    found = []
    for position_BL in rectangles.position_BL:
        for position_L in position_BL.tolist():
            n = position_L.index(max(position_L)) + 1
            # Consecutive positions, then the last one again.
            assert position_L == [
                *range(position_L[0], position_L[0] + n),
                *[position_L[n - 1]] * (len(position_L) - n),
            ]
            found.append((position_L[0], n))
    documents = zip(_starts(lengths).tolist(), lengths, strict=False)
    assert sorted(found) == [(start, length) for start, length in documents if length]


@given(st.lists(st.integers(STEP, 40 * STEP), min_size=1, max_size=30))
def test_padding_is_a_small_part(lengths: list[int]) -> None:
    rectangles = Rectangles.of(_starts(lengths), sum(lengths), max(lengths))
    places = sum(position_BL.numel() for position_BL in rectangles.position_BL)
    rounded = sum(-(-length // STEP) * STEP for length in lengths)
    assert rounded <= places <= rounded / 0.75


def test_rows_of_one_length_are_one_rectangle_without_padding() -> None:
    rectangles = Rectangles.of(_starts([2048] * 4), 4 * 2048, 2048)
    assert [position_BL.shape for position_BL in rectangles.position_BL] == [(4, 2048)]


@pytest.mark.parametrize("longest", [100, 50_000])
def test_sizes_are_known_without_data(longest: int) -> None:
    rectangles = Rectangles.of(torch.empty(3, dtype=torch.int64, device="meta"), 50_000, longest)
    (x_BLD,) = rectangles.gather(torch.empty((50_000, 3), device="meta"))
    assert 50_000 <= x_BLD.shape[0] * x_BLD.shape[1] < 60_000
    assert rectangles.scatter([x_BLD]).shape == (50_000, 3)

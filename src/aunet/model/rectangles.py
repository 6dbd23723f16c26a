"""Packed documents as rectangles, for layers that read a rectangle of documents that are padded on the right.

Shapes: T packed positions, N documents, B documents of L places in a rectangle, D width.

Documents of like lengths share a rectangle, so that little of it is padding. What reads from left to right never sees
the padding, which stands behind the document; it is dropped on the way back.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

STEP = 64
"""Widths are multiples of this: the layers work in chunks of as many positions anyway."""
FILLED = 0.75
"""A document shorter than this share of a rectangle's width opens the next one."""
UNKNOWN = 8192
"""Length of documents where none can be read, on the `meta` device: the paper's rows."""


@dataclass(frozen=True)
class Rectangles:
    """Which packed position stands at which place."""

    position_BL: list[Tensor]
    """Of every rectangle: the packed position at each place; padding repeats the document's last one."""
    place_T: Tensor
    """Place of each packed position, in the places of all rectangles end to end."""

    @classmethod
    def of(cls, starts_N: Tensor, total: int, longest: int) -> "Rectangles":
        """Lay out the documents between these N + 1 boundaries; reads the boundaries from their device once."""
        device = starts_N.device
        if device.type == "meta":
            width = min(longest, UNKNOWN)
            return cls([starts_N.new_empty((math.ceil(total / width), width))], starts_N.new_empty(total))
        starts = starts_N.tolist()
        lengths = [end - start for start, end in pairwise(starts)]
        place_T = torch.empty(total, dtype=torch.int64)
        found, before = [], 0
        for members in _alike(lengths):
            width = _width(lengths[members[0]])
            start_B1 = torch.tensor([starts[n] for n in members])[:, None]
            length_B1 = torch.tensor([lengths[n] for n in members])[:, None]
            place_L = torch.arange(width)
            position_BL = start_B1 + torch.minimum(place_L, length_B1 - 1)
            places_BL = before + torch.arange(position_BL.numel()).view_as(position_BL)
            real_BL = place_L < length_B1
            place_T[position_BL[real_BL]] = places_BL[real_BL]
            found.append(position_BL.to(device))
            before += position_BL.numel()
        return cls(found, place_T.to(device))

    def gather(self, x_TD: Tensor) -> Iterator[Tensor]:
        """The rectangles, [B, L, D] each."""
        for position_BL in self.position_BL:
            yield x_TD.index_select(0, position_BL.flatten()).unflatten(0, position_BL.shape)

    def scatter(self, x_BLD: Sequence[Tensor]) -> Tensor:
        """Packed positions from the rectangles, [T, D]."""
        return torch.cat([x.flatten(0, 1) for x in x_BLD]).index_select(0, self.place_T)


def _width(length: int) -> int:
    return math.ceil(length / STEP) * STEP


def _alike(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Documents that share a rectangle, the longest first; empty ones have no place."""
    members: list[int] = []
    for n in sorted((n for n, length in enumerate(lengths) if length), key=lambda n: -lengths[n]):
        if members and _width(lengths[n]) < FILLED * _width(lengths[members[0]]):
            yield members
            members = []
        members.append(n)
    yield members

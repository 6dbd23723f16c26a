"""From levels to the layout of every stage: which positions are pooled, and which coarse vector each position takes.

Shapes: T positions (bytes or units) of a stage, U units of the next deeper one, N documents, P position maps.

Everything is computed by cumulative sums and scatters into sizes that the host knows (the counts), on the device of the
levels, without a synchronisation. A document's first position is kept at every stage, so every stage has a unit for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from aunet.model.rectangles import Rectangles


@dataclass(frozen=True)
class Pooling:
    """The step from a stage to the next deeper one, and back."""

    kept_U: Tensor
    """Positions whose vectors survive, ascending."""
    segment_T: Tensor
    """The coarse unit spread over each position: the last one pooled at or before it."""
    offset_T: Tensor
    """Distance to that unit's pool position, modulo P; the pool position itself has offset 0."""
    order_T: Tensor
    """Positions sorted by offset, so that each position map works on one slice."""
    slices_P: Tensor
    """Ends of these slices, on the host where the device is the host."""


@dataclass(frozen=True)
class StageLayout:
    """Where the documents lie among the packed positions of one stage."""

    starts_N: Tensor
    """N + 1 boundaries of the documents."""
    position_T: Tensor
    """Position inside the document."""
    longest: int
    """A host bound on the length of a document, for kernels that want one."""
    pooling: Pooling | None
    """None in the trunk."""

    @cached_property
    def rectangles(self) -> Rectangles:
        """The documents padded on the right, for blocks that cannot read them packed; worked out once."""
        return Rectangles.of(self.starts_N, self.position_T.shape[0], self.longest)


def build_layout(
    levels_T: Tensor, starts_N: Tensor, counts: Sequence[int], offsets: int, longest: int | None = None
) -> list[StageLayout]:
    """Layouts of all stages, from bytes to the trunk.

    `levels_T`: uint8, poolings that each position survives, the first of a document surviving all; `starts_N`: N + 1
    document boundaries; `counts`: units of every stage, with counts[0] = T; `offsets`: P; `longest`: a bound on the
    length of a document, T if not given.
    """
    layouts = []
    longest = counts[0] if longest is None else longest
    for s, count in enumerate(counts):
        position_T, longest = _positions(starts_N, count), min(longest, count)
        if s + 1 == len(counts):
            layouts.append(StageLayout(starts_N, position_T, longest, None))
            break
        pooling = _pool(levels_T > s, counts[s + 1], offsets)
        layouts.append(StageLayout(starts_N, position_T, longest, pooling))
        levels_T = levels_T[pooling.kept_U]
        last = torch.full((1,), counts[s + 1], device=starts_N.device)
        starts_N = torch.cat([pooling.segment_T[starts_N[:-1]], last])
    return layouts


def _positions(starts_N: Tensor, count: int) -> Tensor:
    """Position inside the document, int64 [T]."""
    index_T = torch.arange(count, device=starts_N.device)
    document_T = torch.searchsorted(starts_N, index_T, right=True) - 1
    return index_T - starts_N[document_T]


def _pool(kept_T: Tensor, units: int, offsets: int) -> Pooling:
    index_T = torch.arange(kept_T.shape[0], device=kept_T.device)
    segment_T = kept_T.cumsum(0) - 1
    # A position that is not kept writes into one spare slot behind the units.
    slot_T = torch.where(kept_T, segment_T, units)
    kept_U = index_T.new_empty(units + 1).scatter_(0, slot_T, index_T)[:units]
    offset_T = (index_T - kept_U[segment_T]) % offsets
    order_T = offset_T.argsort(stable=True)
    slices_P = torch.zeros(offsets, dtype=torch.int64, device=kept_T.device)
    slices_P = slices_P.scatter_add_(0, offset_T, torch.ones_like(offset_T)).cumsum(0)
    return Pooling(kept_U, segment_T, offset_T, order_T, slices_P)

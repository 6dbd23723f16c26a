"""What computes a model's reading: the operations between which `Session` moves vectors from stage to stage.

Shapes: T new positions of all sequences end to end, D the width of their stage, U units of width E of the next deeper
one, C coarse vectors, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aunet.infer.pages import Memory

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Reading:
    """New positions of a stage, and what all its blocks need to know of them: worked out once."""

    memories: Sequence[Memory]
    """Of the sequences that have new positions; there is room for these."""
    new: Sequence[int]
    """How many each."""
    window: int | None

    @cached_property
    def seen(self) -> list[int]:
        """Positions of each before."""
        return [memory.seen for memory in self.memories]

    @cached_property
    def one(self) -> bool:
        """Whether there is one new position of each."""
        return max(self.new) == 1

    @cached_property
    def position_T(self) -> Indices:
        """Where each new position is in its sequence."""
        if self.one:
            return np.array(self.seen, dtype=np.int64)
        return np.concatenate([np.arange(seen, seen + n) for seen, n in zip(self.seen, self.new, strict=True)])

    @cached_property
    def tables_T(self) -> Indices:
        """Where the addresses of the pages of each new position's sequence are."""
        return self._each([memory.table.__array_interface__["data"][0] for memory in self.memories])

    @cached_property
    def first_T(self) -> Indices:
        """The first page that each new position's sequence still has."""
        return self._each([memory.first for memory in self.memories])

    def _each(self, values: list[int]) -> Indices:
        array = np.array(values, dtype=np.int64)
        return array if self.one else array.repeat(self.new)


class Kernels(Protocol):
    """The operations of one model on one device. They may write over the vectors `x` that they are given."""

    dtype: torch.dtype
    """Of vectors, keys and values."""
    rows: int
    """New positions of one sequence at a time at most."""
    invariant: bool
    """Whether every position is computed in the same way, to the last bit, whatever else is read with it."""

    def embed(self, ids_T: Indices) -> Tensor:
        """Ids to [T, D]."""
        ...

    def blocks(self, stage: int, up: bool, x_TD: Tensor, reading: Reading) -> Tensor:
        """The blocks of one way through a stage (the trunk's are its way down); keeps keys and values."""
        ...

    def pool(self, stage: int, x_UD: Tensor) -> Tensor:
        """Vectors at pool positions of a stage to [U, E]."""
        ...

    def upsample(self, stage: int, x_TD: Tensor, coarse_CE: Tensor, source_T: Indices, offset_T: Indices) -> Tensor:
        """Add to each position its part of the coarse vector `source`, `offset` positions behind its pool position."""
        ...

    def logits(self, x_TD: Tensor) -> Tensor:
        """[T, V]."""
        ...

"""What reads: the forward pass over new positions of sequences that are anywhere in their texts.

Shapes: T new positions of all sequences end to end, D width of a stage, V vocabulary.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from aunet.infer.state import Context


class Kernels(Protocol):
    """The operations of one model on one device."""

    dtype: torch.dtype
    """Of vectors, keys and values."""
    rows: int
    """New positions of one sequence at a time at most."""
    invariant: bool
    """Whether every position is computed in the same way, to the last bit, whatever else is read with it."""

    def read(
        self, contexts: Sequence[Context], ids: Sequence[int], levels: Sequence[int], new: Sequence[int]
    ) -> tuple[Tensor, list[Tensor]]:
        """Read `new` ids of each context, all of them end to end; moves the contexts on, but not their splitters.

        Returns logits [T, V] and the output vectors of every stage that was reached, bytes first, [T, D] each.
        """
        ...

"""Look-ups that cost no FLOPs: rows of tables, chosen by a hash of the last units, added to what enters a stage.

Shapes: T positions of a stage packed end to end, N tables of a stage, D its width.

A unit of a stage is the bytes after the previous position that was pooled into it, up to its own (at the byte stage a
byte; in a model over tokens a token), and its n-gram is the ids of the last n units, its own included. Before a
document's start there is nothing, so an n-gram there is shorter. Nothing depends on ids behind the position.

The hash of the ids x_1 .. x_k is the polynomial sum (x_i + 1) R^(k - i) modulo 2^64, in the wrapping arithmetic of
int64. R is odd, so it has an inverse, and every hash follows from two values of one running sum over the document:

    S_b = sum over i <= b of (x_i + 1) R^-i        hash of the ids after a up to b = (S_b - S_a) R^b

Integers are the same on every device, and a text that is read in pieces needs to remember the hashes since the last few
units only (`aunet.infer.trail`). Hashed n-grams of bytes at the entrance of a model: Pagnoni et al. 2024, "Byte Latent
Transformer".
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aunet.config import AUNetConfig, LookupConfig
from aunet.model.layout import StageLayout

Integers = TypeVar("Integers", Tensor, npt.NDArray[np.int64])
"""int64, of torch or numpy: both wrap around."""


def signed(value: int) -> int:
    """An integer modulo 2^64 as an int64."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


MODULUS = 1 << 64
BASE = 0x9E6C63D0876A9A99
"""R: any odd number without a pattern."""
INVERSE = pow(BASE, -1, MODULUS)
MIX = 0xD6E8FEB86659FD93
"""An odd number that carries low bits up."""


class Lookup(nn.Module):
    """The tables of one stage, one below the other: row n * buckets + hash belongs to the n-th length."""

    def __init__(self, config: LookupConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(len(config.ngrams) * config.buckets, dim))
        self.sparse = False
        """Whether the gradient holds the rows that were read alone, for an optimizer that wants that."""

    def forward(self, rows_TN: Tensor) -> Tensor:
        """Sum of the rows, [T, D]."""
        return F.embedding_bag(rows_TN, self.weight, mode="sum", sparse=self.sparse)


def build_lookup(config: AUNetConfig, stage: int) -> Lookup | None:
    """The look-up of a stage (0-based), where it has one."""
    found = config.stages[stage].lookup
    return None if found is None else Lookup(found, config.stages[stage].dim)


def lookup_rows(config: AUNetConfig, ids_T: Tensor, layouts: Sequence[StageLayout]) -> list[Tensor | None]:
    """Rows [T, N] that the positions of every stage look up, None where a stage has no look-up."""
    found: list[Tensor | None] = [None] * len(layouts)
    if all(stage.lookup is None for stage in config.stages):
        return found
    powers_T, weights_T = (torch.full_like(ids_T, signed(base)).cumprod(0) for base in (BASE, INVERSE))
    term_T = (ids_T + 1) * weights_T
    after_T = term_T.cumsum(0)
    before_T = after_T - term_T
    for s, (stage, layout) in enumerate(zip(config.stages, layouts, strict=True)):
        if stage.lookup is not None:
            index_T, position_T = torch.arange(len(after_T), device=ids_T.device), layout.position_T
            columns = []
            for n in stage.lookup.ngrams:
                # The unit that the n-gram comes after; at a document's start the first one, which it begins with.
                from_T = index_T - position_T.clamp(max=n)
                start_T = torch.where(position_T < n, before_T[from_T], after_T[from_T])
                columns.append(bucket((after_T - start_T) * powers_T, salt(s, n), stage.lookup.buckets))
            found[s] = torch.stack([column + i * stage.lookup.buckets for i, column in enumerate(columns)], dim=1)
        if layout.pooling is not None:
            kept_U = layout.pooling.kept_U
            powers_T, after_T, before_T = powers_T[kept_U], after_T[kept_U], before_T[kept_U]
    return found


def salt(stage: int, n: int) -> int:
    """What makes the table of n-grams of a stage (0-based) place its hashes in a way of its own."""
    return signed(((stage << 32) + n) * MIX)


def bucket(hash_T: Integers, salt: int | Integers, buckets: int) -> Integers:
    """The bucket of a hash: all bits of both count."""
    mixed_T = hash_T ^ salt
    mixed_T = (mixed_T ^ _upper_half(mixed_T)) * signed(MIX)
    mixed_T = mixed_T ^ _upper_half(mixed_T)
    return (mixed_T & ((1 << 63) - 1)) % buckets


def _upper_half(values_T: Integers) -> Integers:
    return (values_T >> 32) & 0xFFFFFFFF

"""Look-ups that cost no FLOPs: rows of tables, chosen by a hash of the last units, added to what enters a stage.

Shapes: T positions of a stage packed end to end, N tables of a stage, D its width.

A unit of a stage is the bytes after the previous position that was pooled into it, up to its own (at the byte stage a
byte; in a model over tokens a token), and its n-gram is the ids of the last n units, its own included. Before a
document's start there is nothing, so an n-gram there is shorter. Nothing depends on ids behind the position.

The hash of the ids x_1 .. x_k is the polynomial sum (x_i + 1) R^(k - i) modulo 2^64, in the wrapping arithmetic of
int64. R is odd, so it has an inverse, and every hash follows from two values of one running sum over the document:

    S_b = sum over i <= b of (x_i + 1) R^-i        hash of the ids after a up to b = (S_b - S_a) R^b

Mixed with the stage and n, it is the key of the n-gram. In the plain tables the key modulo the buckets is the row, so
n-grams share rows, and one that training never showed adds what others have learned. Where n-grams are `known`, a row
has the key of its only n-gram, and one without a row adds nothing: what else the model knows carries over to texts that
are unlike those of training.

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


NOBODY = (1 << 63) - 1
"""Key of a row that belongs to no n-gram; the greatest, so that such rows are the last."""
UNKNOWN = 0
"""Row of all n-grams that have none of their own: it stays 0."""


class Lookup(nn.Module):
    """The tables of one stage, one below the other: row n * buckets + key modulo buckets belongs to the n-th length.

    Of known n-grams the one with keys[i], which are sorted, has row i + 1.
    """

    def __init__(self, config: LookupConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        rows = len(config.ngrams) * config.buckets
        self.weight = nn.Parameter(torch.empty(rows, dim))
        self.keys: Tensor | None
        self.register_buffer("keys", torch.empty(rows - 1, dtype=torch.int64) if config.known else None)
        self.sparse = False
        """Whether the gradient holds the rows that were read alone, for an optimizer that wants that."""

    def forward(self, rows_TN: Tensor) -> Tensor:
        """Sum of the rows, [T, D]."""
        unknown = None if self.keys is None else UNKNOWN
        return F.embedding_bag(rows_TN, self.weight, mode="sum", sparse=self.sparse, padding_idx=unknown)

    def rows(self, key_TN: Tensor) -> Tensor:
        """Rows of n-grams by their keys, those of one length in a column."""
        if self.keys is not None:
            return known_rows(key_TN, self.keys)
        buckets = self.config.buckets
        return key_TN % buckets + torch.arange(key_TN.shape[1], device=key_TN.device) * buckets

    def know(self, keys: Tensor) -> None:
        """Give the n-grams with these keys, int64 [at most rows - 1] in any order, a row each; others have none."""
        assert self.keys is not None
        self.keys.fill_(NOBODY)
        self.keys[: len(keys)] = keys.sort().values


def build_lookup(config: AUNetConfig, stage: int) -> Lookup | None:
    """The look-up of a stage (0-based), where it has one."""
    found = config.stages[stage].lookup
    return None if found is None else Lookup(found, config.stages[stage].dim)


def known_rows(key: Tensor, keys: Tensor) -> Tensor:
    """Rows of n-grams, in whatever shape, among those whose sorted keys have one."""
    index = torch.searchsorted(keys, key).clamp(max=len(keys) - 1)
    return torch.where(keys[index] == key, index + 1, UNKNOWN)


def lookup_rows(lookups: Sequence[Lookup | None], ids_T: Tensor, layouts: Sequence[StageLayout]) -> list[Tensor | None]:
    """Rows [T, N] that the positions of every stage look up, None where a stage has no look-up."""
    keys = lookup_keys([lookup.config if lookup else None for lookup in lookups], ids_T, layouts)
    return [
        lookup.rows(key_TN) if lookup and key_TN is not None else None
        for lookup, key_TN in zip(lookups, keys, strict=True)
    ]


def lookup_keys(
    lookups: Sequence[LookupConfig | None], ids_T: Tensor, layouts: Sequence[StageLayout]
) -> list[Tensor | None]:
    """Keys [T, N] of the n-grams that end at the positions of every stage, None where a stage has no look-up."""
    found: list[Tensor | None] = [None] * len(layouts)
    if all(lookup is None for lookup in lookups):
        return found
    powers_T, weights_T = (torch.full_like(ids_T, signed(base)).cumprod(0) for base in (BASE, INVERSE))
    term_T = (ids_T + 1) * weights_T
    after_T = term_T.cumsum(0)
    before_T = after_T - term_T
    for s, (lookup, layout) in enumerate(zip(lookups, layouts, strict=True)):
        if lookup is not None:
            index_T, position_T = torch.arange(len(after_T), device=ids_T.device), layout.position_T
            columns = []
            for n in lookup.ngrams:
                # The unit that the n-gram comes after; at a document's start the first one, which it begins with.
                from_T = index_T - position_T.clamp(max=n)
                start_T = torch.where(position_T < n, before_T[from_T], after_T[from_T])
                columns.append(key_of((after_T - start_T) * powers_T, salt(s, n)))
            found[s] = torch.stack(columns, dim=1)
        if layout.pooling is not None:
            kept_U = layout.pooling.kept_U
            powers_T, after_T, before_T = powers_T[kept_U], after_T[kept_U], before_T[kept_U]
    return found


def salt(stage: int, n: int) -> int:
    """What gives the n-grams of a stage (0-based) and a length keys of their own."""
    return signed(((stage << 32) + n) * MIX)


def key_of(hash_T: Integers, salt: int | Integers) -> Integers:
    """The key of an n-gram by its hash: all bits count, and it is not negative."""
    mixed_T = hash_T ^ salt
    mixed_T = (mixed_T ^ _upper_half(mixed_T)) * signed(MIX)
    return (mixed_T ^ _upper_half(mixed_T)) & NOBODY


def _upper_half(values_T: Integers) -> Integers:
    return (values_T >> 32) & 0xFFFFFFFF

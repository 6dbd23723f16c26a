"""Batches: rows end to end, as tensors for the model. Nothing is padded."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aunet.data.rows import Row


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """T positions of N isolated pieces, in CPU memory; the counts are host integers, known without a device.

    See `aunet.data.rows.Row` for the fields.
    """

    ids: Tensor
    """int64 [T]"""
    targets: Tensor
    """int64 [T]"""
    levels: Tensor
    """uint8 [T]"""
    starts: Tensor
    """int64 [N + 1]"""
    counts: tuple[int, ...]
    """Units of each stage; the first is T."""
    units: int
    """Ids of text read, which is T without the document marks."""
    bytes: int
    """Bytes of text that these stand for."""


def collate(rows: Sequence[Row]) -> Batch:
    """Lay rows end to end."""
    firsts = np.cumsum([0, *(len(row.ids) for row in rows)])
    starts = [row.starts[:-1].astype(np.int64) + first for row, first in zip(rows, firsts, strict=False)]
    return Batch(
        ids=torch.from_numpy(np.concatenate([row.ids for row in rows]).astype(np.int64)),
        targets=torch.from_numpy(np.concatenate([row.targets for row in rows]).astype(np.int64)),
        levels=torch.from_numpy(np.concatenate([row.levels for row in rows])),
        starts=torch.from_numpy(np.concatenate([*starts, firsts[-1:]])),
        counts=tuple(sum(stage) for stage in zip(*(row.counts for row in rows), strict=True)),
        units=sum(row.units for row in rows),
        bytes=sum(row.bytes for row in rows),
    )

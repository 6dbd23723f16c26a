"""What `generate` hands from step to step.

Shapes: B rows of S columns, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aunet.errors import AUNetError
from aunet.hf.rows import Rows
from aunet.infer.session import Session
from aunet.infer.state import State

CHUNK = 16384
"""Bytes of all rows that are read in one pass where only the last logits are asked for."""


class AUNetCache:
    """What the model remembers of the rows of a batch, in the manner of a cache of `transformers`."""

    is_compileable = False
    is_croppable = False
    is_linear = (False,)
    """No layer of the cache is a recurrence: ids that were read need not be given again."""

    def __init__(self, session: Session, state: State, last_BV: Tensor, columns: int = 0) -> None:
        self.session, self.state, self.columns = session, state, columns
        self.last_BV = last_BV
        """Logits after the last byte of each row."""

    @classmethod
    def empty(cls, session: Session, rows: int) -> "AUNetCache":
        """Of rows that have read nothing."""
        model = session.model
        return cls(session, session.start(rows), model.head_weight.new_zeros((rows, model.config.vocab_size)))

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns read, padding included."""
        return self.columns

    def read(self, rows: Rows, columns: Any) -> Tensor:
        """Read the next columns; logits of those of them that are asked for, [B, columns, V]."""
        if len(rows.ids) != len(self.last_BV):
            raise AUNetError(f"cache: it holds {len(self.last_BV)} rows, input_ids {len(rows.ids)}")
        before_BV, width = self.last_BV, rows.real_BS.shape[1]
        self.columns += width
        if isinstance(columns, slice) and columns.start == -1:
            piece = max(1, CHUNK // len(rows.ids))
            for first in range(0, max(map(len, rows.ids)), piece):
                self._extend([row[first : first + piece] for row in rows.ids])
            return self.last_BV[:, None].clone()
        return rows.gather(torch.cat(list(self._extend(rows.ids))), before_BV, columns)

    def _extend(self, ids: Sequence[npt.NDArray[np.int64]]) -> Sequence[Tensor]:
        """Logits of the next ids of each row, [n, V] each."""
        if all(len(row) == 1 for row in ids):
            self.last_BV = self.session.step(self.state, [int(row[0]) for row in ids])
            return self.last_BV.split(1)
        found = self.session.extend(self.state, ids)
        self.last_BV = torch.stack(
            [x[-1] if len(x) else last.to(x.dtype) for x, last in zip(found, self.last_BV, strict=True)]
        )
        return found

    def copy(self, members: Sequence[int]) -> "AUNetCache":
        """An independent cache of these rows, in this order; a row may be taken several times."""
        return AUNetCache(self.session, self.state.copy(members), self.last_BV[list(members)], self.columns)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Make these rows the rows, in this order: how beams go on."""
        members = beam_idx.tolist()
        if members != list(range(len(self.last_BV))):
            self.state, self.last_BV = self.state.copy(members), self.last_BV[members]

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row."""
        self.reorder_cache(torch.arange(len(self.last_BV)).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows."""
        self.reorder_cache(indices)

    def __deepcopy__(self, _: Any) -> "AUNetCache":
        # Continuations of one prompt are made by copying its cache, and the model is no part of what they remember.
        return self.copy(range(len(self.last_BV)))

"""Rectangles of ids with padding anywhere, and the rows without it.

Shapes: B rows of S columns, n real positions of a row, T of all rows end to end, V vocabulary.

The compiler of torch, where a model is compiled, leaves this to the host.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aunet.bytes import BOS, VOCAB_SIZE
from aunet.errors import AUNetError
from aunet.hf.config import PAD
from aunet.infer.session import document_levels
from aunet.splitting import Splitter

IGNORED = -100
"""The label that counts for nothing."""


@dataclass(frozen=True)
class Rows:
    """The real positions of a batch. Everything is on the host, where the splitter works."""

    ids: list[npt.NDArray[np.int64]]
    """Of each row, [n]; a row may have none."""
    real_BS: npt.NDArray[np.bool_]
    """Which columns they are."""

    @torch.compiler.disable
    def gather(self, logits_TV: Tensor, before_BV: Tensor, columns: Any) -> Tensor:
        """Logits of some columns, [B, columns, V]: at padding those of the last real position before it.

        So the last column predicts the next byte, whichever side the padding is on. `before_BV`: for columns before
        the first real position of a row.
        """
        read_BS = self.real_BS.cumsum(1)
        rows = len(self.ids)
        first_B1 = rows + np.cumsum([0, *map(len, self.ids)])[:-1, None]
        index_BS = np.where(read_BS > 0, first_B1 + read_BS - 1, np.arange(rows)[:, None])[:, columns]
        table = torch.cat([before_BV.to(logits_TV.dtype), logits_TV])
        return table[torch.from_numpy(index_BS).to(table.device)]


@torch.compiler.disable
def rows_of(input_ids: Any, attention_mask: Any, seen: int = 0) -> Rows:
    """Check the ids of a batch [B, S] and drop its padding: what the mask hides, and the padding id.

    The mask is that of these columns, or also of the `seen` ones before them. AUNetError names what is wrong.
    """
    ids_BS = integers("input_ids", input_ids)
    real_BS = ids_BS != PAD
    if attention_mask is not None:
        mask_BS = torch.as_tensor(attention_mask)
        if mask_BS.dim() != 2 or list(mask_BS.shape) not in (list(ids_BS.shape), [len(ids_BS), seen + ids_BS.shape[1]]):
            raise AUNetError(
                f"attention_mask: expected the shape of input_ids {list(ids_BS.shape)}, not {list(mask_BS.shape)}"
            )
        real_BS &= (mask_BS[:, -ids_BS.shape[1] :] != 0).cpu()
    read_T = ids_BS[real_BS]
    if not ids_BS.numel() or not (read_T.numel() or seen):
        raise AUNetError(f"input_ids: nothing to read in {list(ids_BS.shape)}; begin a text with BOS ({BOS})")
    if read_T.numel() and not 0 <= int(read_T.min()) <= int(read_T.max()) < VOCAB_SIZE:
        raise AUNetError(f"input_ids: every id must be from 0 to {VOCAB_SIZE - 1}, or {PAD} for padding")
    real = real_BS.numpy()
    return Rows([row[kept] for row, kept in zip(ids_BS.numpy(), real, strict=True)], real)


@torch.compiler.disable
def packed(rows: Sequence[npt.NDArray[np.int64]], splitter: Splitter, device: torch.device) -> tuple[Any, ...]:
    """The arguments of `AUNet.forward` for rows that are one document each."""
    documents = [row for row in rows if len(row)]
    levels_T = np.concatenate([document_levels(row, splitter) for row in documents])
    counts = [int((levels_T >= s).sum()) for s in range(splitter.depth + 1)]
    starts_N = np.cumsum([0, *map(len, documents)])
    arrays = (np.concatenate(documents), levels_T, starts_N)
    return (*(torch.from_numpy(array).to(device) for array in arrays), counts, max(map(len, documents)))


@torch.compiler.disable
def targets_of(labels: Any, rows: Rows) -> Tensor:
    """Labels [B, S] with everything ignored that has no real position to be predicted from or is none itself."""
    labels_BS = integers("labels", labels)
    if labels_BS.shape != rows.real_BS.shape:
        raise AUNetError(
            f"labels: expected the shape of input_ids {list(rows.real_BS.shape)}, not {list(labels_BS.shape)}"
        )
    real_BS = torch.from_numpy(rows.real_BS)
    predicted_BS = real_BS & torch.nn.functional.pad(real_BS[:, :-1], (1, 0), value=True)
    targets_BS = labels_BS.masked_fill(~predicted_BS, IGNORED)
    if bool(((targets_BS != IGNORED) & ((targets_BS < 0) | (targets_BS >= VOCAB_SIZE))).any()):
        raise AUNetError(f"labels: every label must be from 0 to {VOCAB_SIZE - 1}, or {IGNORED} to be ignored")
    return targets_BS


def columns_of(logits_to_keep: int | Tensor) -> Any:
    """The index of the last columns (0: of all), or of those that are named."""
    if isinstance(logits_to_keep, Tensor):
        return logits_to_keep.cpu().numpy()
    return slice(-logits_to_keep or None, None)


def integers(name: str, values: Any) -> Tensor:
    """Integers [B, S] as int64 on the host."""
    try:
        tensor = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise AUNetError(f"{name}: expected integers of shape [B, S] ({' '.join(str(error).split())[:120]})") from None
    if tensor.dim() != 2 or tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise AUNetError(f"{name}: expected integers of shape [B, S], not {tensor.dtype} of {list(tensor.shape)}")
    return tensor.detach().cpu().long()

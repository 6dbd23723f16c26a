"""The operations of reading in plain torch, on any device.

Shapes: T new positions of all sequences end to end, m of them in one sequence, D width, H query heads, G key/value
heads, R query heads that share one of these, K head width, S kept positions, B sequences with one new position each.
"""

from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aunet.infer.kernels import Indices, Reading
from aunet.infer.pages import SLOTS, Memory, Page
from aunet.model.attention import attention
from aunet.model.aunet import AUNet, Stage
from aunet.model.layers import Block, Rotation
from aunet.model.layout import Pooling
from aunet.model.upsampling import Stepper

QUERIES = 128
"""Queries that read a long memory together; bounds the mask at QUERIES times the keys."""
TABLE = 8192
"""Positions whose rotary angles are looked up when bytes come one by one; those of later ones are computed."""


@torch.no_grad()
def lay_out_for_reading(model: AUNet) -> AUNet:
    """On a CPU, store the linear maps by columns: same values and shapes, other strides; returns the model.

    A step multiplies one or two vectors by weights that come from memory, which is faster by columns
    (docs/performance.md); products with many vectors, in prompts and in training, do not mind.
    """
    if model.head.weight.device.type == "cpu":
        for module in model.modules():
            if isinstance(module, nn.Linear) and type(module.weight.data) is Tensor:  # not one of torchao's
                module.weight.data = module.weight.data.T.contiguous().T
    return model


class EagerKernels:
    """`Kernels` in torch operations. What can be folded is folded once: the weights must not change meanwhile."""

    rows = 2048
    invariant = False

    def __init__(self, model: AUNet) -> None:
        self.model, self.device, self.dtype = model, model.head.weight.device, model.embedding.weight.dtype
        with torch.inference_mode():
            self._steppers: list[Stepper] = [cast(Stage, stage).upsample.stepper() for stage in model.stages]
        self._tables: list[Rotation | None] = [None] * len(model.config.stages)

    def embed(self, ids_T: Indices) -> Tensor:
        """Ids to [T, D]."""
        return self.model.embedding(torch.from_numpy(ids_T).to(self.device))

    def blocks(self, stage: int, up: bool, x_TD: Tensor, reading: Reading) -> Tensor:
        """The blocks of one way through a stage; keeps keys and values."""
        if stage == self.model.config.depth:
            blocks, first = self.model.trunk.blocks, 0
        else:
            ways = cast(Stage, self.model.stages[stage])
            blocks, first = (ways.expand, len(ways.contract)) if up else (ways.contract, 0)
        rotate_by = self._rotation(stage, reading)
        for layer, block in enumerate(cast(Iterable[Block], blocks), first):
            attend = lambda q, k, v, layer=layer: _attend(layer, q, k, v, reading)  # noqa: E731
            x_TD = block.extend(x_TD, rotate_by, attend)
        return x_TD

    def pool(self, stage: int, x_UD: Tensor) -> Tensor:
        """Vectors at pool positions to [U, E]."""
        pool = cast(Stage, self.model.stages[stage]).pool
        return pool.project(pool.norm(x_UD))

    def upsample(self, stage: int, x_TD: Tensor, coarse_CE: Tensor, source_T: Indices, offset_T: Indices) -> Tensor:
        """Add to each position its part of its coarse vector."""
        if len(source_T) <= SLOTS:
            # Few positions: the time is the number of small operations.
            alike = len(source_T) == coarse_CE.shape[0] and bool((source_T == np.arange(len(source_T))).all())
            chosen_TE = coarse_CE if alike else coarse_CE[torch.from_numpy(source_T).to(self.device)]
            return x_TD + self._steppers[stage](chosen_TE, offset_T.tolist())
        modulo_T = offset_T % self.model.config.offsets
        order_T = np.argsort(modulo_T, kind="stable")
        slices_P = np.cumsum(np.bincount(modulo_T, minlength=self.model.config.offsets))
        arrays = (np.flatnonzero(offset_T == 0), source_T, modulo_T, order_T, slices_P)
        pooling = Pooling(*(torch.from_numpy(array).to(self.device) for array in arrays))
        return x_TD + cast(Stage, self.model.stages[stage]).upsample(coarse_CE, pooling)

    def logits(self, x_TD: Tensor) -> Tensor:
        """[T, V]."""
        return self.model.logits_of(x_TD)

    def _rotation(self, stage: int, reading: Reading) -> Rotation:
        """Rotary angles of the new positions; those of single positions are looked up."""
        if not reading.one or max(reading.seen) >= TABLE:
            return self.model.rotation(stage, torch.from_numpy(reading.position_T).to(self.device))
        if self._tables[stage] is None:
            self._tables[stage] = self.model.rotation(stage, torch.arange(TABLE, device=self.device))
        cos, sin = cast(Rotation, self._tables[stage])
        if len(reading.seen) == 1:
            (position,) = reading.seen
            return cos[position : position + 1], sin[position : position + 1]
        position_B = torch.from_numpy(reading.position_T).to(self.device)
        return cos[position_B], sin[position_B]


def _attend(layer: int, q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor, reading: Reading) -> Tensor:
    """Attend from new positions to the kept ones and themselves, and keep theirs; [T, H, K]."""
    if reading.one:
        for i, (memory, seen) in enumerate(zip(reading.memories, reading.seen, strict=True)):
            page, slot = memory.pages[seen // SLOTS - memory.first], seen % SLOTS
            page.keys[layer][:, slot], page.values[layer][:, slot] = k_TGK[i], v_TGK[i]
        return _attend_one(layer, q_THK, reading)
    if not any(reading.seen):
        starts_N = torch.tensor([0, *reading.new]).cumsum(0).to(q_THK.device)
        outs = [attention(q_THK, k_TGK, v_TGK, starts_N, reading.window, max(reading.new))]
    else:
        parts = (x.split(list(reading.new)) for x in (q_THK, k_TGK, v_TGK))
        outs = [_attend_many(layer, memory, *part) for memory, *part in zip(reading.memories, *parts, strict=True)]
    for memory, k, v in zip(
        reading.memories, k_TGK.split(list(reading.new)), v_TGK.split(list(reading.new)), strict=True
    ):
        _keep(layer, memory, k, v)
    return outs[0] if len(outs) == 1 else torch.cat(outs)


def _attend_one(layer: int, q_BHK: Tensor, reading: Reading) -> Tensor:
    """One query of each sequence, whose keys are kept already."""
    starts = [
        memory.visible(seen) - memory.first * SLOTS for memory, seen in zip(reading.memories, reading.seen, strict=True)
    ]
    # Whole pages, from the first that is seen: what a sequence does not see of them is hidden.
    pages = [memory.pages[start // SLOTS :] for memory, start in zip(reading.memories, starts, strict=True)]
    starts = [start % SLOTS for start in starts]
    ends = [
        seen + 1 - (memory.first + len(memory.pages) - len(own)) * SLOTS
        for memory, seen, own in zip(reading.memories, reading.seen, pages, strict=True)
    ]
    groups, width, batch = reading.memories[0].pages[0].keys[layer].shape[0], max(map(len, pages)), len(pages)
    keys_GSK = _joined([page.keys[layer] for own in pages for page in _filled(own, width)])
    values_GSK = _joined([page.values[layer] for own in pages for page in _filled(own, width)])
    mask = None
    if batch == 1:
        keys_GSK, values_GSK = keys_GSK[:, starts[0] : ends[0]], values_GSK[:, starts[0] : ends[0]]
    else:
        start_B1, end_B1 = torch.tensor([starts, ends], device=q_BHK.device)[:, :, None]
        slot_S = torch.arange(width * SLOTS, device=q_BHK.device)
        mask = ((slot_S >= start_B1) & (slot_S < end_B1))[:, None, None, :]
    k_BGSK, v_BGSK = (x.unflatten(1, (batch, -1)).transpose(0, 1) for x in (keys_GSK, values_GSK))
    # Heads that share keys count as queries of one head: nothing is repeated.
    return F.scaled_dot_product_attention(q_BHK.unflatten(1, (groups, -1)), k_BGSK, v_BGSK, mask).flatten(1, 2)


def _filled(pages: list[Page], width: int) -> list[Page]:
    """So many pages: the last one again where there are fewer, which a mask hides."""
    return pages + pages[-1:] * (width - len(pages))


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=1)


def _attend_many(layer: int, memory: Memory, q_mHK: Tensor, k_mGK: Tensor, v_mGK: Tensor) -> Tensor:
    """m new positions of one sequence, before they are kept."""
    seen, start = memory.seen, memory.visible(memory.seen)
    before = seen - start
    keys, values = k_mGK, v_mGK
    if before:
        low, high = start // SLOTS, -(-seen // SLOTS)
        pages = memory.pages[low - memory.first : high - memory.first]
        kept = slice(start - low * SLOTS, seen - low * SLOTS)
        keys = torch.cat([_joined([page.keys[layer] for page in pages])[:, kept].transpose(0, 1), k_mGK])
        values = torch.cat([_joined([page.values[layer] for page in pages])[:, kept].transpose(0, 1), v_mGK])
    if memory.window is not None and q_mHK.shape[0] > SLOTS:
        # The kept keys are at most a window: as positions without queries of the packed operator they cost little.
        padded = torch.cat([q_mHK.new_zeros((before, *q_mHK.shape[1:])), q_mHK])
        starts_N = torch.tensor([0, keys.shape[0]], device=q_mHK.device)
        return attention(padded, keys, values, starts_N, memory.window, keys.shape[0])[before:]
    outs = []
    for first in range(0, q_mHK.shape[0], QUERIES):
        q = q_mHK[first : first + QUERIES].transpose(0, 1)[None]
        reach = before + first + q.shape[2]
        sees = torch.ones(q.shape[2], reach, dtype=torch.bool, device=q.device).tril(reach - q.shape[2])
        if memory.window is not None:
            sees = sees.triu(reach - q.shape[2] - memory.window + 1)
        k, v = (x[:reach].transpose(0, 1)[None] for x in (keys, values))
        grouped = q.shape[1] > k.shape[1]
        outs.append(F.scaled_dot_product_attention(q, k, v, attn_mask=sees, enable_gqa=grouped)[0].transpose(0, 1))
    return torch.cat(outs)


def _keep(layer: int, memory: Memory, k_mGK: Tensor, v_mGK: Tensor) -> None:
    """Store new positions page by page."""
    done = 0
    while done < k_mGK.shape[0]:
        position = memory.seen + done
        page, slot = memory.pages[position // SLOTS - memory.first], position % SLOTS
        count = min(SLOTS - slot, k_mGK.shape[0] - done)
        page.keys[layer][:, slot : slot + count] = k_mGK[done : done + count].transpose(0, 1)
        page.values[layer][:, slot : slot + count] = v_mGK[done : done + count].transpose(0, 1)
        done += count

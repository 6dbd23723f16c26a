"""The operations of reading in plain torch, on any device.

Shapes: T new positions of all sequences end to end, m of them in one sequence, D width, H query heads, G key/value
heads, R query heads that share one of these, K head width, S kept positions, B sequences with one new position each.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aunet.infer.pages import SLOTS, Memory, Page
from aunet.infer.state import Context
from aunet.infer.trail import rows_of
from aunet.model.attention import attention
from aunet.model.aunet import AUNet, Stage
from aunet.model.layers import Attention, Block, Rotation
from aunet.model.layout import Pooling
from aunet.model.mamba import MambaBlock, MambaState
from aunet.model.pooling import SelectPool
from aunet.model.upsampling import UPSAMPLINGS, Stepper

Indices = npt.NDArray[np.int64]
Levels = npt.NDArray[np.uint8]

QUERIES = 128
"""Queries that read a long memory together; bounds the mask at QUERIES times the keys."""
FEW = 64
"""Positions up to which the time of an operation is that of starting it."""
TABLE = 8192
"""Positions whose rotary angles are looked up when bytes come one by one; those of later ones are computed."""

TAKEN_APART: tuple[type[nn.Module], ...] = (AUNet, Block, Attention, MambaBlock, SelectPool, *UPSAMPLINGS.values())
"""Modules that are not called as in `AUNet.forward`: reading new positions uses what is inside them."""


@torch.no_grad()
def lay_out_for_reading(model: AUNet) -> AUNet:
    """On a CPU, store the linear maps by columns: same values and shapes, other strides; returns the model.

    A step multiplies one or two vectors by weights that come from memory, which is faster by columns; products with
    many vectors, in prompts and in training, do not mind.
    """
    if model.head_weight.device.type == "cpu":
        for module in model.modules():
            if isinstance(module, nn.Linear) and type(module.weight.data) is Tensor:  # not one of torchao's
                module.weight.data = module.weight.data.T.contiguous().T
    return model


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
    def sight(self) -> "Sight":
        """What the only new position of each sequence sees: worked out once, and on a GPU sent once, for all blocks."""
        starts = [
            memory.visible(seen) - memory.first * SLOTS for memory, seen in zip(self.memories, self.seen, strict=True)
        ]
        # Whole pages, from the first that is seen: what a sequence does not see of them is hidden.
        pages = [memory.pages[start // SLOTS :] for memory, start in zip(self.memories, starts, strict=True)]
        starts = [start % SLOTS for start in starts]
        ends = [
            seen + 1 - (memory.first + len(memory.pages) - len(own)) * SLOTS
            for memory, seen, own in zip(self.memories, self.seen, pages, strict=True)
        ]
        if len(pages) == 1:
            return Sight(pages, slice(starts[0], ends[0]), None)
        width, device = max(map(len, pages)), pages[0][0].data.device
        start_B1, end_B1 = torch.tensor([starts, ends], device=device)[:, :, None]
        slot_S = torch.arange(width * SLOTS, device=device)
        mask = ((slot_S >= start_B1) & (slot_S < end_B1))[:, None, None, :]
        # The last page again where a sequence has fewer, which the mask hides.
        return Sight([own + own[-1:] * (width - len(own)) for own in pages], slice(None), mask)

    @cached_property
    def position_T(self) -> Indices:
        """Where each new position is in its sequence."""
        return np.concatenate([np.arange(seen, seen + n) for seen, n in zip(self.seen, self.new, strict=True)])


class Sight(NamedTuple):
    """Pages that are read for one new position of each sequence, as many for each."""

    pages: list[list[Page]]
    slots: slice
    """What a sequence alone sees of its pages;"""
    mask: Tensor | None
    """and what each of several sees of its own, [B, 1, 1, S]."""


class EagerKernels:
    """`Kernels` in torch operations. What can be folded is folded once: the weights must not change meanwhile."""

    rows = 2048
    invariant = False

    def __init__(self, model: AUNet) -> None:
        self.model, self.device, self.dtype = model, model.head_weight.device, model.embedding.weight.dtype
        with torch.inference_mode():
            self._steppers: list[Stepper] = [cast(Stage, stage).upsample.stepper() for stage in model.stages]
        self._tables: list[Rotation | None] = [None] * len(model.config.stages)

    def read(
        self, contexts: Sequence[Context], ids: Sequence[int], levels: Sequence[int], new: Sequence[int]
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits [T, V] and the outputs of the stages; the counterpart of `AUNet.forward`."""
        outputs: list[Tensor] = []
        rows = rows_of([context.trail for context in contexts], ids, levels, new)
        x_TD = self.model.embedding(torch.tensor(ids, device=self.device))
        x_TD = self._run(0, x_TD, np.asarray(levels, dtype=np.uint8), contexts, new, rows, outputs)
        return self.model.logits_of(x_TD), outputs[::-1]

    def _run(
        self,
        s: int,
        x_TD: Tensor,
        levels_T: Levels,
        contexts: Sequence[Context],
        new: Sequence[int],
        rows: Sequence[Indices | None],
        outputs: list[Tensor],
    ) -> Tensor:
        """Stage s and everything below it; appends their outputs, the deepest first."""
        memories = [context.memories[s] for context in contexts]
        config = self.model.config.stages[s]
        if config.mixer == "attention":
            for memory, n in zip(memories, new, strict=True):
                memory.reserve(n, lambda: self._page(s))
        found = rows[s]
        x_TD = self.model.enter(s, x_TD, None if found is None else torch.from_numpy(found).to(self.device))
        reading = Reading(memories, new, config.window)
        rotate_by = self._rotation(s, reading)
        if s == self.model.config.depth:
            x_TD = _through(self.model.trunk.blocks, 0, x_TD, rotate_by, reading)
        else:
            stage = cast(Stage, self.model.stages[s])
            x_TD = _through(stage.contract, 0, x_TD, rotate_by, reading)
            x_TD = self._deeper(s, x_TD, levels_T, contexts, reading, rows, outputs)
            x_TD = _through(stage.expand, len(stage.contract), x_TD, rotate_by, reading)
        for memory, n in zip(memories, new, strict=True):
            memory.seen += n
        outputs.append(x_TD)
        return x_TD

    def _deeper(
        self,
        s: int,
        x_TD: Tensor,
        levels_T: Levels,
        contexts: Sequence[Context],
        reading: Reading,
        rows: Sequence[Indices | None],
        outputs: list[Tensor],
    ) -> Tensor:
        """Pool what reached the next stage, run it, and add what comes back: [T, D]."""
        stage, memories, new = cast(Stage, self.model.stages[s]), reading.memories, reading.new
        kept_U = np.flatnonzero(levels_T > s)
        ends = np.cumsum(new)
        pooled = np.diff(np.searchsorted(kept_U, [0, *ends])).tolist()
        segment_T, offset_T = _segments(kept_U, new, [memory.offset for memory in memories])
        units_UE = x_TD[:0]  # none
        if len(kept_U):
            kept_UD = x_TD if len(kept_U) == len(levels_T) else x_TD[torch.from_numpy(kept_U).to(self.device)]
            deeper = [(context, n) for context, n in zip(contexts, pooled, strict=True) if n]
            units_UE = self._run(
                s + 1,
                stage.pool.project(stage.pool.norm(kept_UD)),
                levels_T[kept_U],
                [context for context, _ in deeper],
                [n for _, n in deeper],
                rows,
                outputs,
            )
        # Rows of the coarse vectors: the last one of each sequence that still needs it, then the new ones.
        old = [i for i, memory in enumerate(memories) if memory.coarse_E is not None and offset_T[ends[i] - new[i]] > 0]
        coarse = [memories[i].coarse_E for i in old]
        row = np.full(len(memories) + len(kept_U), -1)
        row[old] = np.arange(len(old))
        row[len(memories) :] = len(old) + np.arange(len(kept_U))
        stacked = [torch.stack([x for x in coarse if x is not None])] if coarse else []
        coarse_CE = torch.cat([*stacked, *([units_UE] if len(kept_U) else [])])
        x_TD = self._upsample(s, x_TD, coarse_CE, row[segment_T], offset_T)
        unit = 0
        for i, (memory, n) in enumerate(zip(memories, pooled, strict=True)):
            unit += n
            memory.offset = int(offset_T[ends[i] - 1]) + 1
            if n:
                memory.coarse_E = units_UE[unit - 1].clone()
        return x_TD

    def _page(self, s: int) -> Page:
        config = self.model.config.stages[s]
        blocks = sum(self.model.config.layers(s))
        # Zeros, because a slot that a mask hides is still multiplied by 0, and whatever memory held may be NaN.
        return Page(
            torch.zeros((blocks, 2, config.kv_heads, SLOTS, config.head_dim), dtype=self.dtype, device=self.device)
        )

    def _upsample(self, stage: int, x_TD: Tensor, coarse_CE: Tensor, source_T: Indices, offset_T: Indices) -> Tensor:
        """Add to each position its part of its coarse vector."""
        if len(source_T) <= FEW:
            alike = len(source_T) == coarse_CE.shape[0] and bool((source_T == np.arange(len(source_T))).all())
            chosen_TE = coarse_CE if alike else coarse_CE[torch.from_numpy(source_T).to(self.device)]
            return x_TD + self._steppers[stage](chosen_TE, offset_T.tolist())
        modulo_T = offset_T % self.model.config.offsets
        order_T = np.argsort(modulo_T, kind="stable")
        slices_P = np.cumsum(np.bincount(modulo_T, minlength=self.model.config.offsets))
        arrays = (np.flatnonzero(offset_T == 0), source_T, modulo_T, order_T, slices_P)
        pooling = Pooling(*(torch.from_numpy(array).to(self.device) for array in arrays))
        return x_TD + cast(Stage, self.model.stages[stage]).upsample(coarse_CE, pooling)

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
    pages, slots, mask = reading.sight
    keys_GSK = _joined([page.keys[layer] for own in pages for page in own])[:, slots]
    values_GSK = _joined([page.values[layer] for own in pages for page in own])[:, slots]
    k_BGSK, v_BGSK = (x.unflatten(1, (len(pages), -1)).transpose(0, 1) for x in (keys_GSK, values_GSK))
    # Heads that share keys count as queries of one head: nothing is repeated.
    q_BGRK = q_BHK.unflatten(1, (keys_GSK.shape[0], -1))
    return F.scaled_dot_product_attention(q_BGRK, k_BGSK, v_BGSK, mask).flatten(1, 2)


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
    if memory.window is not None and q_mHK.shape[0] > FEW:
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


def _through(blocks: nn.ModuleList, first: int, x_TD: Tensor, rotate_by: Rotation, reading: Reading) -> Tensor:
    """Some blocks of a stage, which are its layers from `first` on."""
    for layer, block in enumerate(cast(Iterable[Block | MambaBlock], blocks), first):
        if isinstance(block, MambaBlock):
            x_TD = _recur(layer, block, x_TD, reading)
            continue
        attend = lambda q, k, v, layer=layer: _attend(layer, q, k, v, reading)  # noqa: E731
        x_TD = block.extend(x_TD, rotate_by, attend)
    return x_TD


def _recur(layer: int, block: MambaBlock, x_TD: Tensor, reading: Reading) -> Tensor:
    """New positions through a Mamba-2 block; sequences with as many of them go together, without any padding."""
    parts = list(x_TD.split(list(reading.new)))
    for size in set(reading.new):
        members = [i for i, n in enumerate(reading.new) if n == size]
        before = MambaState.joined([reading.memories[i].states.get(layer) or block.start() for i in members])
        y_BmD, after = block.extend(torch.stack([parts[i] for i in members]), before)
        for i, y_mD, state in zip(members, y_BmD, after.split(), strict=True):
            parts[i], reading.memories[i].states[layer] = y_mD, state
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _segments(kept_U: npt.NDArray[np.intp], new: Sequence[int], offsets: Sequence[int]) -> tuple[Indices, Indices]:
    """Coarse row and true offset of every new position.

    Rows 0 .. B-1 are the sequences' last coarse vectors, which go on until a sequence's first pooled position; rows
    from B on are the new units in order.
    """
    total, members = sum(new), len(new)
    index_T = np.arange(total)
    first_B = np.cumsum([0, *new])[:-1]
    member_T = np.repeat(np.arange(members), new)
    unit_T = np.searchsorted(kept_U, index_T, side="right") - 1
    position_T = np.where(unit_T >= 0, kept_U[unit_T], -1) if len(kept_U) else np.full(total, -1)
    own_T = position_T >= first_B[member_T]
    segment_T = np.where(own_T, members + unit_T, member_T)
    offset_T = np.where(own_T, index_T - position_T, np.asarray(offsets)[member_T] + index_T - first_B[member_T])
    return segment_T.astype(np.int64), offset_T.astype(np.int64)

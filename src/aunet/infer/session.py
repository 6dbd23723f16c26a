"""Reading byte by byte or in pieces: the forward pass with a memory.

Shapes: B sequences, T new positions of all sequences end to end, D width, U new units of a stage, E its width,
V vocabulary.

One function reads any number of new bytes of any subset of the sequences (`Session.extend`). A stage runs only for the
positions that were pooled: byte by byte that is only when a sequence completes a unit, and every other byte takes the
stage's last output vector again, one offset further. One byte or a million, from an empty state or any other, its
logits are those of the forward pass over the whole text.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aunet.bytes import BOS
from aunet.infer.eager import EagerKernels
from aunet.infer.kernels import Indices, Kernels, Reading
from aunet.infer.pages import SLOTS, Memory, Page
from aunet.infer.state import Context, State
from aunet.model.aunet import AUNet
from aunet.splitting import Splitter

Ids = Sequence[int] | npt.NDArray[np.integer]
Levels = npt.NDArray[np.uint8]


class Session:
    """A model prepared for reading. What can be folded is folded once, so the weights must not change meanwhile."""

    def __init__(self, model: AUNet, splitter: Splitter, kernels: Kernels | None = None) -> None:
        self.model, self.splitter = model, splitter
        self.device = model.head.weight.device
        self.kernels: Kernels = kernels or EagerKernels(model)

    def context(self) -> Context:
        """A sequence that has read nothing, not even BOS."""
        return Context([Memory(stage.window) for stage in self.model.config.stages], self.splitter.stream())

    def start(self, batch: int) -> State:
        """The state of `batch` sequences that have read nothing."""
        return State([self.context() for _ in range(batch)])

    def levels(self, context: Context, ids: Ids) -> list[int]:
        """Levels of the next ids; moves the splitter on. BOS opens a text and has the highest level."""
        highest, levels = self.splitter.depth, []
        for i in ids:
            if i < BOS:
                levels.append(context.stream.push(int(i)))
            else:
                context.stream = self.splitter.stream()
                levels.append(highest)
        if levels and context.seen == 0:
            levels[0] = highest
        return levels

    @torch.inference_mode()
    def extend(
        self,
        state: State,
        ids: Sequence[Ids],
        levels: Sequence[Sequence[int] | npt.NDArray[np.integer]] | None = None,
        hidden: list[Tensor] | None = None,
    ) -> list[Tensor]:
        """Read new ids of every sequence (B lists, some may be empty); returns their next-byte logits, B times [n, V].

        `levels`: of these ids, by the splitter if not given; the first id of a sequence must have the highest level.
        `hidden`: a list to which the output vectors of the stages are appended, the trunk's first, [T, D] each; for
        one sequence.
        """
        if levels is None:
            levels = [self.levels(context, x) for context, x in zip(state.contexts, ids, strict=True)]
        found: list[list[Tensor]] = [[] for _ in ids]
        outputs: list[list[Tensor]] = [[] for _ in self.model.config.stages]
        for first in range(0, max(map(len, ids), default=0), self.kernels.rows):
            members = [b for b, x in enumerate(ids) if len(x) > first]
            pieces = [np.asarray(ids[b][first : first + self.kernels.rows], dtype=np.int64) for b in members]
            parts = [np.asarray(levels[b][first : first + self.kernels.rows], dtype=np.uint8) for b in members]
            new = [len(piece) for piece in pieces]
            logits_TV = self._read(
                [state.contexts[b] for b in members], np.concatenate(pieces), np.concatenate(parts), new, outputs
            )
            for b, rows in zip(members, logits_TV.split(new), strict=True):
                found[b].append(rows)
        if hidden is not None:
            hidden += [torch.cat(parts) for parts in reversed(outputs) if parts]
        nothing = torch.empty((0, self.model.config.vocab_size), dtype=self.kernels.dtype, device=self.device)
        return [rows[0] if len(rows) == 1 else torch.cat(rows) if rows else nothing for rows in found]

    @torch.inference_mode()
    def step(self, state: State, ids: Sequence[int]) -> Tensor:
        """Read one id of every sequence; [B, V]."""
        levels = [self.levels(context, [i])[0] for context, i in zip(state.contexts, ids, strict=True)]
        return self._read(
            state.contexts, np.array(ids, dtype=np.int64), np.array(levels, dtype=np.uint8), [1] * len(ids), None
        )

    def _read(
        self,
        contexts: Sequence[Context],
        ids_T: Indices,
        levels_T: Levels,
        new: list[int],
        outputs: list[list[Tensor]] | None,
    ) -> Tensor:
        return self.kernels.logits(self._run(0, self.kernels.embed(ids_T), levels_T, contexts, new, outputs))

    def _run(
        self,
        s: int,
        x_TD: Tensor,
        levels_T: Levels,
        contexts: Sequence[Context],
        new: list[int],
        outputs: list[list[Tensor]] | None,
    ) -> Tensor:
        """Stage s and everything below it; the counterpart of `AUNet._run`."""
        memories = [context.memories[s] for context in contexts]
        for memory, n in zip(memories, new, strict=True):
            memory.reserve(n, lambda: self._page(s))
        reading = Reading(memories, new, self.model.config.stages[s].window)
        x_TD = self.kernels.blocks(s, False, x_TD, reading)
        if s < self.model.config.depth:
            x_TD = self._deeper(s, x_TD, levels_T, contexts, reading, outputs)
            x_TD = self.kernels.blocks(s, True, x_TD, reading)
        for memory, n in zip(memories, new, strict=True):
            memory.seen += n
        if outputs is not None:
            outputs[s].append(x_TD)
        return x_TD

    def _deeper(
        self,
        s: int,
        x_TD: Tensor,
        levels_T: Levels,
        contexts: Sequence[Context],
        reading: Reading,
        outputs: list[list[Tensor]] | None,
    ) -> Tensor:
        """Pool what reached the next stage, run it, and add what comes back: [T, D]."""
        memories, new = reading.memories, reading.new
        kept_U = np.flatnonzero(levels_T > s)
        ends = np.cumsum(new)
        pooled = np.diff(np.searchsorted(kept_U, [0, *ends])).tolist()
        segment_T, offset_T = _segments(kept_U, new, [memory.offset for memory in memories])
        units_UE = x_TD[:0]
        if len(kept_U):
            kept_UD = x_TD if len(kept_U) == len(levels_T) else x_TD[torch.from_numpy(kept_U).to(self.device)]
            deeper = [(context, n) for context, n in zip(contexts, pooled, strict=True) if n]
            units_UE = self._run(
                s + 1,
                self.kernels.pool(s, kept_UD),
                levels_T[kept_U],
                [context for context, _ in deeper],
                [n for _, n in deeper],
                outputs,
            )
        # Rows of the coarse vectors: the last one of each sequence that still needs it, then the new ones.
        old = [i for i, memory in enumerate(memories) if memory.coarse_E is not None and offset_T[ends[i] - new[i]] > 0]
        coarse = [memories[i].coarse_E for i in old]
        row = np.full(len(memories) + len(kept_U), -1)
        row[old] = np.arange(len(old))
        row[len(memories) :] = len(old) + np.arange(len(kept_U))
        stacked = [torch.stack([x for x in coarse if x is not None])] if coarse else []
        coarse_CE = _joined([*stacked, *([units_UE] if len(kept_U) else [])])
        x_TD = self.kernels.upsample(s, x_TD, coarse_CE, row[segment_T], offset_T)
        unit = 0
        for i, (memory, n) in enumerate(zip(memories, pooled, strict=True)):
            unit += n
            memory.offset = int(offset_T[ends[i] - 1]) + 1
            if n:
                memory.coarse_E = units_UE[unit - 1].clone()
        return x_TD

    def _page(self, s: int) -> Page:
        config = self.model.config.stages[s]
        blocks = config.layers * (1 if s == self.model.config.depth else 2)
        # Zeros, because a slot that a mask hides is still multiplied by 0, and whatever memory held may be NaN.
        return Page(
            torch.zeros(
                (blocks, 2, config.kv_heads, SLOTS, config.head_dim), dtype=self.kernels.dtype, device=self.device
            )
        )


def _joined(parts: list[Tensor]) -> Tensor:
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

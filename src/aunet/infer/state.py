"""Reading bytes with a model that remembers: the cascade of the paper's section 2, for many sequences at once.

Shapes: B sequences, T new positions of a stage of all sequences end to end, U new units of the next stage, D width of
the stage, E of the next deeper one, V vocabulary.

`Session.extend` mirrors `AUNet.forward`: contract, pool, deeper stages, upsample, skip, expand. A deeper stage runs
only for the positions that were pooled: byte by byte that is only when a sequence completes a unit, and every other
byte takes the stage's last output vector again, one offset further. One byte or a million, from an empty state or any
other, its logits are those of the forward pass over the whole text; bytes that come one by one take a short path.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from aunet.bytes import BOS
from aunet.compiler import require_compiler
from aunet.infer.cache import KeyValueCache, Reading
from aunet.infer.compiled import CompiledBlocks
from aunet.model.aunet import AUNet, Stage
from aunet.model.layers import Block, Rotation
from aunet.model.layout import Pooling
from aunet.model.upsampling import Stepper
from aunet.splitting import Splitter, Stream

TABLE = 8192
"""Positions whose rotary angles are looked up when bytes come one by one; those of later ones are computed."""


@dataclass
class StageState:
    """What a stage remembers of B sequences."""

    caches: list[KeyValueCache]
    """Of its blocks, on the way down and then on the way up."""
    seen: list[int]
    """Positions read."""
    coarse_BE: Tensor | None = None
    """Last output vector of the next deeper stage; None in the trunk."""
    offset: list[int] = field(default_factory=list)
    """Distance of the next position from the pool position of that vector."""


@dataclass
class State:
    """What a model remembers of B sequences that may be at different points."""

    stages: list[StageState]
    streams: list[Stream]

    @torch.inference_mode()
    def copy(self, members: Sequence[int]) -> "State":
        """An independent state of these sequences, in this order; a sequence may be taken several times."""
        stages = [
            StageState(
                [cache.copy(members) for cache in stage.caches],
                [stage.seen[b] for b in members],
                None
                if stage.coarse_BE is None
                else stage.coarse_BE[torch.tensor(members, device=stage.coarse_BE.device)],
                [stage.offset[b] for b in members] if stage.offset else [],
            )
            for stage in self.stages
        ]
        return State(stages, [self.streams[b].copy() for b in members])


@torch.no_grad()
def lay_out_for_reading(model: AUNet) -> AUNet:
    """On a CPU, store the linear maps by columns: same values and shapes, other strides; returns the model.

    A step multiplies one or two vectors by weights that come from memory, which is faster by columns
    (docs/performance.md); products with many vectors, in prompts and in training, do not mind.
    """
    if model.head.weight.device.type == "cpu":
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight.data = module.weight.data.T.contiguous().T
    return model


class Session:
    """A model prepared for reading. What can be folded is folded once, so the weights must not change meanwhile.

    `compile`: bytes that come one by one pass every stack of blocks as one compiled graph (`infer/compiled.py`).
    """

    def __init__(self, model: AUNet, splitter: Splitter, compile: bool = False) -> None:
        self.model, self.splitter = model, splitter
        self.device = model.head.weight.device
        with torch.inference_mode():
            self._steppers: list[Stepper] = [cast(Stage, stage).upsample.stepper() for stage in model.stages]
        self._tables: list[Rotation | None] = [None] * len(model.config.stages)
        self._compiled: dict[nn.ModuleList, CompiledBlocks] = {}
        if compile:
            require_compiler(self.device, "compile")
            theta = model.config.rope_theta
            for stage in cast(Iterable[Stage], model.stages):
                for blocks in (stage.contract, stage.expand):
                    self._compiled[blocks] = CompiledBlocks(blocks, stage.config, theta)
            self._compiled[model.trunk.blocks] = CompiledBlocks(model.trunk.blocks, model.trunk.config, theta)

    @torch.inference_mode()
    def start(self, batch: int) -> State:
        """The state of `batch` sequences that have read nothing, not even BOS."""
        like = self.model.head.weight
        stages = []
        for s, config in enumerate(self.model.config.stages):
            trunk = s == self.model.config.depth
            blocks = config.layers * (1 if trunk else 2)
            caches = [
                KeyValueCache(batch, config.kv_heads, config.head_dim, config.window, like) for _ in range(blocks)
            ]
            state = StageState(caches, [0] * batch)
            if not trunk:
                state.coarse_BE = like.new_zeros((batch, self.model.config.stages[s + 1].dim))
                state.offset = [0] * batch
            stages.append(state)
        return State(stages, [self.splitter.stream() for _ in range(batch)])

    def levels(self, state: State, b: int, ids: Sequence[int] | npt.NDArray[np.integer]) -> list[int]:
        """Levels of the next ids of sequence b; moves its splitter on. BOS opens a text and has the highest level."""
        highest, levels = self.splitter.depth, []
        for i in ids:
            if i < BOS:
                levels.append(state.streams[b].push(int(i)))
            else:
                state.streams[b] = self.splitter.stream()
                levels.append(highest)
        if levels and state.stages[0].seen[b] == 0:
            levels[0] = highest
        return levels

    @torch.inference_mode()
    def extend(
        self,
        state: State,
        ids: Sequence[Sequence[int] | npt.NDArray[np.integer]],
        levels: Sequence[Sequence[int] | npt.NDArray[np.integer]] | None = None,
        hidden: list[Tensor] | None = None,
    ) -> list[Tensor]:
        """Read new ids of every sequence (B lists, some may be empty); returns their next-byte logits, B times [n, V].

        `levels`: of these ids, by the splitter if not given; the first id of a sequence must have the highest level.
        `hidden`: a list to which the output vectors of the stages are appended, the trunk's first, [T, D] each.
        """
        if levels is None:
            levels = [self.levels(state, b, x) for b, x in enumerate(ids)]
        members = [b for b, x in enumerate(ids) if len(x)]
        if not members:
            return [self.model.head.weight.new_empty((0, self.model.config.vocab_size)) for _ in ids]
        new = [len(ids[b]) for b in members]
        ids_T = torch.from_numpy(np.concatenate([np.asarray(ids[b], dtype=np.int64) for b in members])).to(self.device)
        levels_T = np.concatenate([np.asarray(levels[b], dtype=np.uint8) for b in members])
        x_TD = self._run(0, self.model.embedding(ids_T), levels_T, members, new, state, hidden)
        logits = iter(self.model.logits_of(x_TD).split(new))
        nothing = self.model.head.weight.new_empty((0, self.model.config.vocab_size))
        return [next(logits) if len(x) else nothing for x in ids]

    @torch.inference_mode()
    def step(self, state: State, ids: Sequence[int]) -> Tensor:
        """Read one id of every sequence; [B, V]."""
        levels = np.array([self.levels(state, b, [i])[0] for b, i in enumerate(ids)], dtype=np.uint8)
        x_BD = self.model.embedding(torch.tensor(ids, device=self.device))
        return self.model.logits_of(self._run(0, x_BD, levels, list(range(len(ids))), [1] * len(ids), state, None))

    def _run(
        self,
        s: int,
        x_TD: Tensor,
        levels_T: npt.NDArray[np.uint8],
        members: list[int],
        new: list[int],
        state: State,
        hidden: list[Tensor] | None,
    ) -> Tensor:
        """Stage s and everything below it; the counterpart of `AUNet._run`."""
        memory = state.stages[s]
        seen = [memory.seen[b] for b in members]
        for b, n in zip(members, new, strict=True):
            memory.seen[b] += n
        config = self.model.config.stages[s]
        reading = Reading(members, new, seen, len(members) == len(memory.seen), config.window, self.device)
        compiled = reading.one and bool(self._compiled)
        rotate_by = None if compiled else self._rotation(s, reading)

        def through(blocks: nn.ModuleList, caches: Sequence[KeyValueCache], x_TD: Tensor) -> Tensor:
            if rotate_by is None:
                return self._compiled[blocks](x_TD, reading, caches)
            for block, cache in zip(blocks, caches, strict=True):
                attend = lambda q, k, v, cache=cache: cache.attend(q, k, v, reading)  # noqa: E731
                x_TD = cast(Block, block).extend(x_TD, rotate_by, attend)
            return x_TD

        if s == self.model.config.depth:
            x_TD = through(self.model.trunk.blocks, memory.caches, x_TD)
        else:
            stage = cast(Stage, self.model.stages[s])
            down, up = memory.caches[: len(stage.contract)], memory.caches[len(stage.contract) :]
            x_TD = through(stage.contract, down, x_TD)
            deeper = self._deeper_by_one if reading.one else self._deeper
            x_TD = x_TD + deeper(s, x_TD, levels_T, reading, state, hidden)
            x_TD = through(stage.expand, up, x_TD)
        if hidden is not None:
            hidden.append(x_TD)
        return x_TD

    def _rotation(self, s: int, reading: Reading) -> Rotation:
        """Rotary angles of the new positions; those of single positions are looked up."""
        if not reading.one or max(reading.seen) >= TABLE:
            spans = [np.arange(a, b) for a, b in zip(reading.seen, reading.ends, strict=True)]
            return self.model.rotation(s, torch.from_numpy(np.concatenate(spans)).to(self.device))
        if self._tables[s] is None:
            self._tables[s] = self.model.rotation(s, torch.arange(TABLE, device=self.device))
        cos, sin = cast(Rotation, self._tables[s])
        if len(reading.seen) == 1:
            (position,) = reading.seen
            return cos[position : position + 1], sin[position : position + 1]
        position_B = torch.tensor(reading.seen, device=self.device)
        return cos[position_B], sin[position_B]

    def _deeper_by_one(
        self,
        s: int,
        x_BD: Tensor,
        levels_B: npt.NDArray[np.uint8],
        reading: Reading,
        state: State,
        hidden: list[Tensor] | None,
    ) -> Tensor:
        """`_deeper` for one new position of each member, the case whose time is the number of small operations."""
        memory, stage, members = state.stages[s], cast(Stage, self.model.stages[s]), reading.members
        assert memory.coarse_BE is not None
        kept = np.flatnonzero(levels_B > s).tolist()
        if kept:
            everyone = len(kept) == len(members)
            pooled = stage.pool.project(stage.pool.norm(x_BD if everyone else x_BD[kept]))
            deeper = [members[i] for i in kept]
            memory.coarse_BE[deeper] = self._run(s + 1, pooled, levels_B[kept], deeper, [1] * len(kept), state, hidden)
            for b in deeper:
                memory.offset[b] = 0
        coarse_BE = memory.coarse_BE if reading.everyone else memory.coarse_BE[members]
        offsets = [memory.offset[b] for b in members]
        for b in members:
            memory.offset[b] += 1
        return self._steppers[s](coarse_BE, offsets)

    def _deeper(
        self,
        s: int,
        x_TD: Tensor,
        levels_T: npt.NDArray[np.uint8],
        reading: Reading,
        state: State,
        hidden: list[Tensor] | None,
    ) -> Tensor:
        """Pool what reached the next stage, run it, and upsample: [T, D]."""
        memory, stage, members = state.stages[s], cast(Stage, self.model.stages[s]), reading.members
        assert memory.coarse_BE is not None
        ends = np.cumsum(reading.new)
        kept_U = np.flatnonzero(levels_T > s)
        pooled = np.diff(np.searchsorted(kept_U, [0, *ends])).tolist()
        segment_T, offset_T = _segments(kept_U, reading.new, [memory.offset[b] for b in members])
        rows = torch.tensor(members, device=self.device)
        before_BE = memory.coarse_BE if reading.everyone else memory.coarse_BE[rows]
        coarse_UE = before_BE
        if len(kept_U):
            kept = torch.from_numpy(kept_U).to(self.device)
            deeper = [(b, n) for b, n in zip(members, pooled, strict=True) if n]
            units_UE = self._run(
                s + 1,
                stage.pool.project(stage.pool.norm(x_TD.index_select(0, kept))),
                levels_T[kept_U],
                [b for b, _ in deeper],
                [n for _, n in deeper],
                state,
                hidden,
            )
            coarse_UE = torch.cat([before_BE, units_UE])
            last = len(members) + np.cumsum([n for _, n in deeper]) - 1
            memory.coarse_BE[torch.tensor([b for b, _ in deeper], device=self.device)] = coarse_UE[
                torch.from_numpy(last).to(self.device)
            ]
        for b, end in zip(members, ends, strict=True):
            memory.offset[b] = int(offset_T[end - 1]) + 1
        return stage.upsample(coarse_UE, self._pooling(kept_U, segment_T, offset_T))

    def _pooling(
        self, kept_U: npt.NDArray[np.intp], segment_T: npt.NDArray[np.int64], offset_T: npt.NDArray[np.int64]
    ) -> Pooling:
        """The layout of new positions whose coarse vectors are the members' last ones and then the new ones."""
        modulo_T = offset_T % self.model.config.offsets
        order_T = np.argsort(modulo_T, kind="stable")
        slices_P = np.cumsum(np.bincount(modulo_T, minlength=self.model.config.offsets))
        arrays = (kept_U.astype(np.int64), segment_T, modulo_T, order_T, slices_P)
        return Pooling(*(torch.from_numpy(array).to(self.device) for array in arrays))


def _segments(
    kept_U: npt.NDArray[np.intp], new: Sequence[int], offsets: Sequence[int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Coarse row and true offset of every new position.

    Rows 0 .. B-1 are the members' last coarse vectors, which go on until a member's first pooled position; rows from B
    on are the new units in order.
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

"""`Kernels` by the library that `build` makes: fp32 vectors; weights in fp32, bf16, or 8 bits with a scale per output.

Shapes: T new positions of all sequences end to end, D width of a stage, V vocabulary, K head width.
"""

import ctypes
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aunet.config import AUNetConfig, StageConfig
from aunet.infer.native.build import library
from aunet.infer.pages import SLOTS, Page
from aunet.infer.state import Context
from aunet.infer.trail import rows_of
from aunet.infer.weights import stored
from aunet.model.aunet import AUNet, Stage
from aunet.model.layers import Block, rotation
from aunet.model.lookup import UNKNOWN
from aunet.model.upsampling import MultiLinear, Repeat


class _Linear(ctypes.Structure):
    _fields_ = (
        ("weight", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("outputs", ctypes.c_int64),
        ("inputs", ctypes.c_int64),
        ("kind", ctypes.c_int64),
    )


class _Block(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("attention_norm", "ffn_norm", "q_norm", "k_norm")),
        *((name, _Linear) for name in ("qkv", "out", "gate", "up", "down")),
    )


class _Stack(ctypes.Structure):
    _fields_ = (
        ("blocks", ctypes.c_void_p),
        *(
            (name, ctypes.c_int64)
            for name in ("layers", "first_layer", "dim", "heads", "kv_heads", "head_dim", "ffn_dim", "window", "slots")
        ),
        ("cosines", ctypes.c_void_p),
        ("sines", ctypes.c_void_p),
        ("eps", ctypes.c_float),
    )


class _Lookup(ctypes.Structure):
    _fields_ = (("rows", ctypes.c_void_p), ("tables", ctypes.c_int64), ("unknown", ctypes.c_int64))


class _Stage(ctypes.Structure):
    _fields_ = (
        ("down", _Stack),
        ("up", _Stack),
        ("pool_norm", ctypes.c_void_p),
        ("upsample_norm", ctypes.c_void_p),
        ("pool", _Linear),
        ("upsample", _Linear),
        ("offsets", ctypes.c_int64),
        ("kind", ctypes.c_int64),
        ("offset_vectors", ctypes.c_void_p),
    )


class _Model(ctypes.Structure):
    _fields_ = (
        ("stages", ctypes.c_void_p),
        ("depth", ctypes.c_int64),
        ("trunk", _Stack),
        ("lookups", ctypes.c_void_p),
        ("embedding", ctypes.c_void_p),
        ("norm", ctypes.c_void_p),
        ("head", _Linear),
    )


KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}
PANEL = 16
"""Outputs that are stored together."""


def knows(config: AUNetConfig) -> bool:
    """Whether the library has what such a model computes: it has no recurrence."""
    return all(stage.mixer == "attention" for stage in config.stages)


@dataclass(frozen=True)
class Panels:
    """One matrix, or several of one shape, as the library reads them: [matrices, panels, inputs, PANEL]."""

    values: Tensor
    scale: Tensor | None
    """Of each output, where the values have 8 bits: [matrices, panels * PANEL, 1]."""
    outputs: int

    @classmethod
    def of(cls, weight: Tensor, rows: Tensor | None = None) -> "Panels":
        """A weight [outputs, inputs], or [matrices, outputs, inputs]; torchao has int8 ones with a scale per output.

        `rows`, [matrices, outputs]: which rows of a weight [outputs, inputs] to take, all of them if not given.
        """
        values, *scales = stored(weight)
        values = values if rows is None else values[rows]
        outputs = values.shape[-2]
        panels = _padded(values.reshape(-1, *values.shape[-2:])).unflatten(1, (-1, PANEL)).transpose(2, 3).contiguous()
        scale = None
        if scales:
            taken = scales[0].float() if rows is None else scales[0].float()[rows]
            scale = _padded(taken.reshape(-1, outputs, 1)).contiguous()
        return cls(panels, scale, outputs)

    def linear(self) -> _Linear:
        """For the library; this object must live on meanwhile."""
        scale = None if self.scale is None else self.scale.data_ptr()
        return _Linear(self.values.data_ptr(), scale, self.outputs, self.values.shape[2], KINDS[self.values.dtype])


def _padded(matrices: Tensor) -> Tensor:
    """With so many outputs that they fill their panels: [matrices, outputs, inputs]."""
    return F.pad(matrices, (0, 0, 0, -matrices.shape[1] % PANEL))


class NativeKernels:
    """Operations of a model whose weights are in the memory of this machine and do not change meanwhile.

    Every position is computed by itself and always in the same way: results do not depend on the batch.
    """

    rows = 1024
    invariant = True
    dtype = torch.float32

    def __init__(self, model: AUNet) -> None:
        self.model = model
        self._library = library()
        self._alive: list[object] = []
        """What the library reads, which must live on."""
        config = model.config
        self._positions, self._growing = [0] * len(config.stages), threading.Lock()
        stages = (_Stage * config.depth)()
        for slot, stage in zip(stages, cast(Iterable[Stage], model.stages), strict=True):
            slot.down = self._stack(stage.contract, stage.config, 0)
            slot.up = self._stack(stage.expand, stage.config, len(stage.contract))
            slot.pool_norm, slot.pool = self._norm(stage.pool.norm), self._map(stage.pool.project.weight)
            self._upsample(slot, stage.upsample)
        self._stages = stages
        lookups = (_Lookup * len(config.stages))()
        for s, own in enumerate(lookups):
            if (lookup := model.lookup(s)) is not None:
                own.rows, own.tables = self._floats(lookup.weight), len(lookup.config.ngrams)
                own.unknown = UNKNOWN if lookup.config.known else -1
        self._alive.append(lookups)
        self._model = _Model(
            ctypes.addressof(stages),
            config.depth,
            self._stack(model.trunk.blocks, model.trunk.config, 0),
            ctypes.addressof(lookups),
            self._floats(model.embedding.weight),
            self._norm(model.norm),
            self._map(model.head_weight),
        )

    def read(
        self, contexts: Sequence[Context], ids: Sequence[int], levels: Sequence[int], new: Sequence[int]
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits [T, V] and the outputs of the stages; one call of the library, which reads rows without a look."""
        size = self.model.config.vocab_size
        if not all(0 <= i < size for i in ids):
            raise IndexError(f"an id is not from 0 to {size - 1}: {next(i for i in ids if not 0 <= i < size)}")
        packed, reached, all_levels = [len(ids), *ids], [list(zip(contexts, new, strict=True))], levels
        offsets_at = [self._pack(packed, 0, reached[0], levels)]
        for s in range(1, len(self.model.config.stages)):
            left = iter(levels)
            counts = [(context, sum(next(left) >= s for _ in range(n))) for context, n in reached[-1]]
            levels = [level for level in levels if level >= s]
            if not levels:
                packed += [0] * (len(self.model.config.stages) - s)
                break
            reached.append([(context, n) for context, n in counts if n])
            offsets_at.append(self._pack(packed, s, reached[-1], levels))
        looked_up = rows_of([context.trail for context in contexts], ids, all_levels, new)
        array = np.array(packed, dtype=np.int64)
        outputs = [
            torch.empty((sum(n for _, n in sequences), config.dim))
            for sequences, config in zip(reached, self.model.config.stages, strict=False)
        ]
        logits_TV = torch.empty((len(ids), size))
        self._library.aunet_read(
            ctypes.byref(self._model),
            ctypes.c_void_p(array.ctypes.data),
            (ctypes.c_void_p * len(outputs))(*(output.data_ptr() for output in outputs)),
            (ctypes.c_void_p * len(looked_up))(*(None if rows is None else rows.ctypes.data for rows in looked_up)),
            ctypes.c_void_p(logits_TV.data_ptr()),
            torch.get_num_threads(),
        )
        for s, (sequences, at) in enumerate(zip(reached, offsets_at, strict=True)):
            for (context, n), last in zip(sequences, _last_rows(sequences), strict=True):
                memory = context.memories[s]
                memory.seen, memory.offset = memory.seen + n, int(array[at + last])
                if s:
                    context.memories[s - 1].coarse_E = outputs[s][last].clone()
        return logits_TV, outputs

    def _pack(
        self, packed: list[int], stage: int, sequences: Sequence[tuple[Context, int]], levels: Sequence[int]
    ) -> int:
        """Append the rows of a stage as the library reads them; returns where it leaves their offsets."""
        positions: list[int] = []
        tables: list[int] = []
        first_pages: list[int] = []
        continues: list[int] = []
        coarse: list[int] = []
        offsets: list[int] = []
        make = partial(self._page, stage)
        for context, n in sequences:
            memory = context.memories[stage]
            memory.reserve(n, make)
            self._need_rotations(stage, memory.seen + n)
            positions += range(memory.seen, memory.seen + n)
            tables += [memory.where] * n
            first_pages += [memory.first] * n
            continues += [0, *[1] * (n - 1)]
            coarse += [0 if memory.coarse_E is None else memory.coarse_E.data_ptr()] * n
            offsets += [memory.offset] * n
        packed += [len(levels), *levels, *positions, *tables, *first_pages, *continues, *coarse, *offsets]
        return len(packed) - len(levels)

    def _page(self, stage: int) -> Page:
        """Not filled: what was never written is never read."""
        config = self.model.config.stages[stage]
        blocks = sum(self.model.config.layers(stage))
        return Page(torch.empty((blocks, 2, config.kv_heads, SLOTS, config.head_dim)))

    def _stack(self, blocks: nn.ModuleList, config: StageConfig, first_layer: int) -> _Stack:
        made = (_Block * len(blocks))()
        self._alive.append(made)
        by_head, units = _rows_by_head(config), torch.arange(config.ffn_dim)[None]
        for slot, block in zip(made, cast(Sequence[Block], list(blocks)), strict=True):
            slot.attention_norm, slot.ffn_norm = self._norm(block.attention_norm), self._norm(block.ffn_norm)
            if block.attention.q_norm is not None and block.attention.k_norm is not None:
                slot.q_norm, slot.k_norm = self._norm(block.attention.q_norm), self._norm(block.attention.k_norm)
            slot.qkv = self._map(block.attention.qkv.weight, by_head)
            slot.out = self._map(block.attention.out.weight)
            slot.gate = self._map(block.ffn.gate_up.weight, units)
            slot.up = self._map(block.ffn.gate_up.weight, config.ffn_dim + units)
            slot.down = self._map(block.ffn.down.weight)
        return _Stack(
            ctypes.addressof(made),
            len(blocks),
            first_layer,
            config.dim,
            config.heads,
            config.kv_heads,
            config.head_dim,
            config.ffn_dim,
            config.window or 0,
            SLOTS,
            None,
            None,
            self.model.config.norm_eps,
        )

    @torch.no_grad()
    def _upsample(self, slot: _Stage, upsample: nn.Module) -> None:
        """The maps W + W_p of every offset, or the one map and what it makes of the offsets."""
        slot.upsample_norm, slot.offsets = self._norm(cast(nn.RMSNorm, upsample.norm)), self.model.config.offsets
        if isinstance(upsample, MultiLinear):
            slot.upsample, slot.kind = self._map(upsample.maps()), 0
            return
        slot.upsample, slot.kind = self._map(cast(nn.Linear, upsample.shared).weight), 2
        if isinstance(upsample, Repeat):
            slot.kind = 1
            slot.offset_vectors = self._floats(upsample.shared(upsample.offset_embedding.weight))

    def _need_rotations(self, stage: int, positions: int) -> None:
        """Cosines and sines of so many positions at least, [positions, K / 2]."""
        if positions <= self._positions[stage]:
            return
        with self._growing:  # other threads may read meanwhile, by the old tables, which live on
            if positions <= self._positions[stage]:
                return
            config = self.model.config
            angles = torch.arange(2 * positions)
            cos, sin = map(self._floats, rotation(angles, config.stages[stage].head_dim, config.rope_theta))
            trunk = stage == config.depth
            for stack in [self._model.trunk] if trunk else [self._stages[stage].down, self._stages[stage].up]:
                stack.cosines, stack.sines = cos, sin
            self._positions[stage] = 2 * positions

    def _norm(self, norm: nn.RMSNorm) -> int:
        return self._floats(norm.weight)

    def _floats(self, tensor: Tensor) -> int:
        """Where these numbers are as floats, end to end."""
        floats = tensor.detach().float().contiguous()
        self._alive.append(floats)
        return floats.data_ptr()

    def _map(self, weight: Tensor, rows: Tensor | None = None) -> _Linear:
        panels = Panels.of(weight, rows)
        self._alive.append(panels)
        return panels.linear()


def _last_rows(sequences: Sequence[tuple[Context, int]]) -> list[int]:
    """The last row of each sequence."""
    return [end - 1 for end in accumulate(n for _, n in sequences)]


def _rows_by_head(config: StageConfig) -> Tensor:
    """Rows of the fused map of queries, keys and values, one key/value head after the other with its queries."""
    heads = torch.arange((config.heads + 2 * config.kv_heads) * config.head_dim).unflatten(0, (-1, config.head_dim))
    queries, keys, values = heads.split((config.heads, config.kv_heads, config.kv_heads))
    return torch.cat([queries.unflatten(0, (config.kv_heads, -1)), keys[:, None], values[:, None]], dim=1).flatten(1)

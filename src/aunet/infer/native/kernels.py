"""`Kernels` by the library of `kernels.cpp`: fp32 vectors; weights in fp32, bf16, or 8 bits with a scale per output.

Shapes: T new positions of all sequences end to end, D width, C coarse vectors of width E, P position maps.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aunet.config import StageConfig
from aunet.infer.kernels import Indices, Reading
from aunet.infer.native.build import library
from aunet.infer.pages import SLOTS
from aunet.model.aunet import AUNet, Stage
from aunet.model.layers import Block, rotation
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
        ("attention_norm", ctypes.c_void_p),
        ("ffn_norm", ctypes.c_void_p),
        *((name, _Linear) for name in ("qkv", "out", "gate", "up", "down")),
    )


class _Stack(ctypes.Structure):
    _fields_ = (
        ("blocks", ctypes.c_void_p),
        *(
            (name, ctypes.c_int64)
            for name in ("layers", "first_layer", "dim", "heads", "kv_heads", "head_dim", "ffn_dim", "window", "slots")
        ),
        ("eps", ctypes.c_float),
    )


KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}
PANEL = 16
"""Outputs that are stored together."""


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
        if hasattr(weight, "qdata"):
            values, scale = cast(Any, weight).qdata, cast(Any, weight).scale.float()
        else:
            values, scale = weight.detach(), None
        values = values if rows is None else values[rows]
        outputs = values.shape[-2]
        panels = _padded(values.reshape(-1, *values.shape[-2:])).unflatten(1, (-1, PANEL)).transpose(2, 3).contiguous()
        if scale is not None:
            scale = scale if rows is None else scale[rows]
            scale = _padded(scale.reshape(-1, outputs, 1)).contiguous()
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

    rows = 256
    invariant = True
    dtype = torch.float32

    def __init__(self, model: AUNet) -> None:
        self.model = model
        self._library = library()
        self._alive: list[Tensor | Panels] = []
        depth, stages = model.config.depth, cast(Sequence[Stage], model.stages)
        self._stacks = {(depth, False): self._stack(model.trunk.blocks, model.config.stages[depth], 0)}
        for s, stage in enumerate(stages):
            self._stacks[s, False] = self._stack(stage.contract, stage.config, 0)
            self._stacks[s, True] = self._stack(stage.expand, stage.config, len(stage.contract))
        self._embedding = model.embedding.weight.detach().float()
        self._pools = [(self._norm(stage.pool.norm), self._map(stage.pool.project.weight)) for stage in stages]
        self._upsamplings = [(self._norm(stage.upsample.norm), self._upsampling(stage.upsample)) for stage in stages]
        self._head = (self._norm(model.norm), self._map(model.head.weight))
        self._tables = [self._rotations(s, 1024) for s in range(depth + 1)]

    def embed(self, ids_T: Indices) -> Tensor:
        """Ids to [T, D]."""
        return F.embedding(torch.from_numpy(ids_T), self._embedding)

    def blocks(self, stage: int, up: bool, x_TD: Tensor, reading: Reading) -> Tensor:
        """The blocks of one way through a stage, in place; keeps keys and values."""
        positions_T = reading.position_T
        end = int(positions_T[-1]) + 1 if len(reading.memories) == 1 else int(positions_T.max()) + 1
        if end > self._tables[stage][0].shape[0]:
            self._tables[stage] = self._rotations(stage, 2 * end)
        cos, sin = self._tables[stage]
        self._library.aunet_blocks(
            ctypes.byref(self._stacks[stage, up]),
            ctypes.c_int64(len(positions_T)),
            ctypes.c_void_p(x_TD.data_ptr()),
            _address(positions_T),
            _address(reading.tables_T),
            _address(reading.first_T),
            ctypes.c_void_p(cos.data_ptr()),
            ctypes.c_void_p(sin.data_ptr()),
            torch.get_num_threads(),
        )
        return x_TD

    def pool(self, stage: int, x_UD: Tensor) -> Tensor:
        """Vectors at pool positions to [U, E]."""
        return self._linear(*self._pools[stage], x_UD)

    def upsample(self, stage: int, x_TD: Tensor, coarse_CE: Tensor, source_T: Indices, offset_T: Indices) -> Tensor:
        """Add to each position its part of its coarse vector, in place."""
        upsample = cast(Stage, self.model.stages[stage]).upsample
        norm, maps = self._upsamplings[stage]
        if isinstance(upsample, MultiLinear):
            return self._linear(norm, maps, coarse_CE, source_T, offset_T % upsample.offsets, upsample.offsets, x_TD)
        added_TD = self._linear(norm, maps, coarse_CE, source_T)
        if isinstance(upsample, Repeat):
            parts_PD = self._linear(None, maps, upsample.offset_embedding.weight.float())
            return x_TD.add_(added_TD).add_(parts_PD[torch.from_numpy(offset_T % upsample.offsets)])
        return x_TD.add_(added_TD.mul_(torch.from_numpy(offset_T == 0)[:, None]))

    def logits(self, x_TD: Tensor) -> Tensor:
        """[T, V]."""
        return self._linear(*self._head, x_TD)

    def _linear(
        self,
        norm: Tensor | None,
        maps: Panels,
        x: Tensor,
        source_T: Indices | None = None,
        choice_T: Indices | None = None,
        choices: int = 1,
        add_to: Tensor | None = None,
    ) -> Tensor:
        """map[choice] norm(x[source]) of every row; added to a tensor or as a new one."""
        x = x.contiguous()
        rows = x.shape[0] if source_T is None else len(source_T)
        linear = maps.linear()
        out = x.new_empty((rows, maps.outputs)) if add_to is None else add_to
        self._library.aunet_map(
            ctypes.byref(linear),
            None if norm is None else ctypes.c_void_p(norm.data_ptr()),
            ctypes.c_float(self.model.config.norm_eps),
            ctypes.c_int64(rows),
            ctypes.c_void_p(x.data_ptr()),
            None if source_T is None else _address(source_T),
            None if choice_T is None else _address(choice_T),
            ctypes.c_int64(choices),
            ctypes.c_void_p(out.data_ptr()),
            add_to is not None,
            torch.get_num_threads(),
        )
        return out

    def _stack(self, blocks: nn.ModuleList, config: StageConfig, first_layer: int) -> _Stack:
        made = (_Block * len(blocks))()
        by_head, units = _rows_by_head(config), torch.arange(config.ffn_dim)[None]
        for slot, block in zip(made, cast(Sequence[Block], list(blocks)), strict=True):
            slot.attention_norm = self._norm(block.attention_norm).data_ptr()
            slot.ffn_norm = self._norm(block.ffn_norm).data_ptr()
            slot.qkv = self._map(block.attention.qkv.weight, by_head).linear()
            slot.out = self._map(block.attention.out.weight).linear()
            slot.gate = self._map(block.ffn.gate_up.weight, units).linear()
            slot.up = self._map(block.ffn.gate_up.weight, config.ffn_dim + units).linear()
            slot.down = self._map(block.ffn.down.weight).linear()
        stack = _Stack(
            ctypes.cast(made, ctypes.c_void_p),
            len(blocks),
            first_layer,
            config.dim,
            config.heads,
            config.kv_heads,
            config.head_dim,
            config.ffn_dim,
            config.window or 0,
            SLOTS,
            self.model.config.norm_eps,
        )
        stack.owner = made
        return stack

    def _norm(self, norm: nn.RMSNorm) -> Tensor:
        gains = norm.weight.detach().float().contiguous()
        self._alive.append(gains)
        return gains

    def _map(self, weight: Tensor, rows: Tensor | None = None) -> Panels:
        made = Panels.of(weight, rows)
        self._alive.append(made)
        return made

    @torch.no_grad()
    def _upsampling(self, upsample: nn.Module) -> Panels:
        """The maps W + W_p of every offset, or the one map."""
        if isinstance(upsample, MultiLinear):
            return self._map(upsample.maps())
        return self._map(cast(nn.Linear, upsample.shared).weight)

    def _rotations(self, stage: int, positions: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the first positions, [positions, K / 2]."""
        config = self.model.config
        cos, sin = rotation(torch.arange(positions), config.stages[stage].head_dim, config.rope_theta)
        return cos.flatten(1).contiguous(), sin.flatten(1).contiguous()


def _rows_by_head(config: StageConfig) -> Tensor:
    """Rows of the fused map of queries, keys and values, one key/value head after the other with its queries."""
    heads = torch.arange((config.heads + 2 * config.kv_heads) * config.head_dim).unflatten(0, (-1, config.head_dim))
    queries, keys, values = heads.split((config.heads, config.kv_heads, config.kv_heads))
    return torch.cat([queries.unflatten(0, (config.kv_heads, -1)), keys[:, None], values[:, None]], dim=1).flatten(1)


def _address(array: Indices) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.__array_interface__["data"][0])

"""One new position through a stack of blocks as one compiled graph: a byte step is operator overhead, not arithmetic.

Shapes: M members with a new position, B sequences in the caches, S slots, D width, H query heads, G key/value heads,
R query heads that share one of these, K head width.

The graph is that of `KeyValueCache.attend` for single positions with everything that changes from step to step as a
tensor, so that no step compiles anew: where a position is kept and which slots it sees follow from the position.
"""

import math
import types
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aunet.config import StageConfig
from aunet.infer.cache import KeyValueCache, Reading
from aunet.model.layers import Block, rotate, rotation

ROWS = 256
"""Rows of a weight that are multiplied together at most."""

Step = Callable[[Tensor, Tensor, Tensor, bool, list[Tensor], list[Tensor]], Tensor]


class CompiledBlocks:
    """The blocks of one way through a stage, for one new position of each member.

    Compiled when first called, for one sequence and again for several; torch keeps the result on disk.
    Needs a C++ compiler on a CPU. The modules must not be replaced meanwhile.
    """

    def __init__(self, blocks: nn.ModuleList, config: StageConfig, theta: float) -> None:
        step = _step(cast(Sequence[Block], list(blocks)), config, theta)
        # The weights are the graph's inputs; that the modules are still the same ones need not be checked at each
        # byte.
        options: dict[str, str | int | bool | Callable[..., Any]] = {
            "guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe
        }
        self._step: Step = torch.compile(step, options=options) if len(blocks) else step

    def __call__(self, x_MD: Tensor, reading: Reading, caches: Sequence[KeyValueCache]) -> Tensor:
        """[M, D] to [M, D]; keeps the keys and values of the new positions."""
        for cache in caches:
            cache.reserve(max(reading.ends))
        keys, values = [cache.keys for cache in caches], [cache.values for cache in caches]
        for kept_BGSK in (*keys, *values):
            if not hasattr(kept_BGSK, "_dynamo_weak_dynamic_indices"):  # marking takes longer than looking
                torch._dynamo.maybe_mark_dynamic(kept_BGSK, (0, 2))
        members_M, position_M = torch.tensor([reading.members, reading.seen], device=x_MD.device)
        if len(reading.members) > 1:
            for step_M in (x_MD, members_M, position_M):
                torch._dynamo.maybe_mark_dynamic(step_M, 0)
        return self._step(x_MD, members_M, position_M, reading.everyone, keys, values)


def product(x_MD: Tensor, linear: nn.Linear) -> Tensor:
    """The linear map of few vectors, [M, D] to [M, N], by blocks of the weight's rows.

    The time is that of reading the weights, and a product of one large matrix with a few vectors does not use both the
    cores and the memory well.
    """
    rows = math.gcd(linear.out_features, ROWS)
    blocks = linear.weight.unflatten(0, (-1, rows))
    return torch.bmm(blocks, x_MD.T.expand(blocks.shape[0], -1, -1)).flatten(0, 1).T


def _step(blocks: Sequence[Block], config: StageConfig, theta: float) -> Step:
    """The eager function, with a code object of its own: torch keeps its graphs by code object, and they differ."""

    def step(
        x_MD: Tensor, members_M: Tensor, position_M: Tensor, everyone: bool, keys: list[Tensor], values: list[Tensor]
    ) -> Tensor:
        rotate_by = rotation(position_M, config.head_dim, theta)
        slot_M = position_M % config.window if config.window else position_M
        for block, keys_BGSK, values_BGSK in zip(blocks, keys, values, strict=True):
            heads = product(block.attention_norm(x_MD), block.attention.qkv).unflatten(1, (-1, config.head_dim))
            turned = rotate(heads[:, : config.heads + config.kv_heads], rotate_by)
            q_MHK, k_MGK = turned.split((config.heads, config.kv_heads), dim=1)
            v_MGK = heads[:, config.heads + config.kv_heads :]
            keys_BGSK[members_M, :, slot_M], values_BGSK[members_M, :, slot_M] = k_MGK, v_MGK
            # A ring fills up in the order of its slots, so all up to the newest position are in use.
            sees_MS = torch.arange(keys_BGSK.shape[2], device=x_MD.device) <= position_M[:, None]
            k, v = (keys_BGSK, values_BGSK) if everyone else (keys_BGSK[members_M], values_BGSK[members_M])
            q_MGRK = q_MHK.unflatten(1, (config.kv_heads, -1))
            y_MGRK = F.scaled_dot_product_attention(q_MGRK, k, v, sees_MS[:, None, None, :])
            x_MD = x_MD + product(y_MGRK.flatten(1), block.attention.out)
            gate_MF, up_MF = product(block.ffn_norm(x_MD), block.ffn.gate_up).chunk(2, dim=1)
            x_MD = x_MD + product(F.silu(gate_MF) * up_MF, block.ffn.down)
        return x_MD

    own = types.FunctionType(step.__code__.replace(), step.__globals__, "step", None, step.__closure__)
    return cast(Step, own)

"""How much memory a training step takes, without taking it.

The activations are counted by running the model's own forward pass on the `meta` device and adding up what autograd
keeps for the backward pass, so that nothing is derived a second time. Eager fp32; what a kernel needs for a moment and
the allocator's own overhead come on top.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from aunet.config import AUNetConfig
from aunet.model.aunet import AUNet

FLOAT = 4
"""Bytes of an fp32 number: weights, gradients and both AdamW moments are kept in fp32, under autocast too."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one replica that trains with AdamW."""

    weights: int
    """With the keys of known n-grams."""
    gradients: int
    optimizer: int
    activations: tuple[int, ...]
    """Kept from the forward to the backward pass of a batch of `batch_bytes`, by the stage whose modules keep it."""
    batch_bytes: int


def training_memory(config: AUNetConfig, batch_bytes: int = 1_000_000) -> Memory:
    """Memory of a step on a batch of so many bytes, at the configuration's bytes per unit."""
    model = AUNet.on_meta(config)
    parameters = sum(p.numel() for p in model.parameters())
    counts = [max(1, round(batch_bytes / stage.contraction)) for stage in config.stages]
    with torch.device("meta"):
        ids_T = torch.empty(counts[0], dtype=torch.int64)
        levels_T = torch.empty(counts[0], dtype=torch.uint8)
        starts_N = torch.empty(2, dtype=torch.int64)
    kept = kept_by_stage(model, lambda: model.loss(ids_T, ids_T, levels_T, starts_N, counts))
    weights = FLOAT * parameters + sum(buffer.nbytes for buffer in model.buffers())
    return Memory(weights, FLOAT * parameters, 2 * FLOAT * parameters, kept, batch_bytes)


def kept_by_stage(model: AUNet, forward: Callable[[], Tensor]) -> tuple[int, ...]:
    """Bytes that a forward pass keeps for its backward pass, by stage; parameters are not counted.

    A storage is counted once, whatever the number of its views, under the stage that kept it first.
    """
    seen: dict[int, Tensor] = {_storage(p): p for p in model.parameters()}
    # Each with an owner, since the address of a freed storage would come again.
    kept, current = [0] * len(model.config.stages), [0]

    def pack(tensor: Tensor) -> Tensor:
        key = _storage(tensor)
        if key not in seen:
            seen[key] = tensor.detach()
            kept[current[0]] += tensor.untyped_storage().nbytes()
        return tensor.detach()

    with _entering_stages(model, current), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return tuple(kept)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


@contextmanager
def _entering_stages(model: AUNet, current: list[int]) -> Iterator[None]:
    """Keep `current` at the stage (0-based) whose module runs; between stages it is the byte stage."""
    entries: list[tuple[nn.Module, int]] = [
        (child, s) for s, stage in enumerate(model.stages) for child in stage.modules()
    ]
    entries += [(child, model.config.depth) for child in model.trunk.modules()]
    entries.append((model.norm, 0))  # and the head behind it

    def enter(stage: int) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            current[0] = stage

        return hook

    handles = [module.register_forward_pre_hook(enter(s)) for module, s in entries]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

"""The network prepared for reading, which takes as long as reading hundreds of bytes and is kept while it is valid.

Weights may change at any time and in any way: by an optimizer, by averages of weights that are swapped in, by adapters.
So what is kept is valid while torch's hooks, the kinds of the modules (another may stand around the same weights)
and the bits of all weights are the same, which is checked at the speed of memory whenever a session is asked for.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from aunet.errors import AUNetError
from aunet.infer.eager import TAKEN_APART
from aunet.infer.native.build import available
from aunet.infer.native.kernels import KINDS, NativeKernels, knows
from aunet.infer.session import Session
from aunet.infer.weights import stored
from aunet.model.aunet import AUNet
from aunet.splitting import Splitter
from aunet.vocabulary import BYTES, Vocabulary

ROW = 512
"""Words of 64 bits that are weighed together."""


class Reader:
    """Gives the session of a network; `native`: by compiled kernels where they know all of it and can be had."""

    def __init__(self, native: bool = True) -> None:
        self.native = native
        self._kept: tuple[object, Session] | None = None

    def session(self, network: AUNet, splitter: Splitter, vocabulary: Vocabulary = BYTES) -> Session:
        """The session of these weights, modules and hooks; AUNetError for hooks that it cannot run."""
        hooks, kinds = _hooks(network), [type(module) for module in network.modules()]
        tensors = [*network.parameters(), *network.buffers()]
        weights = [_bits(part) for tensor in tensors for part in stored(tensor)]
        marks = network.head_weight.device, network.head_weight.dtype, hooks, kinds, torch.stack(weights).tolist()
        if self._kept is None or self._kept[0] != marks:
            native = self.native and not hooks and _plain(network) and available()
            kernels = NativeKernels(network) if native else None
            self._kept = marks, Session(network, splitter, kernels, vocabulary)
        return self._kept[1]

    def __reduce__(self) -> tuple[Any, ...]:
        return Reader, (self.native,)  # the copy of a model prepares itself


@torch.no_grad()
def _bits(weight: Tensor) -> Tensor:
    """A number that changes with any bit of a weight, and when its values change places."""
    flat = weight.detach().reshape(-1)
    size = 8 * ROW // flat.element_size()
    if flat.numel() % size or flat.storage_offset() * flat.element_size() % 8:  # not whole rows, or not in words
        flat = F.pad(flat, (0, -flat.numel() % size))  # a copy
    words_NW = flat.view(torch.int64).view(-1, ROW)
    factor_W, factor_N = _odd(ROW + len(words_NW), weight.device).split((ROW, len(words_NW)))
    on_cpu = weight.device.type == "cpu"  # elsewhere torch multiplies no matrices of integers
    sum_N = words_NW @ factor_W if on_cpu else (words_NW * factor_W).sum(1)
    return (sum_N * factor_N).sum()


@cache
def _odd(count: int, device: torch.device) -> Tensor:
    """Odd numbers without a pattern: times one of them, a word that changes changes the sum."""
    drawn = torch.randint(-(2**63), 2**63 - 1, (count,), generator=torch.Generator().manual_seed(0))
    return (drawn | 1).to(device)


def _hooks(network: AUNet) -> list[tuple[object, ...]]:
    """Modules that do something else when they are called, by torch's hooks or a `forward` set on them, and what."""
    found: list[tuple[object, ...]] = []
    for name, module in network.named_modules():
        hooks, forward = [*module._forward_pre_hooks, *module._forward_hooks], vars(module).get("forward")
        if not hooks and forward is None:
            continue
        if isinstance(module, TAKEN_APART):
            raise AUNetError(
                f"{name or 'the network'}: has a hook or another forward, and reading with a cache does not call this "
                "module; hook those inside it, or use the plain forward pass (use_cache=False, LanguageModel.logits)"
            )
        found.append((name, hooks, forward))
    return found


def _plain(network: AUNet) -> bool:
    """Whether the compiled kernels know all there is to know: they take weights from the modules of `AUNet` itself."""
    weight = network.head_weight
    kinds = {type(module) for module in AUNet.on_meta(network.config).modules()}
    return (
        knows(network.config)
        and weight.device.type == "cpu"
        and weight.dtype in KINDS
        and all(type(module) in kinds for module in network.modules())
    )

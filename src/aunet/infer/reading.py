"""The network prepared for reading, which takes as long as reading hundreds of bytes and is kept while it is valid.

Weights may change at any time and in any way: by an optimizer, by averages of weights that are swapped in, by adapters.
So what is kept is valid while the bits of all weights are the same, which is checked at the speed of memory whenever a
session is asked for.
"""

from typing import Any

import torch
from torch import Tensor

from aunet.infer.native.build import available
from aunet.infer.native.kernels import KINDS, NativeKernels, knows
from aunet.infer.session import Session
from aunet.infer.weights import stored
from aunet.model.aunet import AUNet
from aunet.splitting import Splitter
from aunet.vocabulary import BYTES, Vocabulary


class Reader:
    """Gives the session of a network; `native`: by compiled kernels where they know all of it and can be had."""

    def __init__(self, native: bool = True) -> None:
        self.native = native
        self._kept: tuple[object, Session] | None = None

    def session(self, network: AUNet, splitter: Splitter, vocabulary: Vocabulary = BYTES) -> Session:
        """The session of these weights."""
        tensors = [*network.parameters(), *network.buffers()]
        weights = [_bits(part) for tensor in tensors for part in stored(tensor)]
        marks = network.head_weight.device, network.head_weight.dtype, torch.stack(weights).tolist()
        if self._kept is None or self._kept[0] != marks:
            kernels = NativeKernels(network) if self.native and _plain(network) and available() else None
            self._kept = marks, Session(network, splitter, kernels, vocabulary)
        return self._kept[1]

    def __reduce__(self) -> tuple[Any, ...]:
        return Reader, (self.native,)  # the copy of a model prepares itself


@torch.no_grad()
def _bits(weight: Tensor) -> Tensor:
    """A number that changes with any bit of a weight."""
    flat = weight.detach().reshape(-1)
    if flat.storage_offset() * flat.element_size() % 8:  # a part of another tensor that cannot be read in words
        flat = flat.clone()
    whole = flat.numel() * flat.element_size() // 8 * 8 // flat.element_size()
    return flat[:whole].view(torch.int64).sum() + flat[whole:].double().sum().view(torch.int64)


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

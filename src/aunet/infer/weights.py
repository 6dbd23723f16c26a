"""The number format of the weights of a model that only runs."""

import logging
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from aunet.errors import AUNetError, ConfigError, MissingExtra
from aunet.model.aunet import AUNet

Weights = Literal["fp32", "bf16", "int8"]
WEIGHTS: tuple[Weights, ...] = ("fp32", "bf16", "int8")


def convert(network: AUNet, weights: str) -> AUNet:
    """Store the weights in bf16, or the matrices of the blocks in 8 bits with a scale per output (torchao)."""
    if weights not in WEIGHTS:
        raise ConfigError(f"weights: {weights!r} is not one of {', '.join(WEIGHTS)}")
    if weights == "bf16":
        return network.to(torch.bfloat16)
    if weights == "int8":
        # torchao warns of GPU libraries that it does not find.
        logging.getLogger("torchao").setLevel(logging.ERROR)
        try:
            from torchao.quantization import Int8WeightOnlyConfig, quantize_
        except ImportError:
            raise MissingExtra("torchao", "int8", "weights in int8") from None
        quantize_(network, Int8WeightOnlyConfig(set_inductor_config=False), _is_matrix)
    return network


def stored(parameter: Tensor) -> list[Tensor]:
    """What a weight consists of: itself, or 8-bit values and their scales."""
    if hasattr(parameter, "qdata"):
        return [cast(Any, parameter).qdata, cast(Any, parameter).scale]
    return [parameter.detach()]


def require_full(network: AUNet, action: str) -> None:
    """AUNetError where 8-bit weights cannot serve."""
    if any(len(stored(parameter)) > 1 for parameter in network.parameters()):
        raise AUNetError(f"{action}: the weights have been rounded to int8; load the model with fp32 weights")


def weight_bytes(network: AUNet) -> int:
    """Memory of the weights."""
    tensors = [*network.parameters(), *network.buffers()]
    return sum(part.nbytes for tensor in tensors for part in stored(tensor))


def _is_matrix(module: nn.Module, name: str) -> bool:
    """Linear maps but that of upsampling, which is folded into the maps of every offset."""
    return isinstance(module, nn.Linear) and not name.endswith("upsample.shared")

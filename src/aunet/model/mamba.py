"""Mamba-2 blocks on packed documents, around the mixer of `transformers`.

Shapes: T packed positions, D width of the stage, B sequences with m positions each, H heads, K head width, S state
(numbers that each channel of a head remembers), C channels of the convolution, W its width.

A block is x + mixer(norm(x)), without a feed-forward, as in the paper's Mamba on bytes (Table 9: at 50 layers of width
2048 this has the 1.3B parameters that Table 2 names). The mixer is the library's: with fused kernels where `mamba_ssm`
and `causal_conv1d` are installed, in plain torch elsewhere. Its state is as large after a million positions as after
one, so long documents are read piece by piece.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from aunet.config import StageConfig
from aunet.errors import MissingExtra
from aunet.model.layers import Rotation
from aunet.model.layout import StageLayout
from aunet.model.rectangles import STEP

CONVOLUTION = 4
"""Positions that the convolution sees, itself included."""
STEP_RANGE, LEAST_STEP = (1e-3, 1e-1), 1e-4
"""Time steps at the start of training."""
DECAY_RANGE = (1.0, 16.0)
"""Rates of forgetting at the start of training."""


@dataclass(frozen=True)
class MambaState:
    """What one block remembers of B sequences. Never written to, so copies of a sequence share it."""

    inputs_BCW: Tensor
    """The last inputs of the convolution."""
    state_BHKS: Tensor
    """The state of the recurrence, in fp32."""

    @property
    def nbytes(self) -> int:
        """Its memory."""
        return self.inputs_BCW.nbytes + self.state_BHKS.nbytes

    @classmethod
    def joined(cls, states: Sequence["MambaState"]) -> "MambaState":
        """Of several sequences together."""
        if len(states) == 1:
            return states[0]
        return cls(torch.cat([one.inputs_BCW for one in states]), torch.cat([one.state_BHKS for one in states]))

    def split(self) -> list["MambaState"]:
        """Of each sequence by itself, in memory of its own."""
        if len(self.state_BHKS) == 1:
            return [self]
        pairs = zip(self.inputs_BCW.split(1), self.state_BHKS.split(1), strict=True)
        return [MambaState(inputs.clone(), state.clone()) for inputs, state in pairs]


class MambaBlock(nn.Module):
    """Pre-norm block: Mamba-2, added to its input."""

    def __init__(self, config: StageConfig, norm_eps: float) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.RMSNorm(config.dim, eps=norm_eps)
        self.mixer = _mixer(config, norm_eps)

    def forward(self, x_TD: Tensor, _: Rotation, layout: StageLayout) -> Tensor:
        """One layer on packed documents: [T, D] to [T, D]. Positions are known from the order; nothing is rotated."""
        rectangles = layout.rectangles
        mixed = [self.mixer(x_BLD) for x_BLD in rectangles.gather(self.norm(x_TD))]
        return x_TD + rectangles.scatter(mixed)

    def start(self) -> MambaState:
        """The state of one sequence that has read nothing."""
        config, weight = self.config, self.norm.weight
        inputs_BCW = weight.new_zeros((1, config.inner_dim + 2 * config.state_dim, CONVOLUTION))
        state_BHKS = weight.new_zeros((1, config.heads, config.head_dim, config.state_dim), dtype=torch.float32)
        return MambaState(inputs_BCW, state_BHKS)

    def extend(self, x_BmD: Tensor, state: MambaState) -> tuple[Tensor, MambaState]:
        """The same layer on the next m positions of B sequences, and their state after these."""
        from transformers.cache_utils import Cache, LinearAttentionLayer

        cache = Cache(layers=[LinearAttentionLayer()])
        cache.update_conv_state(state.inputs_BCW, 0, conv_kernel_size=CONVOLUTION)
        cache.update_recurrent_state(state.state_BHKS, 0)
        x_BmD = x_BmD + self.mixer(self.norm(x_BmD), cache=cache)
        return x_BmD, MambaState(cache.get_conv_state(0), cache.get_recurrent_state(0))

    @property
    def recurrence(self) -> int:
        """Multiply-adds of the recurrence for one position: every number of the state is renewed and read out."""
        return 2 * self.config.inner_dim * self.config.state_dim


def _mixer(config: StageConfig, norm_eps: float) -> nn.Module:
    """The library's mixer; MissingExtra where it is not installed."""
    # What the library imports where it is installed, such as torchao, warns of what this machine lacks,
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        from transformers import Mamba2Config
        from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer
    except ImportError:
        raise MissingExtra("transformers", "hf", "a stage with the mixer mamba2") from None
    finally:
        logging.disable(disabled)
    if not torch.cuda.is_available():  # and the library itself of kernels that only a GPU can have.
        logging.getLogger("transformers.integrations.hub_kernels").setLevel(logging.ERROR)
    settings = Mamba2Config(
        hidden_size=config.dim,
        expand=config.inner_dim // config.dim,
        num_heads=config.heads,
        head_dim=config.head_dim,
        state_size=config.state_dim,
        n_groups=1,
        conv_kernel=CONVOLUTION,
        use_bias=False,
        num_hidden_layers=1,
        layer_norm_epsilon=norm_eps,
        chunk_size=STEP,
    )
    return cast(nn.Module, Mamba2Mixer(settings, layer_idx=0))


def initial_values(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor | None:
    """How the parameters that only Mamba-2 has start (Dao and Gu 2024); None for any other, told by its full name.

    Rates of forgetting: uniform; time steps: uniform in their logarithm; the skip: 1; the convolution: uniform within
    1 / sqrt(W), without a bias. All the other matrices start as in any block.
    """
    part = name.rpartition("mixer.")[2]
    if part == "A_log":
        return torch.empty(shape).uniform_(*DECAY_RANGE, generator=generator).log()
    if part == "dt_bias":
        low, high = map(math.log, STEP_RANGE)
        step_H = torch.empty(shape).uniform_(low, high, generator=generator).exp().clamp(min=LEAST_STEP)
        return step_H + torch.log(-torch.expm1(-step_H))  # the inverse of softplus, which the mixer applies
    if part == "D":
        return torch.ones(shape)
    if part == "conv1d.weight":
        bound = shape[-1] ** -0.5
        return torch.empty(shape).uniform_(-bound, bound, generator=generator)
    return torch.zeros(shape) if part == "conv1d.bias" else None

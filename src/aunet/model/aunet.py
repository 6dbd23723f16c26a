"""The Autoregressive U-Net: bytes -> stage 1 -> pool -> ... -> trunk -> upsample + skip -> ... -> next-byte logits.

Shapes: T positions of a stage packed end to end, D its width, U units of the next deeper stage, N documents,
V vocabulary.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from aunet.config import AUNetConfig, Init, StageConfig
from aunet.model.layers import Block, Rotation, rotation
from aunet.model.layout import StageLayout, build_layout
from aunet.model.lookup import Lookup, build_lookup, lookup_rows
from aunet.model.loss import head_loss
from aunet.model.mamba import MambaBlock, initial_values
from aunet.model.pooling import SelectPool
from aunet.model.upsampling import build_upsampling

BLOCKS: dict[str, type[Block] | type[MambaBlock]] = {"attention": Block, "mamba2": MambaBlock}
"""What a stage is made of, by its mixer."""
BRANCHES = {"attention": 2, "mamba2": 1}
"""Residual branches of a block."""
Place = Callable[[Tensor, Tensor], object]
"""Puts values, the second, into a parameter."""
FIXED_SIGMA = 0.02
"""Of the initialisation that does not depend on widths."""


class Stage(nn.Module):
    """A stage that is not the deepest: blocks on the way down, the two transitions, blocks on the way up."""

    def __init__(self, config: AUNetConfig, index: int) -> None:
        super().__init__()
        self.config = config.stages[index]
        deeper = config.stages[index + 1]
        self.lookup = build_lookup(config, index)
        down, up = config.layers(index)
        self.contract = _blocks(self.config, down, config.norm_eps)
        self.pool = SelectPool(self.config.dim, deeper.dim, config.norm_eps)
        self.upsample = build_upsampling(config, index)
        self.expand = _blocks(self.config, up, config.norm_eps)
        self.recompute = False
        """Whether blocks keep their input alone for the backward pass and compute the rest again there."""


class Trunk(nn.Module):
    """The deepest stage: a plain stack of blocks."""

    def __init__(self, config: AUNetConfig) -> None:
        super().__init__()
        self.config = config.stages[-1]
        self.lookup = build_lookup(config, config.depth)
        self.blocks = _blocks(self.config, self.config.layers, config.norm_eps)
        self.recompute = False
        """As of any stage."""


def _blocks(config: StageConfig, count: int, norm_eps: float) -> nn.ModuleList:
    return nn.ModuleList(BLOCKS[config.mixer](config, norm_eps) for _ in range(count))


class AUNet(nn.Module):
    """Any number of stages; one stage is the plain byte Transformer, or Mamba-2 on bytes."""

    def __init__(self, config: AUNetConfig) -> None:
        super().__init__()
        self.config = config
        width = config.stages[0].dim
        self.embedding = nn.Embedding(config.vocab_size, width)
        self.stages = nn.ModuleList(Stage(config, s) for s in range(config.depth))
        self.trunk = Trunk(config)
        self.norm = nn.RMSNorm(width, eps=config.norm_eps)
        self.head = None if config.tied else nn.Linear(width, config.vocab_size, bias=False)

    @classmethod
    def on_meta(cls, config: AUNetConfig) -> "AUNet":
        """The modules without memory for their weights: to count, or to receive loaded tensors."""
        with torch.device("meta"):
            return cls(config)

    def forward(
        self,
        ids_T: Tensor,
        levels_T: Tensor,
        starts_N: Tensor,
        counts: Sequence[int],
        longest: int | None = None,
        targets_T: Tensor | None = None,
    ) -> Tensor:
        """Next-byte logits [T, V] of packed documents, or with targets the loss alone, as `loss` says.

        `ids_T`: int64, BOS included; `levels_T`: uint8, the first position of a document at the highest level;
        `starts_N`: N + 1 boundaries of the documents; `counts`: positions of every stage, with counts[0] = T;
        `longest`: a bound on the length of a document, for the CUDA kernels (T if not given).
        """
        layouts = build_layout(levels_T, starts_N, counts, self.config.offsets, longest)
        rows = lookup_rows(self.lookups, ids_T, layouts)
        x_TD = self._run(0, self.embedding(ids_T), layouts, rows)
        if targets_T is None:
            return self.logits_of(x_TD)
        return head_loss(self.norm(x_TD), self.head_weight, targets_T)

    def _run(self, s: int, x_TD: Tensor, layouts: Sequence[StageLayout], rows: Sequence[Tensor | None]) -> Tensor:
        """Stage s and everything below it: contract, pool, go deeper, come back, expand."""
        layout = layouts[s]
        x_TD = self.enter(s, x_TD, rows[s])
        rotate_by = self.rotation(s, layout.position_T)
        if layout.pooling is None:
            return _through(self.trunk.blocks, x_TD, rotate_by, layout, self.trunk.recompute)
        stage = cast(Stage, self.stages[s])
        x_TD = _through(stage.contract, x_TD, rotate_by, layout, stage.recompute)
        coarse_UE = self._run(s + 1, stage.pool(x_TD, layout.pooling), layouts, rows)
        x_TD = x_TD + stage.upsample(coarse_UE, layout.pooling)
        return _through(stage.expand, x_TD, rotate_by, layout, stage.recompute)

    def stage(self, s: int) -> Stage | Trunk:
        """Stage s, the deepest one included."""
        return cast(Stage | Trunk, self.trunk if s == self.config.depth else self.stages[s])

    def lookup(self, s: int) -> Lookup | None:
        """The look-up of stage s, where it has one."""
        return self.stage(s).lookup

    @property
    def lookups(self) -> list[Lookup | None]:
        """The look-up of every stage, None where it has none."""
        return [self.lookup(s) for s in range(len(self.config.stages))]

    def recompute(self, stages: Sequence[bool]) -> None:
        """Say for each stage, bytes first, whether training recomputes its blocks instead of remembering them."""
        for s, chosen in enumerate(stages):
            self.stage(s).recompute = chosen

    def enter(self, s: int, x_TD: Tensor, rows_TN: Tensor | None) -> Tensor:
        """What stage s reads: the embedded bytes or the pooled vectors, and what their units look up."""
        lookup = self.lookup(s)
        return x_TD if lookup is None or rows_TN is None else x_TD + lookup(rows_TN)

    def blocks(self) -> Iterator[Block]:
        """All Transformer blocks of all stages."""
        return (module for module in self.modules() if isinstance(module, Block))

    def rotation(self, s: int, position_T: Tensor) -> Rotation:
        """Rotary angles of stage s at these positions."""
        return rotation(position_T, self.config.stages[s].head_dim, self.config.rope_theta)

    @property
    def head_weight(self) -> Tensor:
        """The matrix of the head, [V, D]: the embedding's own where they are tied."""
        return self.embedding.weight if self.head is None else self.head.weight

    def logits_of(self, x_TD: Tensor) -> Tensor:
        """The last norm and the head, shared by training and generation: [T, D] to [T, V]."""
        x_TD = self.norm(x_TD)
        return F.linear(x_TD, self.embedding.weight) if self.head is None else self.head(x_TD)

    def loss(
        self,
        ids_T: Tensor,
        targets_T: Tensor,
        levels_T: Tensor,
        starts_N: Tensor,
        counts: Sequence[int],
        longest: int | None = None,
    ) -> Tensor:
        """Sum of the cross-entropies over all positions, in nats; divide by T of the whole step for the mean."""
        loss: Tensor = self(ids_T, levels_T, starts_N, counts, longest, targets_T)
        return loss

    @torch.no_grad()
    def initialise(self, seed: int, init: Init = "fan_in", place: Place = Tensor.copy_) -> None:
        """All initialisation, in one place; the same on every device and after construction on `meta`.

        Matrices: truncated normal (3 sigma) with sigma 1 / sqrt(inputs), so that they keep the scale of a normalised
        input; the last matrix of each residual branch is divided by the root of the number of branches on the way
        through, so that depth does not make the residual stream grow. Embeddings and the head: sigma 1 / sqrt(width).
        With `init` `fixed` all these sigmas are 0.02 whatever the width, as in GPT-2 (Radford et al. 2019).
        Norms: 1. The maps of single offsets start at 0: upsampling begins as a repetition and learns to differ by
        offset. Look-ups start at 0, and where n-grams are to be known none is yet: what was never read in training adds
        nothing. What only Mamba-2 has starts as `initial_values` says.

        `place` puts the values of a whole parameter where it is kept, for one that is cut up among processes; there is
        never more than one of them beside the model.
        """
        for lookup in self.lookups:
            if lookup and lookup.keys is not None:
                lookup.know(lookup.keys[:0])
        generator = torch.Generator().manual_seed(seed)
        branches = sum(BRANCHES[stage.mixer] * sum(self.config.layers(s)) for s, stage in enumerate(self.config.stages))
        for name, parameter in self.named_parameters():
            own = initial_values(name, parameter.shape, generator)
            if own is not None:
                place(parameter, own)
            elif name.endswith("norm.weight"):
                parameter.fill_(1.0)
            elif name.endswith(("per_offset", "lookup.weight")):
                parameter.zero_()
            else:
                sigma = FIXED_SIGMA if init == "fixed" else parameter.shape[1] ** -0.5
                if name.endswith(("attention.out.weight", "ffn.down.weight", "mixer.out_proj.weight")):
                    sigma /= math.sqrt(branches)
                values = torch.empty(parameter.shape)
                nn.init.trunc_normal_(values, std=sigma, a=-3 * sigma, b=3 * sigma, generator=generator)
                place(parameter, values)


def _through(blocks: nn.ModuleList, x_TD: Tensor, rotate_by: Rotation, layout: StageLayout, recompute: bool) -> Tensor:
    for block in blocks:
        if recompute and torch.is_grad_enabled():
            # Nothing here draws random numbers.
            x_TD = checkpoint(block, x_TD, rotate_by, layout, use_reentrant=False, preserve_rng_state=False)
        else:
            x_TD = block(x_TD, rotate_by, layout)
    return x_TD

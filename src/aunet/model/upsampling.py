"""Expanding: every coarse vector is spread over the segment that follows its pool position (paper, section 2).

Shapes: U coarse units of width E, T positions of the stage above of width D, P position maps.

All variants normalise first and return what is added to the skip connection, [T, D]:
multilinear  y_t = (W + W_p) n,  p the offset of t in its segment modulo P
repeat       y_t = W (n + e_p)
simple       y_t = W n at the pool positions, 0 elsewhere
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aunet.config import AUNetConfig
from aunet.model.layout import Pooling
from aunet.model.pooling import place, select

Stepper = Callable[[Tensor, Sequence[int]], Tensor]
"""What generation calls for every byte; weights that can be folded are folded once, when it is made.

One position of each of B sequences: last coarse vectors [B, E] and B offsets, not yet modulo P, to [B, D].
"""


class MultiLinear(nn.Module):
    """A linear map shared by all offsets plus one for each offset modulo P."""

    def __init__(self, dim: int, deeper_dim: int, offsets: int, norm_eps: float) -> None:
        super().__init__()
        self.offsets = offsets
        self.norm = nn.RMSNorm(deeper_dim, eps=norm_eps)
        self.shared = nn.Linear(deeper_dim, dim, bias=False)
        self.per_offset = nn.Parameter(torch.empty(offsets * dim, deeper_dim))

    def maps(self) -> Tensor:
        """W + W_p for every p, [P, D, E]. Both stay parameters: folding them would change what AdamW does."""
        return self.per_offset.unflatten(0, (self.offsets, -1)) + self.shared.weight

    def forward(self, coarse_UE: Tensor, pooling: Pooling) -> Tensor:
        """[U, E] to [T, D]."""
        normed_UE, maps_PDE = self.norm(coarse_UE), self.maps()
        kind = normed_UE.device.type
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):  # not on `meta`
            dtype = torch.get_autocast_dtype(kind)
            normed_UE, maps_PDE = normed_UE.to(dtype), maps_PDE.to(dtype)
        source_T = pooling.segment_T[pooling.order_T]
        if _is_for_grouped_mm(normed_UE, maps_PDE):
            sorted_TD = F.grouped_mm(
                F.embedding(source_T, normed_UE), maps_PDE.transpose(1, 2), offs=pooling.slices_P.to(torch.int32)
            )
            return place(sorted_TD, pooling.order_T, source_T.shape[0])
        return offset_linear(normed_UE, maps_PDE, source_T, pooling.order_T, pooling.slices_P)

    def stepper(self) -> Stepper:
        """One of the folded maps for each sequence."""
        maps_PDE = self.maps()

        def step(coarse_BE: Tensor, offsets: Sequence[int]) -> Tensor:
            normed_BE = self.norm(coarse_BE)
            modulo = [offset % self.offsets for offset in offsets]
            if len(modulo) == 1:
                return F.linear(normed_BE, maps_PDE[modulo[0]])
            if normed_BE.is_cuda:
                chosen_BDE = maps_PDE[torch.tensor(modulo, device=normed_BE.device)]
                return torch.bmm(chosen_BDE, normed_BE[:, :, None])[:, :, 0]
            # Copying the maps side by side for one product takes six times as long as the products.
            return torch.stack([torch.mv(maps_PDE[p], x_E) for p, x_E in zip(modulo, normed_BE, strict=True)])

        return step


class Repeat(nn.Module):
    """The coarse vector plus a local position embedding, through one map."""

    def __init__(self, dim: int, deeper_dim: int, offsets: int, norm_eps: float) -> None:
        super().__init__()
        self.offsets = offsets
        self.norm = nn.RMSNorm(deeper_dim, eps=norm_eps)
        self.shared = nn.Linear(deeper_dim, dim, bias=False)
        self.offset_embedding = nn.Embedding(offsets, deeper_dim)

    def forward(self, coarse_UE: Tensor, pooling: Pooling) -> Tensor:
        """[U, E] to [T, D]; the map is linear, so units and offsets pass it once each and are added afterwards."""
        units_UD, offsets_PD = self.shared(self.norm(coarse_UE)), self.shared(self.offset_embedding.weight)
        return F.embedding(pooling.segment_T, units_UD) + F.embedding(pooling.offset_T, offsets_PD)

    def stepper(self) -> Stepper:
        """The map of the vector plus the map of the offset."""
        offsets_PD = self.shared(self.offset_embedding.weight)

        def step(coarse_BE: Tensor, offsets: Sequence[int]) -> Tensor:
            modulo_B = torch.tensor([offset % self.offsets for offset in offsets], device=coarse_BE.device)
            return self.shared(self.norm(coarse_BE)) + offsets_PD[modulo_B]

        return step


class Simple(nn.Module):
    """The coarse vector at its pool position, nothing elsewhere."""

    def __init__(self, dim: int, deeper_dim: int, offsets: int, norm_eps: float) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(deeper_dim, eps=norm_eps)
        self.shared = nn.Linear(deeper_dim, dim, bias=False)

    def forward(self, coarse_UE: Tensor, pooling: Pooling) -> Tensor:
        """[U, E] to [T, D]."""
        units_UD = self.shared(self.norm(coarse_UE))
        kept_UD = select(units_UD, pooling.segment_T[pooling.kept_U])
        return place(kept_UD, pooling.kept_U, pooling.segment_T.shape[0])

    def stepper(self) -> Stepper:
        """Something at offset 0 only."""

        def step(coarse_BE: Tensor, offsets: Sequence[int]) -> Tensor:
            pooled_B1 = torch.tensor([[offset == 0] for offset in offsets], device=coarse_BE.device)
            return self.shared(self.norm(coarse_BE)) * pooled_B1

        return step


def _is_for_grouped_mm(x_UE: Tensor, maps_PDE: Tensor) -> bool:
    """Its rows must begin at multiples of 16 bytes."""
    aligned = all(width % 8 == 0 for width in maps_PDE.shape[1:])
    return x_UE.is_cuda and x_UE.dtype == torch.bfloat16 and aligned


Variant = type[MultiLinear] | type[Repeat] | type[Simple]
UPSAMPLINGS: dict[str, Variant] = {"multilinear": MultiLinear, "repeat": Repeat, "simple": Simple}


def build_upsampling(config: AUNetConfig, stage: int) -> MultiLinear | Repeat | Simple:
    """The module that brings stage `stage` + 1 (0-based) back to stage `stage`."""
    kind = UPSAMPLINGS[config.upsampling]
    return kind(config.stages[stage].dim, config.stages[stage + 1].dim, config.offsets, config.norm_eps)


@torch.library.custom_op("aunet::offset_linear", mutates_args=())
def offset_linear(x_UE: Tensor, maps_PDE: Tensor, source_T: Tensor, order_T: Tensor, slices_P: Tensor) -> Tensor:
    """y[order[i]] = maps[p] x[source[i]] for i in slice p: one product per offset, on exactly the rows that have it."""
    sources_TE = x_UE.index_select(0, source_T)
    sorted_TD = x_UE.new_empty((source_T.shape[0], maps_PDE.shape[1]))
    for map_DE, part in zip(maps_PDE, _slices(slices_P), strict=True):
        torch.mm(sources_TE[part], map_DE.T, out=sorted_TD[part])
    return torch.empty_like(sorted_TD).index_copy_(0, order_T, sorted_TD)


@offset_linear.register_fake
def _(x_UE: Tensor, maps_PDE: Tensor, source_T: Tensor, order_T: Tensor, slices_P: Tensor) -> Tensor:
    return x_UE.new_empty((source_T.shape[0], maps_PDE.shape[1]))


@torch.library.custom_op("aunet::offset_linear_backward", mutates_args=())
def _offset_linear_backward(
    grad_TD: Tensor, x_UE: Tensor, maps_PDE: Tensor, source_T: Tensor, order_T: Tensor, slices_P: Tensor
) -> tuple[Tensor, Tensor]:
    sources_TE, sorted_TD = x_UE.index_select(0, source_T), grad_TD.index_select(0, order_T)
    dx_TE, dmaps_PDE = torch.empty_like(sources_TE), torch.empty_like(maps_PDE)
    for p, part in enumerate(_slices(slices_P)):
        torch.mm(sorted_TD[part], maps_PDE[p], out=dx_TE[part])
        torch.mm(sorted_TD[part].T, sources_TE[part], out=dmaps_PDE[p])
    return torch.zeros_like(x_UE).index_add_(0, source_T, dx_TE), dmaps_PDE


@_offset_linear_backward.register_fake
def _(
    grad_TD: Tensor, x_UE: Tensor, maps_PDE: Tensor, source_T: Tensor, order_T: Tensor, slices_P: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x_UE), torch.empty_like(maps_PDE)


def _slices(slices_P: Tensor) -> list[slice]:
    ends = slices_P.tolist()
    return [slice(start, end) for start, end in itertools.pairwise([0, *ends])]


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _autograd(ctx: Any, grad_TD: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    return (*_offset_linear_backward(grad_TD, *saved), None, None, None)


offset_linear.register_autograd(_autograd, setup_context=_save)

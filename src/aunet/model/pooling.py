"""Contracting: the vectors at the pool positions go on to the next stage (paper, section 2).

Shapes: T positions of a stage of width D, U units of the next stage of width E.
"""

from typing import Any

import torch
from torch import Tensor, nn

from aunet.model.layout import Pooling


class SelectPool(nn.Module):
    """Select the vectors at the pool positions and project them to the next stage's width."""

    def __init__(self, dim: int, deeper_dim: int, norm_eps: float) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(dim, eps=norm_eps)
        self.project = nn.Linear(dim, deeper_dim, bias=False)

    def forward(self, x_TD: Tensor, pooling: Pooling) -> Tensor:
        """[T, D] to [U, E]; in the input's type, so that under autocast the residual stream stays exact below too."""
        return self.project(self.norm(select(x_TD, pooling.kept_U))).type_as(x_TD)


@torch.library.custom_op("aunet::select", mutates_args=())
def select(x_TD: Tensor, index_U: Tensor) -> Tensor:
    """Rows at distinct indices, [U, D]; its gradient is a plain copy, where indexing would add atomically."""
    return x_TD.index_select(0, index_U)


@select.register_fake
def _(x_TD: Tensor, index_U: Tensor) -> Tensor:
    return x_TD.new_empty((index_U.shape[0], x_TD.shape[1]))


@torch.library.custom_op("aunet::place", mutates_args=())
def place(x_UD: Tensor, index_U: Tensor, rows: int) -> Tensor:
    """The inverse of `select`: rows at distinct indices of a [rows, D] tensor of zeros."""
    return x_UD.new_zeros((rows, x_UD.shape[1])).index_copy_(0, index_U, x_UD)


@place.register_fake
def _(x_UD: Tensor, index_U: Tensor, rows: int) -> Tensor:
    return x_UD.new_empty((rows, x_UD.shape[1]))


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.rows = inputs[0].shape[0]


def _select_backward(ctx: Any, grad_UD: Tensor) -> tuple[Tensor, None]:
    (index_U,) = ctx.saved_tensors
    return place(grad_UD, index_U, ctx.rows), None


def _place_backward(ctx: Any, grad_TD: Tensor) -> tuple[Tensor, None, None]:
    (index_U,) = ctx.saved_tensors
    return select(grad_TD, index_U), None, None


select.register_autograd(_select_backward, setup_context=_save)
place.register_autograd(_place_backward, setup_context=_save)

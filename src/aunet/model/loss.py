"""The head and the loss in one, for a few positions at a time.

Shapes: T positions, C of them at a time, D channels, V ids.

Logits are T x V numbers, with their logarithms and gradients three times as many: more than all the rest of a small
model over many tokens. All that is needed of them is the sum of the losses and two gradients, so those of a few
positions are made, turned into both at once, and forgotten; the backward pass has nothing left to do but to scale.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

AT_ONCE = 1 << 19
"""Logits on the CPU, where they are read again while they are in its cache;"""
AT_ONCE_ELSEWHERE = 1 << 27
"""and where every call costs as much as many of them."""


def positions_at_once(kind: str, width: int, ids: int) -> int:
    """How many positions are read together: on a kind of device, by a head of that width, over so many ids.

    At least as many as the head is wide, for its weights are read once for each piece.
    """
    return max(width, (AT_ONCE if kind == "cpu" else AT_ONCE_ELSEWHERE) // ids)


def head_loss(x_TD: Tensor, weight_VD: Tensor, targets_T: Tensor) -> Tensor:
    """Sum of the cross-entropies of the logits x W^T, in nats; a scalar in fp32.

    Products are in autocast's type where it is on, all else in fp32. There are first derivatives alone.
    """
    loss: Tensor = _HeadLoss.apply(x_TD, weight_VD, targets_T)  # type: ignore[no-untyped-call]
    return loss


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, weight_VD: Tensor, targets_T: Tensor) -> Tensor:
        kind, dtype = x_TD.device.type, x_TD.dtype
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):  # not on `meta`
            dtype = torch.get_autocast_dtype(kind)
        at_once = positions_at_once(kind, x_TD.shape[1], len(weight_VD))
        rounded_TD, rounded_VD = x_TD.to(dtype), weight_VD.to(dtype)
        loss = x_TD.new_zeros((), dtype=torch.float32)
        to_x_TD, to_weight_VD = torch.empty_like(x_TD), torch.zeros_like(weight_VD)
        pieces = zip(*(x.split(at_once) for x in (rounded_TD, targets_T, to_x_TD)), strict=True)
        for x_CD, target_C, to_x_CD in pieces if kind != "meta" else ():  # where there is nothing to compute
            target_C1 = target_C[:, None]
            log_p_CV = (x_CD @ rounded_VD.T).float().log_softmax(-1)
            log_p_C1 = log_p_CV.gather(1, target_C1)
            loss -= log_p_C1.sum()
            to_logits_CV = log_p_CV.exp_().scatter_(1, target_C1, log_p_C1.exp() - 1).to(dtype)
            to_x_CD.copy_(to_logits_CV @ rounded_VD)
            to_weight_VD += to_logits_CV.T @ x_CD
        ctx.save_for_backward(to_x_TD, to_weight_VD)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        to_x_TD, to_weight_VD = ctx.saved_tensors
        return to_x_TD * gradient, to_weight_VD * gradient, None

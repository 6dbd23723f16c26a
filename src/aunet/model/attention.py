"""Causal attention over ragged, packed documents: one function, two backends.

Shapes: T positions of all documents end to end, N documents, H query heads, G key/value heads, K head width,
C queries in a chunk, S keys that a chunk sees.

A window w means that a query sees at most w keys, itself included. CUDA half precision runs
`torch.nn.attention.varlen`. Everywhere else one opaque operator calls torch's fused attention document by document:
a document that fits in the window is plainly causal; a longer one is read in chunks of queries against the w - 1 + C
keys that they can see, all chunks in one call under one shared band mask. Nothing is padded to a rectangle, and the
cost grows with T w, not with T squared.
"""

import itertools
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 64
"""Queries per chunk of a windowed document: small enough to waste few masked keys, large enough for the kernels."""


def attention(
    q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor, starts_N: Tensor, window: int | None, longest: int
) -> Tensor:
    """Attend inside each document; returns [T, H, K].

    `starts_N`: N + 1 boundaries of the documents, on the host for the fused CPU kernels and on the device for CUDA half
    precision; `longest`: a host bound on the length of a document, which is read by the CUDA kernel only.
    """
    if q_THK.is_cuda and q_THK.dtype in (torch.bfloat16, torch.float16):
        return _varlen(q_THK, k_TGK, v_TGK, starts_N, window, longest)
    return _packed_attention(q_THK, k_TGK, v_TGK, starts_N, window or 0)[0]


def _varlen(q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor, starts_N: Tensor, window: int | None, longest: int) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    groups = q_THK.shape[1] // k_TGK.shape[1]
    if groups > 1:  # `enable_gqa` is not in every torch of the supported range
        k_TGK, v_TGK = (x.repeat_interleave(groups, dim=1) for x in (k_TGK, v_TGK))
    cu_N = starts_N.to(torch.int32)
    reach = (window - 1 if window else -1, 0)
    out = varlen_attn(q_THK, k_TGK, v_TGK, cu_N, cu_N, longest, longest, window_size=reach)
    assert isinstance(out, Tensor)
    return out


@torch.library.custom_op("aunet::packed_attention", mutates_args=())
def _packed_attention(
    q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor, starts_N: Tensor, window: int
) -> tuple[Tensor, Tensor]:
    """Output [T, H, K] and, for the backward pass, the log-sum-exp of the scores [T, H]."""
    out_THK, lse_TH = torch.empty_like(q_THK), q_THK.new_empty(q_THK.shape[:2], dtype=_lse_dtype(q_THK))
    for view in _views(starts_N, window):
        q, k, v = view.queries(q_THK), view.keys(k_TGK, q_THK.shape[1]), view.keys(v_TGK, q_THK.shape[1])
        out, lse = _forward(q, k, v, view.mask(q))
        view.queries(out_THK).copy_(out)
        view.queries(lse_TH[..., None]).copy_(lse[..., None])
    return out_THK, lse_TH


@_packed_attention.register_fake
def _(q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor, starts_N: Tensor, window: int) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q_THK), q_THK.new_empty(q_THK.shape[:2], dtype=_lse_dtype(q_THK))


def _lse_dtype(q_THK: Tensor) -> torch.dtype:
    return torch.promote_types(q_THK.dtype, torch.float32)


@torch.library.custom_op("aunet::packed_attention_backward", mutates_args=())
def _packed_attention_backward(
    grad_THK: Tensor,
    q_THK: Tensor,
    k_TGK: Tensor,
    v_TGK: Tensor,
    out_THK: Tensor,
    lse_TH: Tensor,
    starts_N: Tensor,
    window: int,
) -> tuple[Tensor, Tensor, Tensor]:
    heads = q_THK.shape[1]
    dq_THK, dk_TGK, dv_TGK = torch.empty_like(q_THK), torch.zeros_like(k_TGK), torch.zeros_like(v_TGK)
    for view in _views(starts_N, window):
        q, k, v = view.queries(q_THK), view.keys(k_TGK, heads), view.keys(v_TGK, heads)
        dq, dk, dv = _backward(
            view.queries(grad_THK),
            q,
            k,
            v,
            view.queries(out_THK),
            view.queries(lse_TH[..., None])[..., 0].contiguous(),
            view.mask(q),
        )
        view.queries(dq_THK).copy_(dq)
        view.add_to_keys(dk_TGK, dk)
        view.add_to_keys(dv_TGK, dv)
    return dq_THK, dk_TGK, dv_TGK


@_packed_attention_backward.register_fake
def _(
    grad_THK: Tensor,
    q_THK: Tensor,
    k_TGK: Tensor,
    v_TGK: Tensor,
    out_THK: Tensor,
    lse_TH: Tensor,
    starts_N: Tensor,
    window: int,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q_THK), torch.empty_like(k_TGK), torch.empty_like(v_TGK)


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    q_THK, k_TGK, v_TGK, starts_N, window = inputs
    ctx.save_for_backward(q_THK, k_TGK, v_TGK, *output, starts_N)
    ctx.window = window


def _autograd(ctx: Any, grad_THK: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    q_THK, k_TGK, v_TGK, out_THK, lse_TH, starts_N = ctx.saved_tensors
    grads = _packed_attention_backward(
        grad_THK.contiguous(),
        q_THK,
        k_TGK,
        v_TGK,
        out_THK,
        lse_TH,
        starts_N,
        ctx.window,
    )
    return (*grads, None, None)


_packed_attention.register_autograd(_autograd, setup_context=_setup_context)


class _View:
    """A run of `chunks` times `length` queries of one document, and the keys that each chunk sees.

    Chunk c holds the queries from `first + c * length` on and sees the `before` keys ahead of them and its own. Without
    a window it is plainly causal.
    """

    def __init__(self, first: int, chunks: int, length: int, window: int | None) -> None:
        self.first, self.chunks, self.length, self.window = first, chunks, length, window
        self.before = window - 1 if window else 0

    def queries(self, x_THK: Tensor) -> Tensor:
        """A view [chunks, H, length, K] of packed positions."""
        part = x_THK[self.first : self.first + self.chunks * self.length]
        return part.unflatten(0, (self.chunks, self.length)).transpose(1, 2)

    def keys(self, x_TGK: Tensor, heads: int) -> Tensor:
        """A view [chunks, H, before + length, K]: neighbouring chunks share keys, so it overlaps itself."""
        span = x_TGK[self.first - self.before : self.first + self.chunks * self.length]
        stride_T = span.stride(0)
        shape = (self.chunks, self.before + self.length, *span.shape[1:])
        x = span.as_strided(shape, (self.length * stride_T, *span.stride())).transpose(1, 2)
        groups = heads // x.shape[1]
        return x if groups == 1 else x.repeat_interleave(groups, dim=1)

    def add_to_keys(self, grad_TGK: Tensor, grad: Tensor) -> None:
        """Add the gradients [chunks, H, S, K] of overlapping keys, one run of `length` keys after the other."""
        if grad.shape[1] != grad_TGK.shape[1]:
            grad = grad.unflatten(1, (grad_TGK.shape[1], -1)).sum(2)
        grad = grad.transpose(1, 2)
        start = self.first - self.before
        for at in range(0, self.before + self.length, self.length):
            part = grad[:, at : at + self.length]
            width = part.shape[1]
            target = grad_TGK[start + at : start + at + (self.chunks - 1) * self.length + width]
            stride = target.stride()
            target.as_strided(part.shape, (self.length * stride[0], *stride)).add_(part)

    def mask(self, q: Tensor) -> Tensor | None:
        """The additive band [chunks, H, length, S] that all chunks share; None where plain causality is enough."""
        if self.window is None:
            return None
        return _band(self.length, self.before, q.dtype, q.device).expand(*q.shape[:2], -1, -1)


def _views(starts_N: Tensor, window: int) -> Iterator[_View]:
    """Cut documents into runs: all within a window of the document's start, full chunks, the rest."""
    bounds = starts_N.tolist()
    for first, end in itertools.pairwise(bounds):
        head = end - first if not window else min(end - first, window)
        if head:
            yield _View(first, 1, head, None)
        chunks, rest = divmod(end - first - head, CHUNK)
        if chunks:
            yield _View(first + head, chunks, CHUNK, window)
        if rest:
            yield _View(end - rest, 1, rest, window)


@lru_cache(maxsize=256)
def _band(queries: int, before: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0 where query i of a chunk sees key j, that is 0 <= j - i <= before; minus infinity elsewhere: [C, S]."""
    ahead = torch.arange(before + queries, device=device) - torch.arange(queries, device=device)[:, None]
    return torch.where((ahead >= 0) & (ahead <= before), 0.0, -math.inf).to(dtype)


def _forward(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attention over [N, H, C, K] with its log-sum-exp [N, H, C]."""
    if q.device.type == "cpu":
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, mask is None, attn_mask=mask
        )
        return out, lse
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
    return out, out.new_zeros(out.shape[:-1], dtype=torch.float32)  # the backward pass recomputes, see `_backward`


def _backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    if q.device.type == "cpu":
        dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, q, k, v, out, lse, 0.0, mask is None, attn_mask=mask
        )
        return dq, dk, dv
    with torch.enable_grad():
        q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
        again = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        dq, dk, dv = torch.autograd.grad(again, (q, k, v), grad)
    return dq, dk, dv

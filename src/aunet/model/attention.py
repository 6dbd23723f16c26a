"""Causal attention over ragged, packed documents: one function, three backends.

Shapes: T positions of all documents end to end, N documents, H query heads, G key/value heads, K head width, R runs
of C queries, S keys that a run sees.

A window w means that a query sees at most w keys, itself included. CUDA half precision runs
`torch.nn.attention.varlen`. Everywhere else torch's fused attention is called on many documents at once, on the CPU
from one opaque operator: what lies within a window of a document's start is plainly causal; what comes after it is read
in chunks of queries against the w - 1 + C keys that they can see, under one shared band mask. Documents are padded to
the next multiple of a few positions, never to the longest, and the cost grows with T w, not with T squared.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 64
"""Queries per chunk of a windowed document: small enough to waste few masked keys, large enough for the kernels."""
PAD = 16
"""Runs are as long as a multiple of this, so that documents of nearly one length are read in one call."""
VARLEN_STEP, VARLEN_MOST = 8, 256
"""Widths of heads that the kernel for CUDA half precision takes: multiples of the first up to the second."""
KEYS_AT_ONCE = 1 << 13
"""Of all chunks of a call: neighbouring chunks share keys, which are copied for each of them."""


def attention(
    q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor, starts_N: Tensor, window: int | None, longest: int
) -> Tensor:
    """Attend inside each document; returns [T, H, K].

    `starts_N`: N + 1 boundaries of the documents, on the host for the fused CPU kernels and on the device for CUDA half
    precision; `longest`: a host bound on the length of a document, which is read by the CUDA kernel only.
    """
    if q_THK.device.type in ("cpu", "meta"):
        return _packed_attention(q_THK, k_TGK, v_TGK, starts_N, window or 0)[0]
    half = q_THK.dtype in (torch.bfloat16, torch.float16)
    if q_THK.is_cuda and half and q_THK.shape[-1] <= VARLEN_MOST:
        return _varlen(q_THK, k_TGK, v_TGK, starts_N, window, longest)
    return _composed(q_THK, k_TGK, v_TGK, starts_N, window or 0)


def _varlen(q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor, starts_N: Tensor, window: int | None, longest: int) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    groups, width = q_THK.shape[1] // k_TGK.shape[1], q_THK.shape[-1]
    if width % VARLEN_STEP:
        q_THK, k_TGK, v_TGK = (F.pad(x, (0, -width % VARLEN_STEP)) for x in (q_THK, k_TGK, v_TGK))
    if groups > 1:  # `enable_gqa` is not in every torch of the supported range
        k_TGK, v_TGK = (x.repeat_interleave(groups, dim=1) for x in (k_TGK, v_TGK))
    cu_N = starts_N.to(torch.int32)
    reach = (window - 1 if window else -1, 0)
    out = varlen_attn(q_THK, k_TGK, v_TGK, cu_N, cu_N, longest, longest, scale=width**-0.5, window_size=reach)
    assert isinstance(out, Tensor)
    return out[..., :width]


def _composed(q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor, starts_N: Tensor, window: int) -> Tensor:
    """The same calls as in the operator below, with the gradients of autograd, which an operator has to do without."""
    plan = _plan(tuple(starts_N.tolist()), window, q_THK.device)
    found = []
    for runs in plan.runs:
        q, k, v = runs.queries(q_THK), runs.keys(k_TGK, q_THK.shape[1]), runs.keys(v_TGK, q_THK.shape[1])
        mask = runs.mask(q)
        found.append(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None))
    return plan.gather(found)


@torch.library.custom_op("aunet::packed_attention", mutates_args=())
def _packed_attention(
    q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor, starts_N: Tensor, window: int
) -> tuple[Tensor, Tensor]:
    """Output [T, H, K] and, for the backward pass, the log-sum-exp of the scores [T, H]."""
    plan = _plan(tuple(starts_N.tolist()), window, q_THK.device)
    found = []
    for runs in plan.runs:
        q, k, v = runs.queries(q_THK), runs.keys(k_TGK, q_THK.shape[1]), runs.keys(v_TGK, q_THK.shape[1])
        found.append(_forward(q, k, v, runs.mask(q)))
    return plan.gather([out for out, _ in found]), plan.gather([lse for _, lse in found])


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
    plan = _plan(tuple(starts_N.tolist()), window, q_THK.device)
    dqs, dk_TGK, dv_TGK = [], torch.zeros_like(k_TGK), torch.zeros_like(v_TGK)
    for runs in plan.runs:
        q, k, v = runs.queries(q_THK), runs.keys(k_TGK, heads), runs.keys(v_TGK, heads)
        grad, lse = runs.without_padding(runs.queries(grad_THK)), runs.queries(lse_TH).contiguous()
        dq, dk, dv = _backward(grad, q, k, v, runs.queries(out_THK), lse, runs.mask(q))
        dqs.append(dq)
        runs.add_to_keys(dk_TGK, dk)
        runs.add_to_keys(dv_TGK, dv)
    return plan.gather(dqs), dk_TGK, dv_TGK


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


@dataclass(frozen=True)
class _Runs:
    """Runs of queries of one length, read in one call, and the keys that each of them sees.

    Query c of a run sees the `before` keys ahead of it and itself; where `before` is None, all keys up to its own.
    A run that goes beyond its document repeats the last position, which no position before it sees.
    """

    queries_RC: Tensor
    """Positions among the packed ones."""
    keys_RS: Tensor
    padding_RC: Tensor | None
    """Queries that stand for nothing; None where there are none."""
    before: int | None

    def queries(self, x_THx: Tensor) -> Tensor:
        """[T, H, ...] of packed positions as [R, H, C, ...]."""
        return _select(x_THx, self.queries_RC).transpose(1, 2)

    def keys(self, x_TGK: Tensor, heads: int) -> Tensor:
        """[T, G, K] of packed positions as [R, H, S, K]."""
        x = _select(x_TGK, self.keys_RS).transpose(1, 2)
        groups = heads // x.shape[1]
        return x if groups == 1 else x.repeat_interleave(groups, dim=1)

    def without_padding(self, grad: Tensor) -> Tensor:
        """Gradients [R, H, C, K] of the outputs, in place: what stands for nothing moves no key."""
        if self.padding_RC is not None:
            grad.masked_fill_(self.padding_RC[:, None, :, None], 0.0)
        return grad

    def add_to_keys(self, grad_TGK: Tensor, grad: Tensor) -> None:
        """Add the gradients [R, H, S, K] of keys that several runs may have seen."""
        if grad.shape[1] != grad_TGK.shape[1]:
            grad = grad.unflatten(1, (grad_TGK.shape[1], -1)).sum(2)
        grad_TGK.index_add_(0, self.keys_RS.flatten(), grad.transpose(1, 2).flatten(0, 1))

    def mask(self, q: Tensor) -> Tensor | None:
        """The additive band [R, H, C, S] that all runs share; None where plain causality is enough."""
        if self.before is None:
            return None
        return _band(q.shape[2], self.before, q.dtype, q.device).expand(*q.shape[:2], -1, -1)


@dataclass(frozen=True)
class _Plan:
    """All runs of some documents."""

    runs: tuple[_Runs, ...]
    place_T: Tensor
    """Where each packed position lies among the queries of all runs, end to end."""

    def gather(self, parts: Sequence[Tensor]) -> Tensor:
        """What the runs gave, each [R, H, C, ...], as [T, H, ...] of packed positions."""
        flat = [part.transpose(1, 2).flatten(0, 1) for part in parts]
        return (flat[0] if len(flat) == 1 else torch.cat(flat)).index_select(0, self.place_T)


def _select(x_Tx: Tensor, index_RC: Tensor) -> Tensor:
    return x_Tx.index_select(0, index_RC.flatten()).unflatten(0, index_RC.shape)


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # what is made while nothing is trained must serve training too
def _plan(bounds: tuple[int, ...], window: int, device: torch.device) -> _Plan:
    """Cut documents into runs; all layers of a stage, on the way forward and back, share the plan of a batch."""
    starts: dict[int, list[tuple[int, int]]] = defaultdict(list)
    chunks: list[tuple[int, int]] = []
    for first, end in itertools.pairwise(bounds):
        lead = min(end, first + window) if window else end
        if lead > first:
            starts[_padded(lead - first)].append((first, lead))
        chunks += [(at, min(end, at + CHUNK)) for at in range(lead, end, CHUNK)]
    runs = [_runs(spans, length, None, device) for length, spans in starts.items()]
    length = min(CHUNK, _padded(max((end - first for first, end in chunks), default=0)))
    together = max(1, KEYS_AT_ONCE // (window + CHUNK))
    for some in range(0, len(chunks), together):
        runs.append(_runs(chunks[some : some + together], length, window - 1, device))
    place_T, told = torch.empty(bounds[-1], dtype=torch.int64, device=device), 0
    for one in runs:
        index_RC = torch.arange(told, told + one.queries_RC.numel(), device=device).view_as(one.queries_RC)
        told += index_RC.numel()
        real_RC = slice(None) if one.padding_RC is None else ~one.padding_RC
        place_T[one.queries_RC[real_RC].flatten()] = index_RC[real_RC].flatten()
    return _Plan(tuple(runs), place_T)


def _padded(length: int) -> int:
    return -(-length // PAD) * PAD


def _runs(spans: Sequence[tuple[int, int]], length: int, before: int | None, device: torch.device) -> _Runs:
    """Runs of `length` queries, each from the start of a span on, whose last position fills it up beyond its end."""
    first_R1, end_R1 = torch.tensor(spans, device=device)[:, :, None].unbind(1)
    wanted_RC = first_R1 + torch.arange(length, device=device)
    queries_RC = wanted_RC.minimum(end_R1 - 1)
    if before is None:
        keys_RS = queries_RC
    else:
        keys_RS = (first_R1 + torch.arange(-before, length, device=device)).minimum(end_R1 - 1)
    padding_RC = wanted_RC >= end_R1
    return _Runs(queries_RC, keys_RS, padding_RC if bool(padding_RC.any()) else None, before)


@lru_cache(maxsize=256)
@torch.inference_mode(False)
def _band(queries: int, before: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0 where query i of a chunk sees key j, that is 0 <= j - i <= before; minus infinity elsewhere: [C, S]."""
    ahead = torch.arange(before + queries, device=device) - torch.arange(queries, device=device)[:, None]
    return torch.where((ahead >= 0) & (ahead <= before), 0.0, -math.inf).to(dtype)


def _forward(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attention over [R, H, C, K] with its log-sum-exp [R, H, C]."""
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, mask is None, attn_mask=mask)
    return out, lse


def _backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad, q, k, v, out, lse, 0.0, mask is None, attn_mask=mask
    )
    return dq, dk, dv

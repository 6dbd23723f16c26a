"""Attention against scores that are written out in float64, forward and backward."""

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from aunet.model import attention as module
from aunet.model.attention import CHUNK, PAD, _composed, _packed_attention, attention

HEADS, WIDTH = 4, 8
MANY = [1, 3, 1, 70, 2, 129, 64, 65, 200, 1, 17]


def _starts(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *itertools.accumulate(lengths)])


def _inputs(
    total: int, kv_heads: int, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values as slices of one tensor, as the model makes them, and so not contiguous."""
    generator = torch.Generator().manual_seed(seed)
    heads = torch.randn((total, HEADS + 2 * kv_heads, WIDTH), generator=generator, dtype=torch.float64).to(dtype)
    return heads.requires_grad_().split((HEADS, kv_heads, kv_heads), dim=1)


def _naive(q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor, starts_N: Tensor, window: int | None) -> Tensor:
    groups = q_THK.shape[1] // k_TGK.shape[1]
    k_THK, v_THK = (x.repeat_interleave(groups, dim=1) for x in (k_TGK, v_TGK))
    index_T = torch.arange(q_THK.shape[0])
    document_T = torch.bucketize(index_T, starts_N, right=True)
    ahead_TT = index_T[:, None] - index_T
    seen_TT = (document_T[:, None] == document_T) & (ahead_TT >= 0) & (ahead_TT < (window or len(index_T)))
    scores_HTT = torch.einsum("thk,shk->hts", q_THK, k_THK) / math.sqrt(q_THK.shape[2])
    weights_HTT = scores_HTT.masked_fill(~seen_TT, -math.inf).softmax(-1)
    return torch.einsum("hts,shk->thk", weights_HTT, v_THK)


def _check(lengths: Sequence[int], window: int | None, kv_heads: int) -> None:
    starts = _starts(lengths)
    inputs = _inputs(sum(lengths), kv_heads)
    expected = _naive(*inputs, starts, window)
    found = attention(*inputs, starts, window, max(lengths))
    assert torch.allclose(found, expected, atol=1e-10, rtol=0)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(1), dtype=found.dtype)
    gradients = torch.autograd.grad((found * weight).sum(), inputs)
    for gradient, wanted in zip(gradients, torch.autograd.grad((expected * weight).sum(), inputs), strict=True):
        assert torch.allclose(gradient, wanted, atol=1e-10, rtol=0)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("window", [None, 1, 2, 7, 64, 65, 1000])
def test_many_documents(window: int | None, kv_heads: int) -> None:
    _check(MANY, window, kv_heads)


@pytest.mark.parametrize("beyond", [-1, 0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 1, 2 * CHUNK, 2 * CHUNK + 1])
@pytest.mark.parametrize("window", [2, 7, 64, 65])
def test_edges_of_chunks(window: int, beyond: int) -> None:
    _check([window + beyond], window, 2)
    _check([3, window + beyond, 5], window, 2)


@pytest.mark.parametrize("length", [PAD - 1, PAD, PAD + 1, 2 * PAD])
def test_documents_that_fill_their_padding_or_do_not(length: int) -> None:
    _check([length, length - 1, 2 * length, 1, length], None, 2)
    _check([length, length - 1, 2 * length, 1, length], length, 2)


def test_chunks_that_take_several_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEYS_AT_ONCE", 3 * (CHUNK + 5))
    module._plan.cache_clear()
    _check([10 * CHUNK + 3, 7, 4 * CHUNK], 5, 2)
    assert len(module._plan((0, 10 * CHUNK + 3), 5, torch.device("cpu")).runs) > 3
    module._plan.cache_clear()


def test_single_positions() -> None:
    _check([1], None, 4)
    _check([1, 1, 1], 1, 2)


def test_bfloat16_stays_near_float64() -> None:
    starts = _starts(MANY)
    inputs = _inputs(sum(MANY), 2, dtype=torch.bfloat16)
    found = attention(*inputs, starts, 7, max(MANY))
    assert found.dtype == torch.bfloat16
    exact = tuple(x.detach().double().requires_grad_() for x in inputs)
    expected = _naive(*exact, starts, 7)
    assert torch.allclose(found.double(), expected, atol=0.05)
    pairs = zip(torch.autograd.grad(found.sum(), inputs), torch.autograd.grad(expected.sum(), exact), strict=True)
    assert all(torch.allclose(found.double(), wanted, atol=0.1) for found, wanted in pairs)


@pytest.mark.parametrize("window", [0, 7])
def test_the_operator_is_registered_whole(window: int) -> None:
    inputs = (x.detach().float().requires_grad_() for x in _inputs(100, 2))
    torch.library.opcheck(_packed_attention, (*inputs, _starts([30, 70]), window))


@pytest.mark.parametrize("window", [None, 7, 64])
def test_devices_without_the_operator_compute_the_same(window: int | None) -> None:
    inputs, starts = _inputs(sum(MANY), 2), _starts(MANY)
    expected, found = attention(*inputs, starts, window, max(MANY)), _composed(*inputs, starts, window or 0)
    assert torch.allclose(found, expected, atol=1e-10, rtol=0)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(1), dtype=found.dtype)
    gradients, wanted = (torch.autograd.grad((out * weight).sum(), inputs) for out in (found, expected))
    assert all(torch.allclose(a, b, atol=1e-10, rtol=0) for a, b in zip(gradients, wanted, strict=True))


def test_what_is_remembered_of_a_validation_serves_training() -> None:
    module._plan.cache_clear()
    module._band.cache_clear()
    inputs, starts = _inputs(sum(MANY), 2), _starts(MANY)
    with torch.inference_mode():
        _composed(*inputs, starts, 7)
    _composed(*inputs, starts, 7).sum().backward()


def test_the_kernel_of_cuda_gets_heads_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.nn.attention import varlen

    def kernel(q: Tensor, k: Tensor, v: Tensor, cu: Tensor, *_: object, scale: float, window_size: object) -> Tensor:
        assert q.shape[2] == k.shape[2] == v.shape[2] == 16
        assert cu.dtype == torch.int32
        assert window_size == (-1, 0)
        return _composed(q * (scale * math.sqrt(16)), k, v, cu, 0)

    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    q, k, v = torch.randn((3, sum(MANY), HEADS, 12), dtype=torch.float64).unbind(0)
    found = module._varlen(q, k, v, _starts(MANY), None, max(MANY))
    assert torch.allclose(found, attention(q, k, v, _starts(MANY), None, max(MANY)))

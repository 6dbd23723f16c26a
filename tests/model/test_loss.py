"""The loss of a few positions at a time is that of all logits at once, in value and gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from aunet.config import AUNetConfig
from aunet.model import loss
from aunet.model.aunet import AUNet
from aunet.model.loss import head_loss

T, D, V = 50, 12, 300


def drawn() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x_TD, weight_VD = (torch.randn(size, D, generator=generator, requires_grad=True) for size in (T, V))
    return x_TD, weight_VD, torch.randint(V, (T,), generator=generator)


def at_once(x_TD: Tensor, weight_VD: Tensor, targets_T: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(x_TD, weight_VD).float(), targets_T, reduction="sum")


def with_gradients(of: Any, scale: float = 1.0) -> list[Tensor]:
    x_TD, weight_VD, targets_T = drawn()
    found = of(x_TD, weight_VD, targets_T)
    (found * scale).backward()
    assert x_TD.grad is not None
    assert weight_VD.grad is not None
    return [found.detach(), x_TD.grad, weight_VD.grad]


@pytest.mark.parametrize("positions", [D, 25, T, 1000])
def test_value_and_gradients_are_those_of_all_logits(monkeypatch: pytest.MonkeyPatch, positions: int) -> None:
    monkeypatch.setattr(loss, "AT_ONCE", positions * V)
    torch.testing.assert_close(with_gradients(head_loss, 0.3), with_gradients(at_once, 0.3), rtol=1e-5, atol=1e-5)


def test_in_half_precision_products_are_rounded_and_sums_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "AT_ONCE", 0)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = with_gradients(head_loss), with_gradients(at_once)
    assert {found.dtype for found in ours} == {torch.float32}
    torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.05)
    exact = with_gradients(at_once)
    assert not torch.equal(ours[1], exact[1])
    assert float(ours[0]) == pytest.approx(float(exact[0]), rel=0.01)


class Largest(TorchDispatchMode):
    """Most numbers of any result, and how many results there are."""

    numbers = results = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.results += 1
        self.numbers = max(self.numbers, out.numel() if isinstance(out, Tensor) else 0)
        return out


def test_there_are_never_logits_of_all_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "AT_ONCE", 0)
    with Largest() as largest:
        with_gradients(head_loss)
    assert largest.numbers == V * D, "the weights"
    with Largest() as largest:
        with_gradients(at_once)
    assert largest.numbers == T * V


def test_where_there_is_nothing_to_compute_there_are_no_pieces() -> None:
    """However many ids there are, of which a piece may have but few positions."""
    with torch.device("meta"):
        x_TD, weight_VD, targets_T = torch.empty(10_000, D), torch.empty(1 << 24, D), torch.empty(10_000).long()
    with Largest() as largest:
        head_loss(x_TD, weight_VD, targets_T)
    assert largest.results < 20


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_has_the_loss_of_its_logits(monkeypatch: pytest.MonkeyPatch, tied: bool) -> None:
    monkeypatch.setattr(loss, "AT_ONCE", 0)
    model = AUNet(AUNetConfig.model_validate({"stages": [{"dim": 16, "layers": 1, "head_dim": 8}], "tied": tied}))
    model.initialise(0)
    ids_T = torch.randint(258, (40,), generator=torch.Generator().manual_seed(1))
    batch = (torch.zeros(40, dtype=torch.uint8), torch.tensor([0, 25, 40]), [40])
    model.loss(ids_T, ids_T.roll(-1), *batch).backward()
    ours = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    F.cross_entropy(model(ids_T, *batch), ids_T.roll(-1), reduction="sum").backward()
    torch.testing.assert_close(ours, [parameter.grad for parameter in model.parameters()], rtol=1e-4, atol=1e-4)

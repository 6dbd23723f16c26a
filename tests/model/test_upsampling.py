"""Pooling and upsampling against a loop over positions, with gradients."""

import pytest
import torch
from packs import random_pack, small_config
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from aunet.config import AUNetConfig
from aunet.model.layout import Pooling, build_layout
from aunet.model.pooling import SelectPool, place, select
from aunet.model.upsampling import MultiLinear, Repeat, Simple, _is_for_grouped_mm, build_upsampling, offset_linear

VARIANTS = ["multilinear", "repeat", "simple"]
LENGTHS = [1, 30, 7, 1, 2, 25]


def _case(variant: str, deepen: float) -> tuple[nn.Module, Tensor, Pooling]:
    """A transition in float64 with every parameter at random, coarse vectors, and a layout with P = 4 offsets."""
    config = small_config(2, upsampling=variant)
    module = build_upsampling(config, 0).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    pack = random_pack(1, LENGTHS, deepen=deepen)
    pooling = build_layout(pack.levels, pack.starts, pack.counts, config.offsets)[0].pooling
    assert pooling is not None
    coarse = torch.randn((pack.counts[1], 24), generator=generator, dtype=torch.float64, requires_grad=True)
    return module, coarse, pooling


def _naive(module: nn.Module, coarse_UE: Tensor, pooling: Pooling) -> Tensor:
    rows = []
    for t, (unit, offset) in enumerate(zip(pooling.segment_T.tolist(), pooling.offset_T.tolist(), strict=True)):
        x_E = coarse_UE[unit]
        n_E = x_E / (x_E.square().mean() + module.norm.eps).sqrt() * module.norm.weight
        weight_DE = module.shared.weight
        if isinstance(module, MultiLinear):
            maps_PDE = module.per_offset.view(module.offsets, *weight_DE.shape)
            rows.append(weight_DE @ n_E + maps_PDE[offset] @ n_E)
        elif isinstance(module, Repeat):
            rows.append(weight_DE @ (n_E + module.offset_embedding.weight[offset]))
        else:
            rows.append(weight_DE @ n_E * float(t in pooling.kept_U.tolist()))
    return torch.stack(rows)


# 0.05: segments longer than P; 1.0: no position with an offset above 0, so slices are empty.
@pytest.mark.parametrize("deepen", [0.05, 0.4, 1.0])
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_a_loop_with_gradients(variant: str, deepen: float) -> None:
    module, coarse, pooling = _case(variant, deepen)
    found, expected = module(coarse, pooling), _naive(module, coarse, pooling)
    assert torch.allclose(found, expected, atol=1e-10)
    inputs = (coarse, *module.parameters())
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(1), dtype=found.dtype)
    gradients = torch.autograd.grad((found * weight).sum(), inputs)
    wanted = torch.autograd.grad((expected * weight).sum(), inputs)
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(gradients, wanted, strict=True))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_equals_its_position(variant: str) -> None:
    module, coarse, pooling = _case(variant, 0.05)
    distance_T = torch.arange(len(pooling.segment_T)) - pooling.kept_U[pooling.segment_T]
    assert distance_T.max() >= 4
    stepped = module.stepper()(coarse[pooling.segment_T], distance_T.tolist())
    assert torch.allclose(stepped, module(coarse, pooling), atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_built_by_name(variant: str) -> None:
    config = AUNetConfig.model_validate({**small_config(3).model_dump(), "upsampling": variant})
    module = build_upsampling(config, 1)
    assert type(module) is {"multilinear": MultiLinear, "repeat": Repeat, "simple": Simple}[variant]
    assert module.shared.weight.shape == (24, 32)


def test_pooling_selects_normalises_and_projects() -> None:
    pool = SelectPool(6, 10, 1e-5).double()
    pack = random_pack(1, LENGTHS)
    pooling = build_layout(pack.levels, pack.starts, pack.counts, 4)[0].pooling
    assert pooling is not None
    x = torch.randn((sum(LENGTHS), 6), dtype=torch.float64, requires_grad=True)
    kept = torch.stack([x[t] for t in range(len(x)) if pack.levels[t] > 0])
    expected = (kept / (kept.square().mean(1, keepdim=True) + 1e-5).sqrt() * pool.norm.weight) @ pool.project.weight.T
    found = pool(x, pooling)
    assert torch.allclose(found, expected)
    (gradient,), (wanted,) = (torch.autograd.grad(y.square().sum(), x) for y in (found, expected))
    assert torch.allclose(gradient, wanted)


def test_select_and_place_undo_each_other() -> None:
    x = torch.randn((5, 3), dtype=torch.float64, requires_grad=True)
    index = torch.tensor([4, 0, 2])
    assert torch.equal(place(select(x, index), index, 5)[index], x[index])
    assert torch.autograd.gradcheck(lambda x: select(x, index), (x,))
    assert torch.autograd.gradcheck(lambda x: place(x, index, 9), (x[:3].detach().requires_grad_(),))
    torch.library.opcheck(select, (x, index))
    torch.library.opcheck(place, (x[:3].detach().requires_grad_(), index, 9))


def test_the_product_by_offset_is_registered_whole() -> None:
    x = torch.randn((3, 5), dtype=torch.float64, requires_grad=True)
    maps = torch.randn((4, 2, 5), dtype=torch.float64, requires_grad=True)
    source, order = torch.tensor([0, 2, 1, 1, 2, 0]), torch.tensor([3, 1, 0, 5, 2, 4])
    slices = torch.tensor([2, 2, 5, 6])
    arguments = (x, maps, source, order, slices)
    assert torch.autograd.gradcheck(offset_linear, arguments)
    torch.library.opcheck(offset_linear, arguments)


@pytest.mark.parametrize("widths", [(64, 32), (36, 32), (64, 36)])
def test_the_grouped_product_gets_widths_that_it_takes(widths: tuple[int, int]) -> None:
    with FakeTensorMode(), torch.device("cuda"):
        x, maps = torch.empty(10, widths[1]).bfloat16(), torch.empty(4, *widths).bfloat16()
        offsets = torch.empty(4, dtype=torch.int32)
        try:
            F.grouped_mm(x, maps.transpose(1, 2), offs=offsets)
            F.grouped_mm(torch.empty(10, widths[0]).bfloat16(), maps, offs=offsets)  # backward
            taken = True
        except RuntimeError:
            taken = False
        assert _is_for_grouped_mm(x, maps) == taken

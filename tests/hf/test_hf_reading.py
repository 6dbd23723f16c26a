"""What is prepared for reading is kept exactly as long as the weights are the same."""

import copy
import pickle
import re
from collections.abc import Callable

import pytest
import torch
from torch import nn

from aunet.errors import AUNetError
from aunet.hf import AUNetConfig, AUNetForCausalLM
from aunet.infer.eager import EagerKernels
from aunet.infer.native.build import available
from aunet.infer.native.kernels import NativeKernels
from aunet.infer.session import Session
from tests.model.packs import small_config

IDS = torch.tensor([[256, *b"a cat, 12 dogs"]])


@pytest.fixture
def model() -> AUNetForCausalLM:
    return AUNetForCausalLM(AUNetConfig(aunet=small_config(3)))


def session(model: AUNetForCausalLM) -> Session:
    return model(IDS, use_cache=True).cache.session


def step(model: AUNetForCausalLM) -> None:
    model(IDS, labels=IDS).loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()


@torch.no_grad()
def last_bit(model: AUNetForCausalLM) -> None:
    weight = model.trunk.blocks[0].ffn.down.weight
    weight.data[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(9.0))


@torch.no_grad()
def swap(model: AUNetForCausalLM) -> None:
    for parameter in model.parameters():
        parameter.data = parameter.data * 0.5


@torch.no_grad()
def roll(model: AUNetForCausalLM) -> None:
    weight = model.network.head_weight
    weight.copy_(weight.roll(1, 0))


def adapt(model: AUNetForCausalLM) -> None:
    class Doubled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    old = model.stages[0].contract[0].ffn.down
    new = Doubled(old.in_features, old.out_features, bias=False)
    new.load_state_dict({"weight": old.weight / 4})
    model.stages[0].contract[0].ffn.down = new


@pytest.mark.parametrize("change", [step, last_bit, swap, roll, adapt])
def test_any_change_of_the_weights_is_seen(model: AUNetForCausalLM, change: Callable[[AUNetForCausalLM], None]) -> None:
    before = session(model)
    assert session(model) is before
    change(model)
    assert session(model) is not before
    cached, plain = (model(IDS, use_cache=use_cache).logits for use_cache in (True, False))
    assert (cached - plain).abs().max() < 1e-4


def test_compiled_kernels_read_what_they_know_and_nothing_else(model: AUNetForCausalLM) -> None:
    if not available():
        pytest.skip("needs a C++ compiler")
    assert isinstance(session(model).kernels, NativeKernels)
    adapt(model)
    assert isinstance(session(model).kernels, EagerKernels)
    half = AUNetForCausalLM(AUNetConfig(aunet=small_config(3)))
    assert isinstance(session(half.to(torch.bfloat16)).kernels, NativeKernels)
    assert isinstance(session(half.half()).kernels, EagerKernels)


def pre_hook(module: nn.Module) -> Callable[[], None]:
    return module.register_forward_pre_hook(lambda _module, inputs: (inputs[0] * 0.5, *inputs[1:])).remove


def hook(module: nn.Module) -> Callable[[], None]:
    return module.register_forward_hook(lambda _module, _inputs, output: output * 0.5).remove


def own_forward(module: nn.Module) -> Callable[[], None]:
    plain = module.forward
    module.forward = lambda *inputs: 0.5 * plain(*inputs)
    return lambda: delattr(module, "forward")


@pytest.mark.parametrize("put", [pre_hook, hook, own_forward])
def test_hooks_are_run(model: AUNetForCausalLM, put: Callable[[nn.Module], Callable[[], None]]) -> None:
    before = model(IDS, use_cache=True).logits
    remove = put(model.stages[0].expand[0].ffn.down)
    cached, plain = (model(IDS, use_cache=use_cache).logits for use_cache in (True, False))
    assert (cached - plain).abs().max() < 1e-4
    assert (cached - before).abs().max() > 1e-3
    remove()
    assert model(IDS, use_cache=True).logits.equal(before)


@pytest.mark.parametrize("put", [pre_hook, hook, own_forward])
@pytest.mark.parametrize(
    "name", ["trunk.blocks.0", "stages.0.contract.0.attention", "stages.1.pool", "stages.0.upsample"]
)
def test_hooks_that_a_cache_would_pass_by_are_refused(
    model: AUNetForCausalLM, put: Callable[[nn.Module], Callable[[], None]], name: str
) -> None:
    session(model)
    remove = put(model.get_submodule(name))
    with pytest.raises(AUNetError, match=rf"^{re.escape(name)}: .*use_cache=False") as caught:
        session(model)
    assert "\n" not in str(caught.value)
    model(IDS, use_cache=False)
    remove()
    session(model)


def test_copies_prepare_themselves(model: AUNetForCausalLM) -> None:
    expected = model(IDS, use_cache=True)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        found = other(IDS, use_cache=True)
        assert found.cache.session is not expected.cache.session
        assert found.logits.equal(expected.logits)

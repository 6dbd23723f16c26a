"""Mamba-2 stages: isolation, causality, the library's own block, initialisation, counts."""

import math
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packs import pack, random_pack, small_model
from transformers import Mamba2Config, Mamba2ForCausalLM

from aunet.config import AUNetConfig, TrainConfig
from aunet.errors import MissingExtra
from aunet.model.accounting import describe
from aunet.model.aunet import AUNet
from aunet.model.flops import flops_per_byte, paper_flops, useful_flops
from aunet.model.memory import kept_by_stage, training_memory
from aunet.presets import preset
from aunet.train.optim import build_optimizers

ONE: list[dict[str, Any]] = [{"dim": 16, "layers": 2, "mixer": "mamba2", "head_dim": 8, "state_dim": 12}]
ATTENTION: dict[str, Any] = {"dim": 24, "layers": 1, "head_dim": 8, "window": 4}
SHAPES = {
    "mamba": ONE,
    "mamba under attention": [*ONE, ATTENTION],
    "attention under mamba": [ATTENTION, {**ONE[0], "dim": 32}],
}
TOLERANCE = 2e-5
"""The library computes its scan in fp32, whatever the type of the weights."""


def config(shape: str = "mamba") -> AUNetConfig:
    stages = SHAPES[shape]
    return AUNetConfig.model_validate({"stages": stages, "splitter": "word1" if len(stages) > 1 else "", "offsets": 4})


MODELS = {shape: small_model(config(shape)) for shape in SHAPES}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_document_does_not_see_its_neighbours(shape: str) -> None:
    model = MODELS[shape]
    packed = random_pack(model.config.depth, [9, 1, 400, 2, 130, 71, 64, 65])
    together = model(*packed.inputs)
    for n in range(8):
        alone = model(*packed.document(n).inputs)
        assert torch.allclose(together[packed.starts[n] : packed.starts[n + 1]], alone, atol=TOLERANCE)


def test_gradients_of_a_document_are_those_of_the_document_alone() -> None:
    model = MODELS["mamba"]
    packed = random_pack(0, [9, 131, 200])
    middle = slice(int(packed.starts[1]), int(packed.starts[2]))
    loss = torch.nn.functional.cross_entropy(model(*packed.inputs)[middle], packed.targets[middle], reduction="sum")
    inside = torch.autograd.grad(loss, list(model.parameters()))
    one = packed.document(1)
    alone = torch.autograd.grad(model.loss(one.ids, one.targets, *one.inputs[1:]), list(model.parameters()))
    for a, b in zip(inside, alone, strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm()


@settings(max_examples=30, deadline=None)
@given(shape=st.sampled_from(list(SHAPES)), length=st.integers(2, 150), at=st.floats(0, 1, exclude_max=True))
def test_the_past_does_not_depend_on_the_future(shape: str, length: int, at: float) -> None:
    model, t = MODELS[shape], max(1, int(at * length))
    depth = model.config.depth
    first, other = random_pack(depth, [length]), random_pack(depth, [length + 70], seed=1)
    changed = pack(
        [torch.cat([first.ids[:t], other.ids[t:]])],
        [torch.cat([first.levels[:t], other.levels[t:]])],
        [other.targets],
        depth,
    )
    with torch.no_grad():
        before, after = model(*first.inputs), model(*changed.inputs)
    assert torch.allclose(before[:t], after[:t], atol=TOLERANCE)


def test_a_byte_is_remembered_far_beyond_the_convolution() -> None:
    """The counterpart, so that causality and isolation are not tested on a model that forgets."""
    model, first = MODELS["mamba"], random_pack(0, [100])
    ids = first.ids.clone()
    ids[10] = (ids[10] + 1) % 258
    changed = (model(ids, *first.inputs[1:]) - model(*first.inputs)).abs().amax(1)
    assert (changed[:10] < TOLERANCE).all()
    assert changed[10] > 1e-2
    assert changed[30:50].max() > 10 * TOLERANCE


def test_the_same_logits_as_the_librarys_model() -> None:
    """All of the library's weights, by its own names, in our model."""
    settings = Mamba2Config(
        hidden_size=16, num_heads=4, head_dim=8, state_size=12, n_groups=1, num_hidden_layers=2, vocab_size=258
    )
    torch.manual_seed(0)
    theirs = Mamba2ForCausalLM(settings).eval()
    places = {"backbone.embeddings": "embedding", "backbone.norm_f": "norm", "backbone.layers": "trunk.blocks"}
    state = {}
    for name, tensor in theirs.state_dict().items():
        before = next((place for place in places if name.startswith(place)), "lm_head")
        state[places.get(before, "head") + name.removeprefix(before)] = tensor
    ours = AUNet(config())
    ours.load_state_dict(state)
    packed = random_pack(0, [150])
    with torch.no_grad():
        expected = theirs(packed.ids[None]).logits[0]
        assert torch.allclose(ours(*packed.inputs), expected, atol=1e-5)


def test_every_parameter_learns_and_initialisation_reaches_it() -> None:
    model = AUNet.on_meta(config()).to_empty(device="cpu")
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(math.nan)
    model.initialise(3)
    same, other = AUNet(config()), AUNet(config())
    same.initialise(3)
    other.initialise(4)
    fixed = ("norm.weight", ".D", "conv1d.bias")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name]), name
        assert torch.equal(tensor, other.state_dict()[name]) == name.endswith(fixed), name
    packed = random_pack(0, [90, 50])
    model.loss(packed.ids, packed.targets, *packed.inputs[1:]).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_time_steps_and_rates_start_in_the_published_ranges() -> None:
    model = AUNet(AUNetConfig.model_validate({"stages": [{**ONE[0], "dim": 256, "head_dim": 2}]}))
    model.initialise(0)
    for block in model.trunk.blocks:
        steps = torch.nn.functional.softplus(block.mixer.dt_bias.detach())
        rates = block.mixer.A_log.detach().exp()
        assert 1e-3 <= float(steps.min()) < 2e-3
        assert 0.05 < float(steps.max()) <= 0.1001
        assert 1 <= float(rates.min()) < 2
        assert 15 < float(rates.max()) <= 16
        assert block.mixer.conv1d.weight.abs().max() <= 0.5
        assert not block.mixer.conv1d.bias.any()
        # Two branches on the way through: one for each block.
        assert float(block.mixer.out_proj.weight.detach().std()) == pytest.approx((2 * 512) ** -0.5, rel=0.05)
    packed = random_pack(0, [300, 200])
    loss = model.loss(packed.ids, packed.targets, *packed.inputs[1:]).item() / 500
    assert math.log(258) < loss < math.log(258) + 1


def test_without_the_library_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"^a stage with the mixer mamba2 needs .*pip install 'aunet\[hf\]'$"):
        AUNet.on_meta(config())
    AUNet.on_meta(AUNetConfig.model_validate({"stages": [ATTENTION]}))


def test_rates_steps_and_skips_do_not_decay() -> None:
    model = AUNet(config())
    decayed, kept, _ = build_optimizers(model, TrainConfig())[0].param_groups
    names = {id(parameter): name.rpartition("mixer.")[2] for name, parameter in model.named_parameters()}
    assert kept["weight_decay"] == 0
    assert {"A_log", "dt_bias", "D", "conv1d.bias"} <= {names[id(p)] for p in kept["params"]}
    assert {"in_proj.weight", "out_proj.weight", "conv1d.weight"} <= {names[id(p)] for p in decayed["params"]}


def test_muon_takes_the_projections_alone() -> None:
    model = AUNet(config())
    muon = build_optimizers(model, TrainConfig(optimizer="muon"))[1]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {names[id(p)].rpartition("mixer.")[2] for group in muon.param_groups for p in group["params"]}
    assert {"in_proj.weight", "out_proj.weight"} <= found
    assert not {"conv1d.weight", "A_log", "embedding.weight", "head.weight"} & found


def test_the_papers_model_has_its_parameters() -> None:
    config = AUNetConfig.model_validate(preset("mamba-bytes-1b")["model"])
    (stage,) = config.stages
    assert (stage.dim, stage.layers, stage.head_dim, stage.heads, stage.ffn_dim) == (2048, 50, 64, 64, 0)
    assert sum(p.numel() for p in AUNet.on_meta(config).parameters()) == pytest.approx(1.3e9, rel=0.01)
    # 60B tokens of 4.56 bytes: the paper says 3e21.
    assert 60e9 * 4.56 * flops_per_byte(config, 8192) == pytest.approx(2.2e21, rel=0.01)


def test_flops_by_hand() -> None:
    model = AUNet.on_meta(config())
    heads, inner, state, channels = 4, 32, 12, 32 + 2 * 12
    matrices = 16 * (inner + channels + heads) + inner * 16 + 4 * channels
    layer = 6 * matrices + 6 * 2 * inner * state
    by_part = {part.name: value for part, value in paper_flops(model, 100).items()}
    assert by_part == {"embedding": 0, "trunk": 2 * layer, "head": 6 * 16 * 258}
    assert useful_flops(model.config, [[7, 5]]) == 12 * (2 * layer + 6 * 16 * 258)


def test_a_mamba_stage_is_accounted_for() -> None:
    account = describe(config("mamba under attention"))
    assert [stage.mixer for stage in account.stages] == ["mamba2", "attention"]
    assert (account.stages[0].heads, account.stages[0].state_dim, account.stages[1].state_dim) == (4, 12, 0)


def test_activations_are_what_a_run_keeps() -> None:
    estimate = training_memory(config(), 1024)
    model, packed = AUNet(config()), random_pack(0, [1024])
    kept = kept_by_stage(model, lambda: model.loss(packed.ids, packed.targets, *packed.inputs[1:]))
    assert kept == pytest.approx(estimate.activations, rel=0.05)
    # The state between chunks does not make it grow faster than the batch.
    small, large = (sum(training_memory(config(), size).activations) for size in (1_000_000, 10_000_000))
    assert large == pytest.approx(10 * small, rel=0.01)

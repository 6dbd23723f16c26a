"""The whole model: isolation of documents, causality, initialisation."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packs import pack, random_pack, small_config, small_model, with_known, with_layers_up, with_lookups, with_qk_norm
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from aunet.config import AUNetConfig
from aunet.model.aunet import AUNet
from aunet.model.layers import Block, rotation

DEPTHS = [1, 2, 3, 4]
CHANGES = {"look-ups": with_lookups, "known": with_known, "qk-norm": with_qk_norm, "layers-up": with_layers_up}
VARIANTS = ["multilinear", "repeat", "simple", *CHANGES]
"""Ways to upsample, and multi-linear with what may be added to every stage."""
EXACT = torch.float64


def config_of(stages: int, variant: str) -> AUNetConfig:
    change = CHANGES.get(variant)
    return change(small_config(stages)) if change else small_config(stages, upsampling=variant)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("stages", DEPTHS)
def test_a_document_does_not_see_its_neighbours(stages: int, variant: str) -> None:
    model = small_model(config_of(stages, variant), dtype=EXACT)
    packed = random_pack(stages - 1, [9, 1, 40, 2, 23])
    together = model(*packed.inputs)
    for n in range(5):
        alone = model(*packed.document(n).inputs)
        assert torch.allclose(together[packed.starts[n] : packed.starts[n + 1]], alone, atol=1e-11)


@pytest.mark.parametrize("stages", DEPTHS)
def test_gradients_of_a_document_are_those_of_the_document_alone(stages: int) -> None:
    model = small_model(small_config(stages), dtype=EXACT)
    packed = random_pack(stages - 1, [9, 31, 17])
    logits = model(*packed.inputs)
    middle = slice(int(packed.starts[1]), int(packed.starts[2]))
    loss = torch.nn.functional.cross_entropy(logits[middle], packed.targets[middle], reduction="sum")
    inside = torch.autograd.grad(loss, list(model.parameters()))
    one = packed.document(1)
    alone = torch.autograd.grad(model.loss(one.ids, one.targets, *one.inputs[1:]), list(model.parameters()))
    # `loss` is summed in float32, as it is under autocast.
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(inside, alone, strict=True))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("stages", DEPTHS)
@pytest.mark.parametrize("lengths", [[1], [1, 1, 1], [6], [70], [5, 1, 90]])
def test_documents_with_nothing_but_their_first_position_pooled(stages: int, variant: str, lengths: list[int]) -> None:
    model = small_model(config_of(stages, variant), dtype=EXACT)
    packed = random_pack(stages - 1, lengths, deepen=0.0)
    assert packed.counts[1:] == [len(lengths)] * (stages - 1)
    logits = model(*packed.inputs)
    model.loss(packed.ids, packed.targets, *packed.inputs[1:]).backward()
    assert logits.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    last = packed.document(len(lengths) - 1)
    assert torch.allclose(logits[-len(last.ids) :], model(*last.inputs), atol=1e-11)


@pytest.mark.parametrize("stages", DEPTHS)
def test_every_parameter_learns(stages: int) -> None:
    model = small_model(small_config(stages))
    packed = random_pack(stages - 1, [60, 50])
    model.loss(packed.ids, packed.targets, *packed.inputs[1:]).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


MODELS = {
    (stages, variant): small_model(config_of(stages, variant), dtype=EXACT) for stages in DEPTHS for variant in VARIANTS
}


@settings(max_examples=60, deadline=None)
@given(
    stages=st.sampled_from(DEPTHS),
    variant=st.sampled_from(VARIANTS),
    length=st.integers(2, 40),
    at=st.floats(0, 1, exclude_max=True),
    deepen=st.sampled_from([0.1, 0.4, 0.9]),
    seed=st.integers(0, 2**31),
)
def test_the_past_does_not_depend_on_the_future(
    stages: int, variant: str, length: int, at: float, deepen: float, seed: int
) -> None:
    """New bytes and new levels from position t on, and any continuation, change no logit before t."""
    model, t = MODELS[stages, variant], max(1, int(at * length))
    first = random_pack(stages - 1, [length], seed, deepen)
    other = random_pack(stages - 1, [length + 13], seed + 1, deepen)
    changed = pack(
        [torch.cat([first.ids[:t], other.ids[t:]])],
        [torch.cat([first.levels[:t], other.levels[t:]])],
        [other.targets],
        stages - 1,
    )
    with torch.no_grad():
        before, after = model(*first.inputs), model(*changed.inputs)
    assert torch.allclose(before[:t], after[:t], atol=1e-11)


def test_a_changed_byte_changes_its_own_logits() -> None:
    """The counterpart, so that causality is not tested on a model that ignores its input."""
    model, first = MODELS[3, "multilinear"], random_pack(2, [30])
    ids = first.ids.clone()
    ids[10] = (ids[10] + 1) % 258
    changed = (model(ids, *first.inputs[1:]) - model(*first.inputs)).abs().amax(1)
    assert (changed[:10] < 1e-11).all()
    assert changed[10] > 1e-3


def test_loss_is_the_sum_of_cross_entropies() -> None:
    model, packed = small_model(small_config(2)), random_pack(1, [20, 5])
    logits = model(*packed.inputs)
    expected = sum(
        (logits[t].exp().sum().log() - logits[t, target]).item() for t, target in enumerate(packed.targets.tolist())
    )
    assert model.loss(packed.ids, packed.targets, *packed.inputs[1:]).item() == pytest.approx(expected, rel=1e-5)


def test_a_bound_on_the_length_changes_nothing() -> None:
    model, packed = small_model(small_config(3)), random_pack(2, [20, 5])
    assert torch.equal(model(*packed.inputs), model(*packed.inputs, 20))


def test_stages_without_layers_run() -> None:
    values = small_config(3).model_dump()
    values["stages"][1]["layers"] = 0
    model, packed = small_model(AUNetConfig.model_validate(values)), random_pack(2, [20, 5])
    assert model(*packed.inputs).shape == (25, 258)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("stages", DEPTHS)
def test_initialisation_reaches_every_parameter(stages: int, variant: str) -> None:
    config = config_of(stages, variant)
    model = AUNet.on_meta(config).to_empty(device="cpu")
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(math.nan if tensor.is_floating_point() else -1)
    model.initialise(3)
    assert all(lookup.keys.min() > 0 for lookup in model.lookups if lookup and lookup.keys is not None)
    assert not any(tensor.isnan().any() for tensor in model.state_dict().values())
    direct, other = AUNet(config), AUNet(config)
    direct.initialise(3)
    other.initialise(4)
    same = {name: torch.equal(tensor, direct.state_dict()[name]) for name, tensor in model.state_dict().items()}
    assert all(same.values())
    differs = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, other.state_dict()[name])}
    fixed = {name for name in same if name.endswith(("norm.weight", "per_offset", "lookup.weight", "lookup.keys"))}
    assert differs == set(same) - fixed


def test_initialisation_keeps_the_scale_of_a_normalised_input() -> None:
    model = AUNet(
        AUNetConfig.model_validate(
            {
                "stages": [{"dim": 128, "layers": 2, "head_dim": 32}, {"dim": 256, "layers": 4, "head_dim": 32}],
                "splitter": "word1",
            }
        )
    )
    model.initialise(0)
    packed = random_pack(1, [300, 200])
    assert model.head.weight.std().item() == pytest.approx(128**-0.5, rel=0.05)
    qkv = model.trunk.blocks[0].attention.qkv.weight
    assert qkv.std().item() == pytest.approx(256**-0.5, rel=0.05)
    branches = 2 * (2 + 2 + 4)
    assert model.trunk.blocks[0].ffn.down.weight.std().item() == pytest.approx(
        (model.trunk.blocks[0].ffn.down.in_features * branches) ** -0.5, rel=0.05
    )
    loss = model.loss(packed.ids, packed.targets, *packed.inputs[1:]).item() / 500
    assert math.log(258) < loss < math.log(258) + 1.0


def test_without_the_setting_there_are_no_norms_of_queries_and_keys() -> None:
    plain, normed = (AUNet(config).state_dict() for config in (small_config(2), with_qk_norm(small_config(2))))
    more = {name for name in normed if ".q_norm." in name or ".k_norm." in name}
    assert set(normed) - more == set(plain)
    assert len(more) == 2 * 3  # blocks
    assert all(normed[name].shape == (4 if "stages" in name else 8,) for name in more)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_normed_queries_and_keys_do_not_grow_with_their_weights(dtype: torch.dtype) -> None:
    attention = small_model(with_qk_norm(small_config(1))).trunk.blocks[0].attention
    x_TD, turn = torch.randn(7, 16, generator=torch.Generator().manual_seed(0)), rotation(torch.arange(7), 4, 1e4)
    found = []
    for factor in (1, 8):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            attention.qkv.weight.mul_(factor)
            found.append(attention.project(x_TD, turn))
    before, after = found
    assert {x.dtype for x in before} == {dtype}
    for a, b in zip(before[:2], after[:2], strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-2 if dtype == torch.bfloat16 else 1e-4)
    assert torch.allclose(8 * before[2], after[2])
    # A rotation keeps the length, a gain that is not 1 everywhere does not.
    attention.q_norm.weight.data.fill_(3.0)
    with torch.no_grad():
        query, _, _ = attention.project(x_TD, turn)
    assert query.square().mean(-1).sqrt() == pytest.approx(3.0, rel=1e-3)


def test_layers_up_are_blocks_of_the_way_up_alone() -> None:
    plain, other = AUNet(small_config(4)), AUNet(with_layers_up(small_config(4)))
    assert [(len(stage.contract), len(stage.expand)) for stage in other.stages] == [(1, 2), (1, 0), (1, 2)]
    assert [(len(stage.contract), len(stage.expand)) for stage in plain.stages] == [(1, 1)] * 3
    # The same number of blocks again: one more, one less, one more, which the scale of branches counts.
    deeper = with_layers_up(small_config(2))
    model, flat = AUNet(deeper), AUNet(small_config(2))
    for one in (model, flat):
        one.initialise(0)
    down = (one.stages[0].contract[0].ffn.down.weight for one in (model, flat))
    assert torch.allclose(next(down) * math.sqrt(4 / 3), next(down))
    values = small_config(2).model_dump()
    values["stages"][0]["layers_up"] = 1  # as many as down: the same model, whichever way it is said
    assert AUNet.on_meta(AUNetConfig.model_validate(values)).state_dict().keys() == flat.state_dict().keys()


def test_the_fixed_scale_does_not_depend_on_widths() -> None:
    values = {"stages": [{"dim": 64, "layers": 1, "head_dim": 32}, {"dim": 256, "layers": 2, "head_dim": 32}]}
    model = AUNet(AUNetConfig.model_validate({**values, "splitter": "word1"}))
    model.initialise(0, "fixed")
    state = model.state_dict()
    for name in (
        "embedding",
        "head",
        "stages.0.pool.project",
        "trunk.blocks.0.ffn.gate_up",
        "stages.0.upsample.shared",
    ):
        assert state[f"{name}.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert state["trunk.blocks.1.ffn.down.weight"].std().item() == pytest.approx(0.02 / math.sqrt(8), rel=0.05)
    assert not state["stages.0.upsample.per_offset"].any()
    assert bool((state["norm.weight"] == 1).all())


def test_the_forward_pass_runs_without_data() -> None:
    """On `meta` nothing can be read back to the host, so the step needs no synchronisation to find its sizes."""
    model = AUNet.on_meta(small_config(4))
    packed = random_pack(3, [20, 5])

    def on_meta(tensor: Tensor) -> Tensor:
        return tensor.to("meta")

    inputs = (on_meta(packed.levels), on_meta(packed.starts), packed.counts)
    loss = model.loss(on_meta(packed.ids), on_meta(packed.targets), *inputs)
    loss.backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())


@pytest.mark.parametrize("variant", ["multilinear", "qk-norm"])
def test_the_model_is_one_graph(variant: str) -> None:
    torch._dynamo.reset()
    model, packed = small_model(config_of(3, variant)), random_pack(2, [20, 5])
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=True)
    assert torch.allclose(compiled(*packed.inputs), model(*packed.inputs), atol=1e-6)


def test_recomputed_blocks_keep_less_and_have_the_same_gradients() -> None:
    packed, found = random_pack(2, [60, 50]), []
    for stages in ([False] * 3, [True, False, False], [True] * 3):
        model, kept = small_model(small_config(3)), {}
        model.recompute(stages)

        def keep(x: Tensor, kept: dict[int, int] = kept) -> Tensor:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with saved_tensors_hooks(keep, lambda x: x):
            loss = model.loss(packed.ids, packed.targets, *packed.inputs[1:])
        loss.backward()
        found.append((loss, [parameter.grad for parameter in model.parameters()], sum(kept.values())))
    for loss, gradients, _ in found[1:]:
        assert torch.equal(loss, found[0][0])
        assert all(torch.equal(a, b) for a, b in zip(gradients, found[0][1], strict=True))
    assert found[2][2] < found[1][2] < 0.8 * found[0][2]


def test_the_residual_stream_is_exact_in_every_stage_under_autocast() -> None:
    model, pack = small_model(small_config(3)), random_pack(2, [40, 30])
    found = []
    for module in model.modules():
        if isinstance(module, Block):
            module.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].dtype))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(pack.ids, pack.levels, pack.starts, pack.counts)
    assert set(found) == {torch.float32}

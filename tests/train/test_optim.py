"""The optimizers: what decays, what is sparse, one clip for all."""

import copy

import pytest
import torch

from aunet.config import TrainConfig
from aunet.model.aunet import AUNet
from aunet.train.optim import build_optimizers, clip_gradients, take_step
from tests.model.packs import Pack, random_pack, small_config, small_model, with_lookups


def backward(model: AUNet, packed: Pack) -> None:
    model.loss(packed.ids, packed.targets, *packed.inputs[1:]).backward()


def test_without_lookups_a_step_is_that_of_adamw() -> None:
    model, packed = small_model(small_config(2)), random_pack(1, [30, 20])
    other = copy.deepcopy(model)
    optimizers = build_optimizers(model, TrainConfig(lr=1e-3))
    matrices, gains = ([p for p in other.parameters() if (p.dim() >= 2) is wanted] for wanted in (True, False))
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": gains, "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)
    for _ in range(3):
        backward(model, packed)
        backward(other, packed)
        norm = clip_gradients(model.parameters(), 0.2)
        assert torch.equal(norm, torch.nn.utils.clip_grad_norm_(other.parameters(), 0.2))
        take_step(optimizers, 1e-3)
        reference.step()
        reference.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_the_clip_takes_sparse_and_dense_gradients_together() -> None:
    dense, packed = small_model(with_lookups(small_config(3))), random_pack(2, [60, 50])
    sparse = copy.deepcopy(dense)
    build_optimizers(sparse, TrainConfig())
    for model in (dense, sparse):
        for _ in range(2):  # gradients of two micro-batches add up
            backward(model, packed)
    norms = torch.nn.utils.clip_grad_norm_(dense.parameters(), 0.5), clip_gradients(sparse.parameters(), 0.5)
    assert norms[0].item() == pytest.approx(norms[1].item(), rel=1e-5)
    assert norms[0] > 1
    for (name, a), b in zip(dense.named_parameters(), sparse.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert b.grad.is_sparse == name.endswith("lookup.weight")
        assert torch.allclose(a.grad, b.grad.to_dense(), atol=1e-6)


def test_rows_that_were_not_read_stay_as_they_are() -> None:
    model, packed = small_model(with_lookups(small_config(1))), random_pack(0, [12])
    lookup = model.lookup(0)
    assert lookup is not None
    optimizers, before = build_optimizers(model, TrainConfig()), lookup.weight.detach().clone()
    for seed in (0, 1):
        backward(model, random_pack(0, [12], seed))
        clip_gradients(model.parameters(), 0.2)
        if seed == 0:
            assert lookup.weight.grad is not None
            first = lookup.weight.grad.coalesce().indices()[0]
        take_step(optimizers, 1e-2)
        moved = (lookup.weight.detach() != before).any(1).nonzero().flatten()
        if seed == 0:
            assert torch.equal(moved, first)
    assert len(first) < len(moved) < len(before)
    assert packed.counts == [12]


def test_lookups_have_a_learning_rate_of_their_own() -> None:
    steps = []
    for relative in (1.0, 4.0):
        model = small_model(with_lookups(small_config(1)))
        lookup = model.lookup(0)
        assert lookup is not None
        optimizers = build_optimizers(model, TrainConfig(lookup_lr=relative))
        before = [lookup.weight.detach().clone(), model.head.weight.detach().clone()]
        backward(model, random_pack(0, [12]))
        take_step(optimizers, 1e-3)
        steps.append([(lookup.weight - before[0]).abs().max(), (model.head.weight - before[1]).abs().max()])
    assert (steps[1][0] / steps[0][0]).item() == pytest.approx(4, rel=1e-3)
    assert torch.equal(steps[1][1], steps[0][1])


def test_muon_takes_the_matrices_inside_the_model_and_nothing_else() -> None:
    for upsampling in ("multilinear", "repeat"):
        model = small_model(with_lookups(small_config(3, upsampling=upsampling)))
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        adamw, muon, sparse = build_optimizers(model, TrainConfig(optimizer="muon"))
        by = [{names[id(p)] for group in one.param_groups for p in group["params"]} for one in (adamw, muon, sparse)]
        assert sum(map(len, by)) == len(names) == len(set.union(*by))
        assert isinstance(muon, torch.optim.Muon)
        inside = ("qkv", "out", "gate_up", "down", "project", "shared")
        assert by[1] == {name for name in names.values() if name.split(".")[-2] in inside or "per_offset" in name}
        assert {"embedding.weight", "head.weight"} < by[0]
        assert any("offset_embedding" in name for name in by[0]) == (upsampling == "repeat")


def test_one_learning_rate_moves_matrices_alike_under_both_optimizers() -> None:
    moved = []
    for kind in ("adamw", "muon"):
        model = small_model(small_config(2))
        optimizers = build_optimizers(model, TrainConfig.model_validate({"optimizer": kind, "weight_decay": 0}))
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        for seed in range(6):
            backward(model, random_pack(1, [60, 50], seed))
            take_step(optimizers, 1e-3)
        steps = {
            name: (parameter.detach() - before[name]).square().mean().sqrt()
            for name, parameter in model.named_parameters()
        }
        moved.append(steps)
    for name in moved[0]:
        if ".attention." in name or ".ffn." in name:
            assert 0.2 < float(moved[1][name] / moved[0][name]) < 2
            assert moved[1][name] != moved[0][name]


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_every_stage_has_a_learning_rate_of_its_own(kind: str) -> None:
    """Two steps at a rate of 0 but for one stage: what moves is what belongs to it."""
    config = with_lookups(small_config(3))
    shallow = {s: (f"stages.{s}.",) for s in range(2)}
    belongs = {0: ("embedding.", "norm.", "head.", *shallow[0]), 1: shallow[1], 2: ("trunk.",)}
    for stage, prefixes in belongs.items():
        model = small_model(config)
        rates = [1.0 if s == stage else 1e-30 for s in range(3)]
        optimizers = build_optimizers(model, TrainConfig.model_validate({"optimizer": kind, "stage_lr": rates}))
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        for seed in range(2):
            backward(model, random_pack(2, [60, 50], seed))
            take_step(optimizers, 1e-2)
        moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
        assert moved == {name for name in before if name.startswith(prefixes)}


def test_lookups_multiply_the_rate_of_their_stage() -> None:
    model = small_model(with_lookups(small_config(2)))
    sparse = build_optimizers(model, TrainConfig(lookup_lr=3.0, stage_lr=(0.5, 2.0)))[-1]
    assert [group["relative_lr"] for group in sparse.param_groups] == [1.5, 6.0]


@pytest.mark.parametrize("tied", [False, True])
def test_the_head_has_an_epsilon_of_its_own(tied: bool) -> None:
    """What is never the next byte is pushed down by steps of one size at the usual one, and hardly at a great one."""
    packed = random_pack(1, [60, 50])
    found = []
    for eps in (1e-8, 1e2):
        model = small_model(small_config(2, tied=tied))
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        optimizers = build_optimizers(model, TrainConfig(head_eps=eps, weight_decay=0.0))
        backward(model, packed)
        take_step(optimizers, 1e-2)
        found.append({name: (p - before[name]).abs() for name, p in model.named_parameters()})
    usual, calm = found
    head = "embedding.weight" if tied else "head.weight"
    unseen = [i for i in range(258) if i not in packed.targets and i not in packed.ids]
    assert usual[head][unseen].median() > 9e-3
    assert calm[head][unseen].median() < 1e-3
    for name in usual.keys() - {head}:
        assert torch.equal(usual[name], calm[name])

"""What each of several ranks checks of its parts of a model: `python -m tests.train.parts`, started by a test."""

import copy
import resource

import torch

from aunet.config import AUNetConfig, TrainConfig
from aunet.model.aunet import AUNet
from aunet.train.checkpoint import materialise
from aunet.train.distributed import Ranks, find_ranks, joined, load_whole, place, shard, whole
from aunet.train.muon import CutMuon
from aunet.train.optim import build_optimizers, clip_gradients, take_step
from tests.model.packs import small_config, small_model, with_known, with_lookups

CPU = torch.device("cpu")
BIG = AUNetConfig.model_validate({"stages": [{"dim": 512, "layers": 15, "head_dim": 64}]})
"""Some 200 MB."""


def made(config: AUNetConfig, ranks: Ranks, train: TrainConfig) -> AUNet:
    """As a run makes it."""
    model = AUNet.on_meta(config)
    shard(model, ranks, train, CPU)
    model.to_empty(device=CPU)
    model.initialise(3, place=place)
    return model


def equal(model: AUNet, expected: AUNet, ranks: Ranks) -> None:
    found = whole(model, ranks)
    assert (found is None) == (ranks.rank > 0)
    if found is not None:
        assert found.state_dict().keys() == expected.state_dict().keys()
        for name, values in found.state_dict().items():
            assert torch.equal(values, expected.state_dict()[name]), name


def check_weights(ranks: Ranks, train: TrainConfig) -> None:
    """They are those of one process, made or read."""
    for config in (with_lookups(small_config(3)), with_known(small_config(3))):
        model = made(config, ranks, train)
        alone = AUNet(config)
        alone.initialise(3)
        equal(model, alone, ranks)
        other = small_model(config)
        load_whole(model, other.state_dict().items())
        equal(model, other, ranks)


def check_muon(ranks: Ranks, train: TrainConfig) -> None:
    """From equal gradients its steps have the bits of one process."""
    alone = small_model(small_config(3))
    model = made(alone.config, ranks, train)
    load_whole(model, copy.deepcopy(alone).state_dict().items())
    optimizers = [build_optimizers(one, train) for one in (alone, model)]
    materialise(optimizers[1])
    assert isinstance(optimizers[1][1], CutMuon)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        for expected, parameter in zip(alone.parameters(), model.parameters(), strict=True):
            expected.grad = torch.randn(expected.shape, generator=generator)
            parameter.grad = torch.zeros_like(parameter)
            place(parameter.grad, expected.grad)
        norms = [clip_gradients(one.parameters(), 1e9, ranks).item() for one in (alone, model)]
        assert abs(norms[0] - norms[1]) < 1e-3
        for each in optimizers:
            take_step(each, 1e-2)
    equal(model, alone, ranks)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def check_memory(ranks: Ranks) -> None:
    """Making and gathering a model takes a rank's part of it and some whole parameters."""
    before = peak()
    model = made(BIG, ranks, TrainConfig())
    sizes = [parameter.numel() * 4 for parameter in model.parameters()]
    part, slack = sum(sizes) / ranks.count, 8 * max(sizes)  # what malloc does not give back at once
    grown = peak() - before
    assert grown < part + slack < 0.75 * sum(sizes), (grown, part, slack)
    gathered = whole(model, ranks)
    if gathered is None:
        assert peak() - before < part + slack
    print(f"model {sum(sizes) / 2**20:.0f} MiB, made {grown / 2**20:.0f}, gathered {(peak() - before) / 2**20:.0f}")


def main() -> None:
    ranks = find_ranks()
    torch.set_num_threads(1)
    with joined(ranks, CPU):
        for copies in (1, 2):
            train = TrainConfig(optimizer="muon", copies=copies)
            check_weights(ranks, train)
            check_muon(ranks, train)
        if ranks.count == 2:
            check_memory(ranks)  # last, when all that takes memory once is there


if __name__ == "__main__":
    main()

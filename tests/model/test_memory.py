"""The estimate on `meta` against what a real run keeps."""

import pytest
import torch
from packs import Pack, random_pack, small_config, with_lookups
from torch import Tensor

from aunet.config import AUNetConfig
from aunet.model.aunet import AUNet
from aunet.model.memory import kept_by_stage, training_memory


def _kept_by_a_run(model: AUNet, pack: Pack) -> int:
    """Bytes of all storages that autograd holds after a real forward pass, parameters aside."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor.detach())
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model.loss(pack.ids, pack.targets, *pack.inputs[1:])
    return sum(tensor.untyped_storage().nbytes() for address, tensor in kept.items() if address not in own)


@pytest.mark.parametrize("upsampling", ["multilinear", "repeat", "simple"])
@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("lookups", [False, True])
def test_activations_are_what_a_run_keeps(stages: int, upsampling: str, lookups: bool) -> None:
    pack = random_pack(stages - 1, [400, 300, 324], deepen=0.3)
    values = small_config(stages, upsampling=upsampling).model_dump()
    for stage, count in zip(values["stages"], pack.counts, strict=True):
        stage["contraction"] = 1024 / count
    config = AUNetConfig.model_validate(values)
    config = with_lookups(config) if lookups else config
    model = AUNet(config)
    model.initialise(0)
    measured = _kept_by_a_run(model, pack)
    estimate = training_memory(config, 1024)
    assert sum(estimate.activations) == pytest.approx(measured, rel=0.05)
    assert all(part > 0 for part in estimate.activations)
    on_cpu = kept_by_stage(model, lambda: model.loss(pack.ids, pack.targets, *pack.inputs[1:]))
    assert on_cpu == pytest.approx(estimate.activations, rel=0.05)


def test_weights_gradients_and_moments_are_fp32() -> None:
    config = small_config(2)
    parameters = sum(p.numel() for p in AUNet.on_meta(config).parameters())
    memory = training_memory(config)
    assert (memory.weights, memory.gradients, memory.optimizer) == (4 * parameters, 4 * parameters, 8 * parameters)


def test_activations_grow_with_the_batch() -> None:
    config = small_config(3)
    small, large = (sum(training_memory(config, size).activations) for size in (100_000, 1_000_000))
    assert large == pytest.approx(10 * small, rel=0.01)

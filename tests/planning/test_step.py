"""A step on tensors without memory against a real one: what it keeps, and the most it holds at once."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from aunet.config import AUNetConfig, TrainConfig
from aunet.model.aunet import AUNet
from aunet.planning.step import StepMemory, follow, optimizer_bytes, step_memory

ROWS, LENGTH = 4, 512
SHAPES = [
    {"dim": 64, "layers": 2, "head_dim": 32, "window": 64, "contraction": 1},
    {"dim": 96, "layers": 2, "head_dim": 32, "contraction": 4},
    {"dim": 128, "layers": 3, "head_dim": 64, "contraction": 8},
]
SYSTEMS = {
    "bytes": AUNetConfig.model_validate({"stages": SHAPES[:1]}),
    "aunet-2": AUNetConfig.model_validate({"stages": SHAPES[:2], "splitter": "fixed-4"}),
    "aunet-3": AUNetConfig.model_validate({"stages": SHAPES, "splitter": "fixed-4+fixed-8"}),
    "tokens": AUNetConfig.model_validate({"stages": SHAPES[:1], "vocab_size": 2000}),
}


def counts_of(config: AUNetConfig) -> list[int]:
    return [round(ROWS * LENGTH / stage.contraction) for stage in config.stages]


def real_loss(model: AUNet, half: bool) -> Callable[[], Tensor]:
    """Rows whose units are all as long as the configuration says."""
    config, counts = model.config, counts_of(model.config)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 256, (counts[0],), generator=generator)
    levels = torch.zeros(counts[0], dtype=torch.uint8)
    for stage in config.stages[1:]:
        levels[:: int(stage.contraction)] += 1
    starts = torch.arange(0, counts[0] + 1, LENGTH)

    def loss() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return model.loss(ids, ids, levels, starts, counts, LENGTH) / counts[0]

    return loss


def settings(precision: str, accumulate: int = 1) -> TrainConfig:
    return TrainConfig.model_validate({"precision": precision, "device": "cpu", "accumulate": accumulate})


def kept_by_autograd(model: AUNet, loss: Callable[[], Tensor]) -> int:
    """Bytes of all storages that autograd holds, parameters aside."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor.detach())
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss()
    return sum(tensor.untyped_storage().nbytes() for address, tensor in kept.items() if address not in own)


def predicted(config: AUNetConfig, train: TrainConfig, recompute: Sequence[int] = ()) -> StepMemory:
    return step_memory(config, train, counts_of(config), ROWS, recompute)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_activations_are_what_autograd_keeps(system: str, precision: str) -> None:
    model = AUNet(SYSTEMS[system])
    model.initialise(0)
    kept = kept_by_autograd(model, real_loss(model, precision == "bf16"))
    found = predicted(model.config, settings(precision))
    assert sum(found.activations.values()) == pytest.approx(kept, rel=0.05)
    assert found.gradients == sum(4 * p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("precision", "recompute", "accumulate"),
    [
        ("fp32", (), 1),
        ("fp32", (2,), 3),
        ("bf16", (), 2),
        ("bf16", (1, 2, 3), 1),
    ],
)
def test_the_peak_is_that_of_a_real_step(precision: str, recompute: Sequence[int], accumulate: int) -> None:
    model = AUNet(SYSTEMS["aunet-3"])
    model.initialise(0)
    model.recompute([s in recompute for s in range(1, len(model.config.stages) + 1)])
    live, activations = follow(model, real_loss(model, precision == "bf16"), accumulate)
    found = predicted(model.config, settings(precision, accumulate), recompute)
    assert found.peak(1.0) == pytest.approx(max(map(sum, live.history)), rel=0.02)
    assert found.activations == pytest.approx(activations, rel=0.02)


def test_recomputed_stages_keep_less_and_the_others_as_much() -> None:
    config, train = SYSTEMS["aunet-3"], settings("fp32")
    whole, less = predicted(config, train), predicted(config, train, (1,))
    for name in ("contract", "expand"):
        assert less.activations[name, 0] < 0.3 * whole.activations[name, 0]
    assert less.activations["trunk", 2] == whole.activations["trunk", 2]
    assert less.peak(1.0) < whole.peak(1.0)


def test_gradients_that_are_cut_up_leave_more_room() -> None:
    found = predicted(SYSTEMS["aunet-2"], settings("fp32", 2))
    assert found.peak(1.0) - found.peak(0.25) == pytest.approx(0.75 * found.gradients, rel=0.05)


def test_optimizers_remember_two_numbers_with_adam_and_one_with_muon() -> None:
    config = SYSTEMS["aunet-2"]
    parameters = 4 * sum(p.numel() for p in AUNet.on_meta(config).parameters())
    assert optimizer_bytes(config, TrainConfig()) == 2 * parameters
    assert parameters < optimizer_bytes(config, TrainConfig(optimizer="muon")) < 1.3 * parameters


def test_upsampling_keeps_more_on_cuda_in_bf16() -> None:
    config = SYSTEMS["aunet-2"]
    cpu, cuda = (
        step_memory(config, TrainConfig(precision="bf16", device=device), counts_of(config), ROWS)
        for device in ("cpu", "cuda")
    )
    counts = counts_of(config)
    assert cuda.activations["upsample", 0] - cpu.activations["upsample", 0] == 2 * 96 * (counts[0] - counts[1])
    assert cuda.peak(1.0) > cpu.peak(1.0)


def test_lookups_and_mamba_are_followed_too() -> None:
    lookup = {"ngrams": [1, 2], "buckets": 50}
    stages = [{**SHAPES[0], "lookup": lookup}, SHAPES[1]]
    config = AUNetConfig.model_validate({"stages": stages, "splitter": "fixed-4"})
    found = predicted(config, settings("fp32"))
    read = 2 * ROWS * LENGTH * (64 * 4 + 8)
    plain = predicted(SYSTEMS["aunet-2"], settings("fp32"))
    assert found.gradients - plain.gradients == read
    pytest.importorskip("transformers", reason="needs the extra `hf`")
    mamba = AUNetConfig.model_validate({"stages": [{"dim": 32, "layers": 1, "head_dim": 16, "mixer": "mamba2"}]})
    assert sum(predicted(mamba, settings("bf16")).activations.values()) > 0
    cpu, cuda = (step_memory(mamba, TrainConfig(device=device), [90], ROWS).peak(1.0) for device in ("cpu", "cuda"))
    assert cuda - cpu == 2 * 4 * 258 * 90, "logits and their logarithms"

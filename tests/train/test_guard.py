"""Updates that are skipped: which, what stays untouched, and when there are too many."""

import json
import math
import random
import shutil
from pathlib import Path

import pytest
import torch

from aunet.config import TrainConfig
from aunet.errors import RunFailed
from aunet.train.guard import KNOWN, WINDOW, Guard
from aunet.train.optim import take_step
from tests.runs import aunet, here, losses, metrics, write_config

CPU = torch.device("cpu")


def judge(guard: Guard, step: int, loss: float, norm: float) -> bool:
    return bool(guard.judge(step, torch.tensor(loss), torch.tensor(norm)))


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (1.0, math.inf), (math.inf, math.nan)])
def test_what_is_not_finite_is_skipped_from_the_first_step_on(loss: float, norm: float) -> None:
    guard = Guard(TrainConfig(), CPU)
    assert judge(guard, 0, loss, norm)
    assert guard.check(1, "mend") == (False, 1)
    assert not judge(guard, 1, 1e30, 1e30), "without train.spike any finite number is good"
    assert guard.check(2, "mend") == (True, 1)


def test_a_spike_is_measured_by_the_median_of_the_updates_that_were_made() -> None:
    guard = Guard(TrainConfig(spike=3.0), CPU)
    for step in range(KNOWN):
        assert not judge(guard, step, 2.0, 100.0 if step < 5 else 1.0), "too little is known"
    assert judge(guard, KNOWN, 2.0, 3.1)
    assert judge(guard, KNOWN + 1, 6.1, 1.0)
    assert not judge(guard, KNOWN + 2, 5.9, 2.9)
    for step in range(KNOWN + 3, KNOWN + 6):
        assert judge(guard, step, 2.0, 50.0), "what was skipped does not become usual"
    assert guard.check(step + 1, "mend") == (True, 5)


def test_too_many_skips_end_the_run_and_name_the_mend() -> None:
    guard = Guard(TrainConfig(max_skips=2), CPU)
    for step in (0, WINDOW, WINDOW + 5):  # the first one is forgotten by then
        for between in range(0 if not step else step - 3, step):
            judge(guard, between, 1.0, 1.0)
        judge(guard, step, math.nan, 1.0)
    guard.check(step + 1, "mend")
    judge(guard, step + 1, math.nan, 1.0)
    told = r"the loss is nan, .* of 128 updates in a row 3 .*max_skips is 2\); lower it"
    with pytest.raises(RunFailed, match=told) as error:
        guard.check(step + 2, "lower it")
    assert "\n" not in str(error.value)


def test_too_many_skips_end_the_run_however_late_somebody_looks() -> None:
    """With a `train.log_every` beyond the window nobody looks while they are among the last steps."""
    guard = Guard(TrainConfig(max_skips=2), CPU)
    for step in range(3 * WINDOW):
        judge(guard, step, math.nan if step < 3 else 1.0, 1.0)
    with pytest.raises(RunFailed, match=r"the loss is 1, .* of 128 updates in a row 3"):
        guard.check(step + 1, "lower it")


def test_the_last_step_must_be_finite() -> None:
    guard = Guard(TrainConfig(), CPU)
    judge(guard, 0, math.nan, 1.0)
    with pytest.raises(RunFailed, match="the loss is nan"):
        guard.check(1, "mend", last=True)


def test_a_guard_goes_on_from_its_state() -> None:
    one = Guard(TrainConfig(spike=1.5, max_skips=1000), CPU)
    draw = torch.Generator().manual_seed(0)
    values = [(torch.rand((), generator=draw), torch.rand((), generator=draw).exp()) for _ in range(2 * WINDOW)]
    for step in range(WINDOW + 20):
        one.judge(step, *values[step])
    two = Guard(TrainConfig(spike=1.5, max_skips=1000), CPU)
    two.load_state_dict(one.state_dict())
    assert two.check(step, "mend")[1] == one.check(step, "mend")[1] > 0
    for step in range(WINDOW + 20, 2 * WINDOW):
        assert bool(one.judge(step, *values[step])) == bool(two.judge(step, *values[step]))
    assert one.state_dict() == two.state_dict()


@pytest.mark.parametrize("kind", ["adamw", "muon", "sparse"])
def test_a_skipped_update_leaves_weights_and_optimizer_as_they_were(kind: str) -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(4, 4))
    optimizer: torch.optim.Optimizer = {
        "adamw": lambda: torch.optim.AdamW([weight], fused=True),
        "muon": lambda: torch.optim.Muon([weight]),
        "sparse": lambda: torch.optim.SparseAdam([weight]),
    }[kind]()
    optimizer.param_groups[0]["relative_lr"] = 1.0

    def step(fill: float, skip: float) -> None:
        gradient = torch.full((4, 4), fill)
        weight.grad = gradient.to_sparse(1) if kind == "sparse" else gradient
        take_step([optimizer], 1e-2, torch.tensor(skip))

    step(1.0, 0.0)
    state = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in optimizer.state[weight].items()}
    before = weight.detach().clone()
    step(math.nan, 1.0)
    assert torch.equal(weight, before)
    for key, value in state.items():
        now = optimizer.state[weight][key]
        assert torch.equal(now, value) if isinstance(value, torch.Tensor) else now == value, key
    assert weight.grad is None
    step(1.0, 0.0)
    assert not torch.equal(weight, before)


def test_planted_spikes_are_skipped_and_a_run_resumes_between_them_bit_for_bit(tmp_path: Path) -> None:
    config = write_config(tmp_path, steps=70, checkpoint_every=5, spike=1.2, keep=20, lr=1e-3)
    draw = random.Random(0)
    lines = (tmp_path / "train.jsonl").read_text().splitlines()
    for _ in range(25):
        strange = "".join(chr(draw.randint(0x4E00, 0x9FFF)) for _ in range(250))
        lines.insert(draw.randint(60, len(lines)), json.dumps({"text": strange}))
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    whole = here("train", config, "data.shuffle_documents=1")
    assert whole.returncode == 0, whole.stderr
    skipped = [line["skipped"] for line in metrics(tmp_path / "out") if "skipped" in line]
    first, last = (skipped.index(count) + 1 for count in (1, skipped[-1]))
    assert KNOWN < first < last <= 70
    assert f"step {first}: updates skipped: 1 (1 in all)" in whole.stdout
    expected, weights = losses(tmp_path / "out"), (tmp_path / "out" / "model.safetensors").read_bytes()
    between = -(-first // 5) * 5
    assert between < last
    for path in (tmp_path / "out" / "checkpoints").iterdir():
        if int(path.name.removeprefix("step-")) > between:
            shutil.rmtree(path)
    again = aunet("train", config, "data.shuffle_documents=1")
    assert f"resuming after step {between}" in again.stdout, again.stderr
    assert losses(tmp_path / "out") == expected
    assert [line["skipped"] for line in metrics(tmp_path / "out") if "skipped" in line] == skipped
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == weights


def test_steps_that_are_not_finite_are_told_without_numbers_that_json_has_not(tmp_path: Path) -> None:
    result = here("train", write_config(tmp_path, lr=1e30, warmup=0))
    assert result.returncode == 1
    assert "were skipped (train.max_skips is 10); lower train.lr" in result.stderr
    text = (tmp_path / "out" / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert '"skipped": 10' in text

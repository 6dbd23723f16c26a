"""Checkpoints: complete by manifest, damaged ones passed over, nothing lost when writing fails."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from aunet.errors import AUNetError
from aunet.train import checkpoint
from aunet.train.storage import Directory
from tests.runs import files_up_to


def trained(seed: int = 0) -> tuple[nn.Module, list[torch.optim.Optimizer]]:
    torch.manual_seed(seed)
    model = nn.Linear(8, 8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.randn(4, 8)).square().sum().backward()
    optimizer.step()
    return model, [optimizer]


def save(root: Path, step: int, seed: int = 0) -> Path:
    checkpoint.save(Directory(str(root)), step, checkpoint.training_tensors(*trained(seed)), {"note": step})
    return root / f"step-{step}"


def newest(root: Path, warn: Callable[[str], None] = pytest.fail) -> checkpoint.Checkpoint | None:
    return checkpoint.newest(Directory(str(root)), warn)


def test_what_was_saved_comes_back_bit_for_bit(tmp_path: Path) -> None:
    model, (optimizer,) = trained()
    checkpoint.save(Directory(str(tmp_path)), 3, checkpoint.training_tensors(model, [optimizer]), {"note": "x"})
    other, fresh = nn.Linear(8, 8), None
    fresh = torch.optim.AdamW(other.parameters(), lr=0.1)
    checkpoint.materialise([fresh])
    found = newest(tmp_path)
    assert found is not None
    assert found.step == 3
    assert found.state["note"] == "x"
    checkpoint.load_tensors(found, checkpoint.training_tensors(other, [fresh]))
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        for key in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(optimizer.state[mine][key], fresh.state[theirs][key])


def test_nothing_is_pickled(tmp_path: Path) -> None:
    directory = save(tmp_path, 1)
    assert {path.suffix for path in directory.iterdir()} == {".json", ".safetensors"}


@pytest.mark.parametrize("name", ["manifest.json", "state.json", "shard"])
@pytest.mark.parametrize("harm", ["missing", "cut off", "one bit"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path: Path, name: str, harm: str) -> None:
    save(tmp_path, 1)
    path = next(p for p in save(tmp_path, 2).iterdir() if p.name.startswith(name))
    data = bytearray(path.read_bytes())
    if harm == "missing":
        path.unlink()
    elif harm == "cut off":
        path.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 2] ^= 0x80
        path.write_bytes(data)
    told: list[str] = []
    found = newest(tmp_path, told.append)
    assert found is not None
    assert found.step == 1
    assert len(told) == 1
    assert "step-2: passed over" in told[0]
    assert "\n" not in told[0]


def test_a_full_disk_is_one_line_and_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with files_up_to(100), pytest.raises(AUNetError) as caught:
        save(tmp_path, 2)
    assert "step-2: cannot be written (File too large); the newest complete checkpoint is" in str(caught.value)
    assert "step-1" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]


def test_tensors_of_another_model_are_refused_in_one_line(tmp_path: Path) -> None:
    save(tmp_path, 1)
    found = newest(tmp_path)
    assert found is not None
    model = nn.Linear(4, 8)
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoint.materialise([optimizer])
    with pytest.raises(AUNetError, match="cannot be loaded") as caught:
        checkpoint.load_tensors(found, checkpoint.training_tensors(model, [optimizer]))
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_version_says_so(tmp_path: Path) -> None:
    directory = save(tmp_path, 1)
    manifest = json.loads((directory / "manifest.json").read_text())
    (directory / "manifest.json").write_text(json.dumps({**manifest, "version": 99}))
    told: list[str] = []
    assert newest(tmp_path, told.append) is None
    assert "its version is 99, this program reads 1" in told[0]

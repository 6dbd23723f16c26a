"""The machine of a run: its device, and its memory."""

from pathlib import Path
from typing import Any

import pytest
import torch

from aunet.config import TrainConfig
from aunet.errors import ConfigError
from aunet.model.aunet import AUNet
from aunet.presets import load_run
from aunet.train import loop
from aunet.train.distributed import Ranks
from aunet.train.runtime import prepare_device
from tests.runs import here, write_config


@pytest.mark.parametrize("name", ["nonsense", "meta", "cuda:99", "hpu", "privateuseone"])
def test_a_device_that_cannot_train_is_one_line(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        prepare_device(TrainConfig(device=name))
    assert str(caught.value) == f"train.device: {name!r} is not available here; use cpu or auto"


def raising(*_: object, **__: object) -> None:
    raise RuntimeError


@pytest.mark.parametrize(("launcher", "name"), [("SLURM_LOCALID", "cuda:0"), ("LOCAL_WORLD_SIZE", "cuda:1")])
def test_a_process_that_is_shown_one_gpu_takes_it(monkeypatch: pytest.MonkeyPatch, launcher: str, name: str) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setenv(launcher, "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch, "empty", raising)
    with pytest.raises(ConfigError, match=f"'{name}'"):
        prepare_device(TrainConfig(device="cuda"), Ranks(1, 2, 1))


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("__init__", RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried\nto")),
        ("train_step", torch.OutOfMemoryError("CUDA out of memory. Tried\nto")),
        ("save", MemoryError()),
    ],
)
def test_too_little_memory_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: Exception
) -> None:
    def short(*_: Any) -> None:
        raise error

    monkeypatch.setattr(loop.Trainer, where, short)
    result = here("train", write_config(tmp_path), "train.steps=1", "data.workers=0")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("aunet: error: out of memory (")
    model = AUNet.on_meta(load_run(str(tmp_path / "config.yaml"), []).model)
    size = sum(parameter.numel() for parameter in model.parameters())
    assert f": the model has {size:,} parameters; lower train.batch_bytes, raise train.accumulate, set " in line


def test_a_mistake_is_not_taken_for_too_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: Any) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(loop.Trainer, "train_step", wrong)
    with pytest.raises(RuntimeError, match="shapes differ"):
        here("train", write_config(tmp_path), "data.workers=0")

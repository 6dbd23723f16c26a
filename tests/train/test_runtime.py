"""The machine of a run."""

import pytest
import torch

from aunet.config import TrainConfig
from aunet.errors import ConfigError
from aunet.train.distributed import Ranks
from aunet.train.runtime import prepare_device


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

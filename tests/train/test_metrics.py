"""Metrics: JSON lines that a resumed run takes up where its checkpoint was."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aunet.config import AUNetConfig, DataConfig, RunConfig, StageConfig, TrainConfig
from aunet.errors import AUNetError
from aunet.train import metrics

CONFIG = RunConfig(model=AUNetConfig(stages=(StageConfig(dim=8, layers=1, head_dim=8),)))


def test_lines_are_appended_and_superseded_after_a_resume(tmp_path: Path) -> None:
    log = metrics.Metrics(tmp_path, CONFIG, 0)
    for step in (1, 2, 3, 4):
        log.write(step, {"loss": step / 3})
    log.close()
    with (tmp_path / metrics.FILE).open("a") as file:
        file.write('{"step": 5, "lo')  # what a kill leaves
    log = metrics.Metrics(tmp_path, CONFIG, 2)
    log.write(3, {"loss": 7.0})
    log.close()
    lines = [json.loads(line) for line in (tmp_path / metrics.FILE).read_text().splitlines()]
    assert lines == [{"step": 1, "loss": 1 / 3}, {"step": 2, "loss": 2 / 3}, {"step": 3, "loss": 7.0}]
    assert metrics.read(tmp_path / metrics.FILE) == lines


def test_a_line_is_on_disk_before_the_next_step(tmp_path: Path) -> None:
    log = metrics.Metrics(tmp_path, CONFIG, 0)
    log.write(1, {"loss": 0.5})
    assert metrics.read(tmp_path / metrics.FILE) == [{"step": 1, "loss": 0.5}]
    log.close()


def test_a_score_of_another_text_is_none(tmp_path: Path) -> None:
    def opened(valid_bytes: int) -> metrics.Metrics:
        return metrics.Metrics(tmp_path, CONFIG.model_copy(update={"data": DataConfig(valid_bytes=valid_bytes)}), 9)

    log = opened(100)
    log.write(2, {"valid_bits_per_byte": 2.5})
    log.close()
    other = opened(200)
    assert other.scores() == {}
    assert other.validated(2) is None
    other.write(2, {"valid_bits_per_byte": 3.5})
    assert other.validated(2) == {"bits_per_byte": 3.5}
    other.close()
    again = opened(100)
    assert again.scores() == {2: 2.5}
    again.close()
    older = [{k: v for k, v in line.items() if k != metrics.HELD_OUT} for line in metrics.read(tmp_path / metrics.FILE)]
    (tmp_path / metrics.FILE).write_text(json.dumps(older[0]) + "\n")
    unsaid = opened(300)
    assert unsaid.scores() == {2: 2.5}, "older versions do not say which text it was"
    unsaid.close()


def test_tensorboard_gets_the_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra `track`")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = metrics.Metrics(tmp_path, CONFIG.model_copy(update={"train": TrainConfig(tensorboard=True)}), 0)
    log.write(1, {"loss": 0.5, "contraction": [1.0]})
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 0.5)]


def test_wandb_without_a_login_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise LookupError("No API key configured.\nUse `wandb login` to log in.")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    with pytest.raises(AUNetError) as caught:
        metrics.Metrics(tmp_path, CONFIG.model_copy(update={"train": TrainConfig(wandb=True)}), 0)
    (line,) = str(caught.value).splitlines()
    assert line.startswith("train.wandb: No API key configured. Use `wandb login` to log in.; see to it")


def test_wandb_knows_a_run_again_and_no_other_by_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[dict[str, Any]] = []

    def init(**settings: Any) -> SimpleNamespace:
        begun.append(settings)
        return SimpleNamespace(log=lambda values, step: None, finish=lambda: None)

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    config = CONFIG.model_copy(update={"train": TrainConfig(wandb=True)})
    for name in ("a", "a", "b"):
        (tmp_path / name / "out").mkdir(parents=True, exist_ok=True)
        metrics.Metrics(tmp_path / name / "out", config, 0).close()
    first, resumed, other = (settings["id"] for settings in begun)
    assert first == resumed != other
    assert all((settings["name"], settings["resume"]) == ("out", "allow") for settings in begun)

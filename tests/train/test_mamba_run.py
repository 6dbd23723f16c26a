"""Mamba-2 on bytes through the commands, in real processes."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import aunet
from aunet.info import describe_target, table
from aunet.model.directory import load_model, save_model
from tests.runs import aunet as run
from tests.runs import losses, metrics, start, wait_for_step, write_config

STAGE: dict[str, Any] = {"dim": 16, "layers": 2, "mixer": "mamba2", "head_dim": 8, "state_dim": 16}


def config_of(directory: Path, **train: Any) -> Path:
    path = write_config(directory, **train)
    values = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**values, "model": {"stages": [STAGE]}}))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("mamba")
    result = run("train", config_of(directory))
    assert result.returncode == 0, result.stderr
    assert "falling back" not in result.stdout + result.stderr
    return directory / "out"


def test_it_learns_and_is_validated(trained: Path) -> None:
    assert losses(trained)[-1][1] < losses(trained)[0][1] - 0.3
    assert [line["step"] for line in metrics(trained) if "valid_bits_per_byte" in line] == [12]


def test_a_killed_run_resumes_bit_for_bit(trained: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path)
    process = start("train", config)
    wait_for_step(tmp_path / "out", 5)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    result = run("train", config)
    assert result.returncode == 0, result.stderr
    assert losses(tmp_path / "out") == losses(trained)


def test_it_is_measured_and_generates(trained: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat walks under the house and runs. " * 50)
    result = run("eval", trained, text, "--json")
    assert result.returncode == 0, result.stderr
    expected = aunet.load(trained).bits_per_byte(text.read_text())
    assert json.loads(result.stdout)["bits_per_byte"] == pytest.approx(expected)
    result = run("generate", trained, "--prompt", "the cat", "--max-bytes", "20", "--seed", "1")
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert aunet.load(trained).generate("the cat", max_bytes=20, seed=1) in result.stdout


def test_a_model_directory_survives(trained: Path, tmp_path: Path) -> None:
    model = load_model(trained)
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert again.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert "| 1 | 16 | 2 | 8 | none: Mamba-2 | none |" in (tmp_path / "README.md").read_text()


def test_info_shows_what_the_model_has(trained: Path) -> None:
    names = [str(column.header) for column in table(describe_target(str(trained))).columns]
    assert "state" in names
    assert not {"FFN", "window"} & set(names)

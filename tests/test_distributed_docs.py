"""The commands of docs/distributed.md run as they stand, on a small configuration."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import done, environment, losses, write_config

TEXT = (Path(__file__).parents[1] / "docs" / "distributed.md").read_text()
LINES = [
    line for block in re.findall(r"^```\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE) for line in block.splitlines()
]
NOT_HERE = {"export": "sets the environment of a job of SLURM", "srun": "needs SLURM; tests/train/test_distributed.py"}
"""First words of lines that need what is not here; their environment is tested there without srun."""


def words(first: str) -> list[list[str]]:
    """The lines that begin with this word, without their comments."""
    return [found for line in LINES if (found := shlex.split(line, comments=True))[0] == first]


def placed(command: list[str], config: Path) -> list[str]:
    """The same with the file of this test."""
    return [str(config) if word == config.name else word for word in command]


def test_every_line_is_run_or_named_here() -> None:
    firsts = {shlex.split(line)[0] for line in LINES}
    assert firsts == {"torchrun", "aunet", *NOT_HERE}


@pytest.mark.parametrize("command", words("torchrun"), ids=" ".join)
def test_training_with_several_processes(command: list[str], tmp_path: Path) -> None:
    config = write_config(tmp_path, steps=4, batch_bytes=2048)
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", *placed(command[1:], config)]
    result = subprocess.run(run, capture_output=True, text=True, env=environment())
    assert result.returncode == 0, result.stderr
    assert len(losses(tmp_path / "out")) == 4
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize("command", words("aunet"), ids=" ".join)
def test_planning(command: list[str]) -> None:
    assert "expected: " in done(*command[1:])


@pytest.mark.parametrize("first", NOT_HERE)
def test_what_needs_slurm_is_there_and_valid(first: str, tmp_path: Path) -> None:
    (command,) = words(first)
    if first == "export":
        assert [word.partition("=")[0] for word in command if "=" in word] == ["MASTER_ADDR", "MASTER_PORT"]
        return
    # What srun starts is a command of one process.
    started = placed(command[command.index("python") + 1 :], write_config(tmp_path, steps=2))
    result = subprocess.run([sys.executable, *started], capture_output=True, env=environment())
    assert result.returncode == 0, result.stderr

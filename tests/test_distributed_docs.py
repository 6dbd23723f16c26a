"""The commands of docs/distributed.md run as they stand, on a small configuration and by two processes."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import aunet, done, environment, losses, write_config

TEXT = (Path(__file__).parents[1] / "docs" / "distributed.md").read_text()
LINES = [
    line for block in re.findall(r"^```\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE) for line in block.splitlines()
]
NOT_HERE = {
    "export": "sets the environment of a job of SLURM",
    "srun": "needs SLURM; its environment is tested in tests/train/test_distributed.py",
    "python": "a benchmark of minutes",
}
"""First words of lines that need what is not here."""
BUCKET = "s3://"
"""Lines with it need a server: tests/train/test_storage.py has one."""


def words(first: str) -> list[list[str]]:
    """The lines that begin with this word, without their comments."""
    return [found for line in LINES if (found := shlex.split(line, comments=True))[0] == first]


def placed(command: list[str], config: Path) -> list[str]:
    """The same with the file of this test, and with two processes for four: each takes seconds to begin."""
    smaller = {config.name: str(config), "4": "2"}
    return [smaller.get(word, word) for word in command]


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


@pytest.mark.parametrize("command", [c for c in words("aunet") if c[1] == "plan"], ids=" ".join)
def test_planning(command: list[str]) -> None:
    assert "expected: " in done(*command[1:])


def test_training_without_a_launcher_and_the_model_of_its_checkpoint(tmp_path: Path) -> None:
    here = [c for c in words("aunet") if c[1] in ("train", "export") and not any(BUCKET in word for word in c)]
    (train,), (export,) = ([c for c in here if c[1] == name] for name in ("train", "export"))
    config = write_config(tmp_path, steps=4, batch_bytes=2048)
    done(*placed(train[1:], config), run=aunet)
    assert len(losses(tmp_path / "out")) == 4
    run = [str(tmp_path / "out") if word == "runs/mine" else word for word in export[1:]]
    done(*run, "--out", str(tmp_path / "picked"), run=aunet)
    assert (tmp_path / "picked" / "model.safetensors").is_file()


def test_what_slurm_sets_is_what_is_asked_for() -> None:
    (command,) = words("export")
    assert [word.partition("=")[0] for word in command if "=" in word] == ["MASTER_ADDR", "MASTER_PORT"]


def test_what_srun_starts_is_a_command_of_one_process(tmp_path: Path) -> None:
    for number, command in enumerate(words("srun")):
        inner = command[command.index("python") + 1 :]
        inner = inner[: inner.index("||")] if "||" in inner else inner
        (tmp_path / str(number)).mkdir()
        started = placed(inner, write_config(tmp_path / str(number), steps=2))
        result = subprocess.run([sys.executable, *started], capture_output=True, env=environment())
        assert result.returncode == 0, result.stderr

"""What all commands have in common.

A process takes seconds to import torch, so this is tested with real processes (`aunet`), and most cases of a command
by calling its entry point in this one (`here`).
"""

import errno
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from aunet import __version__
from aunet.process import run
from aunet.train.export import Exported
from tests.runs import aunet, here, refused

LESS = "; take a smaller model, shorter texts or fewer at a time"
COMMANDS = ["train", "demo", "generate", "eval", "inspect", "info", "split", "convert"]


def test_without_arguments_the_help_is_shown() -> None:
    result = aunet()  # python -m aunet
    assert all(name in result.stdout + result.stderr for name in COMMANDS)
    assert "Traceback" not in result.stderr


def test_the_versions_are_one_line() -> None:
    found = here("--version")
    assert re.fullmatch(rf"aunet {re.escape(__version__)}, torch \d+\.\d+\S*, Python \d+\.\d+\S*\n", found.stdout)


@pytest.mark.parametrize("name", ["train", "eval", "compare", "info", "plan", "tokenizer train", "bench decode"])
def test_the_usage_brackets_what_may_be_left_out_once(name: str) -> None:
    usage = here(*name.split(), "--help").stdout.partition("\n\n")[0]
    assert usage.startswith("Usage: ")
    assert "[[" not in usage
    assert "...}" not in usage


@pytest.mark.parametrize("name", ["generate", "eval", "inspect"])
def test_a_model_that_is_not_there(tmp_path: Path, name: str) -> None:
    rest = [] if name == "generate" else ["x"]
    assert "absent" in refused(name, tmp_path / "absent", *rest, code=1)


def test_a_device_that_is_not_there(model: Path) -> None:
    assert "device" in refused("generate", model, "--device", "nonsense", code=1)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left", "out/report.html"), "out/report.html: No space left"),
        (OSError("cannot read from timed out object"), "cannot read from timed out object"),
        (MemoryError(), f"out of memory (MemoryError){LESS}"),
        (RuntimeError("can't allocate memory: 9\nB"), f"out of memory (can't allocate memory: 9){LESS}"),
        (RuntimeError("not enough memory: 9"), f"out of memory (not enough memory: 9){LESS}"),
        (torch.OutOfMemoryError("CUDA out of memory."), f"out of memory (CUDA out of memory.){LESS}"),
    ],
)
def test_an_error_of_the_system_is_one_line(capsys: pytest.CaptureFixture[str], error: Exception, line: str) -> None:
    def write() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        run(write)
    assert end.value.code == 1
    assert capsys.readouterr().err == f"aunet: error: {line}\n"


def test_a_mistake_is_not_taken_for_memory_that_is_short() -> None:
    def wrong() -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        run(wrong)


@pytest.mark.parametrize(
    ("arguments", "work"),
    [
        (["convert", "lingua", "a.pth", "a.json", "out[new]"], "aunet.model.convert.convert_lingua"),
        (["export", "runs[new]"], "aunet.train.export.export"),
    ],
)
def test_names_with_brackets_are_shown_as_they_are(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], work: str
) -> None:
    def done(*given: Any) -> Any:
        if callable(given[-1]):
            given[-1]("runs[new]: damaged")
            return Exported("runs[new]", 4, Path("out[new]"))
        return f"{given[-1]}: AU-Net"

    monkeypatch.setattr(work, done)
    result = here(*arguments)
    assert result.returncode == 0
    assert "out[new]: " in result.stdout
    assert result.stderr in ("", "runs[new]: damaged\n")


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["generate"], ["generate", "x", "--top-k", "many"], ["convert", "x"]]
)
def test_usage_errors_name_the_mistake(arguments: list[str]) -> None:
    result = here(*arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert result.stderr

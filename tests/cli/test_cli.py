"""What all commands have in common.

A process takes seconds to import torch, so this is tested with real processes (`aunet`), and most cases of a command
by calling its entry point in this one (`here`).
"""

from pathlib import Path

import pytest

from tests.runs import aunet, here, refused

COMMANDS = ["train", "demo", "generate", "eval", "inspect", "info", "split", "convert"]


def test_without_arguments_the_help_is_shown() -> None:
    result = aunet()  # python -m aunet
    assert all(name in result.stdout + result.stderr for name in COMMANDS)
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("name", ["generate", "eval", "inspect"])
def test_a_model_that_is_not_there(tmp_path: Path, name: str) -> None:
    rest = [] if name == "generate" else ["x"]
    assert "absent" in refused(name, tmp_path / "absent", *rest, code=1)


def test_a_device_that_is_not_there(model: Path) -> None:
    assert "device" in refused("generate", model, "--device", "nonsense", code=1)


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["generate"], ["generate", "x", "--top-k", "many"], ["convert", "x"]]
)
def test_usage_errors_name_the_mistake(arguments: list[str]) -> None:
    result = here(*arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert result.stderr

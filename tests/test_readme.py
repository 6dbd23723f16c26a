"""What the README shows exists and runs."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aunet.cli import app
from aunet.language_model import AUNetConfig, LanguageModel, StageConfig
from aunet.presets import load_run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """Fenced code of one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    """Every `aunet ...` line of the shell blocks, as words."""
    lines = "\n".join(blocks("sh")).splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("aunet ")]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_commands_exist_with_these_options(command: list[str]) -> None:
    words = command[1:3] if command[1] in ("convert", "bench", "tokenizer") else command[1:2]
    result = CliRunner().invoke(app, [*words, "--help"])
    assert result.exit_code == 0
    for option in (word for word in command if word.startswith("--")):
        assert option in result.output


def test_the_two_commands_are_targets_of_make() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for line in blocks("sh")[0].splitlines():
        assert f"\n{line.split()[1]}:" in makefile


def test_the_configuration_file_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(blocks("yaml")[0])
    run = load_run(str(path), ["train.lr=3e-3"])
    assert run.train.bytes == 2e7
    assert run.train.compute is None
    assert run.data.sources[0].weight == 3


def test_the_training_command_is_valid() -> None:
    command = next(words for words in commands() if words[1:3] == ["train", "aunet2-2m"])
    assert load_run(command[2], command[3:]).data.sources[0].path == "texts/"


def test_the_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = (StageConfig(dim=16, layers=1, head_dim=8), StageConfig(dim=16, layers=1, head_dim=8))
    LanguageModel.random(AUNetConfig(splitter="word1", stages=stages)).save(tmp_path / "runs" / "mine")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(blocks("python")[0], names)
    assert tuple(names["logits"].shape) == (1, 3, 258)  # type: ignore[attr-defined]


def test_pictures_and_pages_that_are_linked_are_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target

"""What docs/tokens.md shows runs as it stands, on less text."""

import re
import shlex
from pathlib import Path

import pytest

from tests.runs import here, write_text

DOCS = (Path(__file__).parents[2] / "docs" / "tokens.md").read_text()


def test_the_commands_and_the_snippet_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    write_text(tmp_path / "texts" / "a.jsonl", 300)
    write_text(tmp_path / "held-out.jsonl", 5, seed=1)
    (config,) = re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)
    (tmp_path / "tokens.yaml").write_text(config)
    (shell,) = re.findall(r"```sh\n(.*?)```", DOCS, re.DOTALL)
    for line in shell.splitlines():
        words = shlex.split(line, comments=True)[1:]
        smaller = ["train.bytes=2000", "train.batch_bytes=1000"] if words[0] == "train" else []
        result = here(*words, *smaller)
        assert result.returncode == 0, result.stderr
    (snippet,) = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
    exec(snippet, {})
    assert capsys.readouterr().out.startswith("[")

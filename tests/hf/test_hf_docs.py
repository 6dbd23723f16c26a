"""The snippets of docs/huggingface.md run as they stand, one after the other."""

import re
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

import aunet

DOCS = (Path(__file__).parents[2] / "docs" / "huggingface.md").read_text()


def test_the_snippets_run(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(trained)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL):
        exec(block, names)
    out = capsys.readouterr().out
    assert out.startswith("Once upon a")
    assert "- fine-tuned from: mine" in (tmp_path / "runs" / "shared" / "README.md").read_text()
    before, after = (aunet.load(tmp_path / "runs" / name) for name in ("mine", "tuned"))
    assert after.bits_per_byte("Another one.") < before.bits_per_byte("Another one.")
    assert AutoModelForCausalLM.from_pretrained("runs/shared").config.architecture == before.config

"""The demonstration, as far as it trains nothing."""

from pathlib import Path

import pytest
from rich.console import Console

from aunet import demo


@pytest.mark.parametrize("name", ["what's new", "a #b", "[x]", "2026"])
def test_any_name_of_a_directory_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(demo, "_seconds_per_step", lambda config: 1.0)
    out = tmp_path / name
    config = demo._configured(out, out / "train.jsonl", out / "valid.jsonl", 60.0, Console())
    assert config.train.out == str(out / "model")
    assert config.data.sources[0].path == str(out / "train.jsonl")
    assert config.data.valid[0].path == str(out / "valid.jsonl")

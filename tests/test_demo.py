"""The demonstration, as far as it trains nothing."""

from pathlib import Path

import pytest
from rich.console import Console

from aunet import demo
from aunet.errors import ConfigError


@pytest.mark.parametrize("name", ["what's new", "a #b", "[x]", "2026"])
def test_any_name_of_a_directory_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(demo, "_seconds_per_step", lambda config: 1.0)
    out = tmp_path / name
    config = demo._configured(out, out / "train.jsonl", out / "valid.jsonl", 60.0, Console())
    assert config.train.out == str(out / "model")
    assert config.data.sources[0].path == str(out / "train.jsonl")
    assert config.data.valid[0].path == str(out / "valid.jsonl")


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_a_time_that_is_none_is_refused_before_anything_is_written(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(ConfigError, match=r"--seconds: .* is no time to train in"):
        demo.run_demo(tmp_path / "demo", seconds, Console())
    assert not (tmp_path / "demo").exists()

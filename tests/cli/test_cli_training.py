"""Training by command; how it goes on after an interruption is tested with the trainer."""

from pathlib import Path

import pytest
import yaml

from tests.runs import aunet, done, refused, write_text


class TestTrain:
    def test_the_list_of_presets(self) -> None:
        shown = done("train", "--list")
        assert all(name in shown for name in ("demo", "aunet2-2m", "aunet3-1b"))

    def test_the_list_is_whole_on_a_narrow_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        shown = done("train", "--list")
        assert "transformer-bytes-1b" in shown
        assert "1.6e+06" in shown
        assert "what it is" in shown
        assert "…" not in shown

    def test_what_is_refused(self, work: Path, tmp_path: Path) -> None:
        assert "aunet train --list" in refused("train")
        assert "aunet2-2m" in refused("train", "aunet2-2n")
        assert "absent.yaml" in refused("train", tmp_path / "absent.yaml")
        values = yaml.safe_load((work / "config.yaml").read_text())
        values["train"]["bacth_bytes"] = 1
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(values))
        line = refused("train", path, run=aunet)
        assert "train.bacth_bytes" in line
        assert "did you mean train.batch_bytes" in line
        path.write_text("model: [")
        assert "not valid YAML" in refused("train", path)
        # Before any of them is started, so that it is said once.
        assert "too small for 64 processes" in refused("train", work / "config.yaml", "--processes", "64")

    def test_sources_that_cannot_be_read(self, work: Path, tmp_path: Path) -> None:
        write_text(tmp_path / "train.jsonl", 2)
        assert "absent.jsonl" in refused(
            "train",
            work / "config.yaml",
            f"data.sources=[{{path: {tmp_path}/absent.jsonl}}]",
            f"train.out={tmp_path}/out",
            code=1,
        )

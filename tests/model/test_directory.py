"""Model directories: what cannot be written is one line, and what was there stays."""

from pathlib import Path

import pytest

from aunet.errors import AUNetError
from aunet.model.directory import save_model
from tests.model.packs import small_config, small_model
from tests.runs import files_up_to


def test_weights_for_which_the_disk_is_too_small_are_one_line(tmp_path: Path) -> None:
    model = small_model(small_config(2))
    save_model(model, tmp_path)
    weights = tmp_path / "model.safetensors"
    before = weights.read_bytes()
    with files_up_to(len(before) // 2), pytest.raises(AUNetError) as caught:
        save_model(model, tmp_path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{weights}: cannot be written (")
    assert "File too large" in line
    assert weights.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "config.json", "README.md"}

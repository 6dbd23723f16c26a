"""Model directories: what cannot be written is one line, and what was there stays."""

from pathlib import Path

import pytest

from aunet.config import AUNetConfig
from aunet.errors import AUNetError
from aunet.model.directory import model_card, save_model
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


def test_the_card_of_one_stage_names_no_units() -> None:
    card = model_card(small_config(2), {})
    assert "\n# An AU-Net with 2 stages\n\nA language model that reads raw bytes and builds its own units" in card
    assert "splitting rule `word1`.\n" in card
    mamba = AUNetConfig.model_validate({"stages": [{"dim": 16, "layers": 1, "head_dim": 8, "mixer": "mamba2"}]})
    for config, title in ((small_config(1), "A Transformer over bytes"), (mamba, "A Mamba-2 model over bytes")):
        assert f"\n# {title}\n\nA language model that reads raw bytes.\n" in model_card(config, {})

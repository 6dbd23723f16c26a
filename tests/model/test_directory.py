"""Model directories: what cannot be written is one line, and what was there stays."""

from pathlib import Path

import pytest

from aunet.config import AUNetConfig
from aunet.errors import AUNetError
from aunet.model.directory import COLUMNS, OTHER, model_card, save_model
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


def test_a_kept_card_tells_that_it_is_of_another_architecture(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    ours, deeper = small_model(small_config(2)), small_model(small_config(3))
    save_model(ours, tmp_path, {"data": "a text"})
    card.write_text(card.read_text() + "\nOur own words.\n")
    kept = card.read_text()
    for _ in range(2):
        save_model(deeper, tmp_path)
        assert card.read_text() == kept.replace(COLUMNS, OTHER + COLUMNS) != kept
    save_model(ours, tmp_path)
    assert card.read_text() == kept
    save_model(deeper, tmp_path, {})
    assert card.read_text() == model_card(deeper.config, {})
    save_model(ours, tmp_path)  # of which that table has the first rows
    assert OTHER in card.read_text()


def test_a_card_in_words_alone_is_kept_byte_for_byte(tmp_path: Path) -> None:
    words = b"Our own words, in Latin-1: \xe9\r\n"
    (tmp_path / "README.md").write_bytes(words)
    save_model(small_model(small_config(2)), tmp_path)
    assert (tmp_path / "README.md").read_bytes() == words

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from aunet.config import AUNetConfig, StageConfig
from aunet.errors import AUNetError
from aunet.language_model import LanguageModel
from aunet.report import inspection
from tests.report.passages import NASTY


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    stages = (StageConfig(dim=16, layers=1, head_dim=8), StageConfig(dim=32, layers=1, head_dim=8))
    return LanguageModel.random(AUNetConfig(splitter="word1", stages=stages), seed=0)


def _show(model: LanguageModel, data: bytes, html: Path | None = None) -> str:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    inspection.show(model, data, html, console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_passage_has_the_models_bits_and_levels(model: LanguageModel) -> None:
    data = b"two words and more"
    passage = inspection.read(model, data)
    assert passage.bits is not None
    assert np.array_equal([*passage.bits, passage.end_bits], model.bits(data))
    assert np.array_equal(passage.levels, model.splitter.levels(data))
    assert passage.bits_per_byte == pytest.approx(model.bits_per_byte(data))


@pytest.mark.parametrize("data", [b"", b"one", NASTY])
def test_any_text_is_shown(model: LanguageModel, data: bytes, tmp_path: Path) -> None:
    assert "stage 2  word1" in _show(model, data)
    path = tmp_path / "page.html"
    assert f"written: {path}" in _show(model, data, path)
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_long_texts_are_cut_and_their_end_is_not_counted(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "MOST_BYTES", 9)
    printed = _show(model, b"one two three")
    assert printed.startswith("the first 9 of 13 bytes:\n")
    assert "9 units" in printed
    assert f"{model.bits(b'one two t')[:-1].sum() / 9:.3f} bits per byte" in printed


def test_a_page_that_cannot_be_written_is_one_line(model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(AUNetError, match="--html"):
        _show(model, b"one", tmp_path / "missing" / "page.html")
    for directory in (Path(), tmp_path):
        with pytest.raises(AUNetError, match=r"--html: .* is a directory; name a file in it"):
            _show(model, b"one", directory)

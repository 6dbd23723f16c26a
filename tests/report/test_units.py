import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from rich.console import Console

from aunet.errors import AUNetError, ConfigError
from aunet.report.passage import Passage
from aunet.report.units import read_input, show_units, to_json
from aunet.splitting import splitter
from tests.report.passages import texts


def _show(data: bytes, rule: str, count: bool = False) -> str:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    show_units(data, rule, count, False, console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_units_are_shown_or_counted() -> None:
    assert "one |two |three|" in _show(b"one two three\n", "word1").replace("↵", "")
    rows = [line.split() for line in _show(b"one two three four ", "word1+word2", count=True).splitlines()]
    assert rows[1:] == [["1", "bytes", "19", "1.00"], ["2", "word1", "4", "4.75"], ["3", "word2", "2", "9.50"]]


def test_json_has_spans_or_counts(capsys: pytest.CaptureFixture[str]) -> None:
    show_units(b"one two", "word1", False, True, Console())
    expected = {"stage": 2, "rule": "word1", "units": 1, "bytes_per_unit": 7.0, "spans": [[0, 4], [4, 7]], "open": True}
    levels = [0, 0, 0, 1, 0, 0, 0]
    values = {"rule": "word1", "bytes": 7, "stages": [expected], "levels": levels}
    assert json.loads(capsys.readouterr().out) == values
    show_units(b"one two", "word1", True, True, Console())
    assert json.loads(capsys.readouterr().out).keys() == {"rule", "bytes", "stages"}


def test_the_empty_rule_has_bytes_only() -> None:
    assert to_json(Passage(b"ab", splitter("").levels(b"ab"), stages=1), "", spans=False)["stages"] == []
    assert len(_show(b"one two", "", count=True).splitlines()) == 2  # the head, and stage 1


@given(texts())
def test_spans_of_every_stage_are_all_bytes(data: bytes) -> None:
    found = splitter("word1+word2+word4")
    values = to_json(Passage(data, found.levels(data), stages=found.depth + 1), found.rule, spans=True)
    for stage in values["stages"]:
        assert b"".join(data[start:end] for start, end in stage["spans"]) == data
        assert stage["units"] == len(stage["spans"]) - stage["open"]


def test_unknown_rules_and_missing_files_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="wrod1"):
        show_units(b"", "wrod1", False, False, Console())
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(AUNetError, match=str(path)):
            read_input(str(path))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst", "a.parquet"])
def test_a_file_of_many_documents_is_no_text(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(AUNetError, match=rf"{name}: holds documents, not one text; pipe one to `aunet split -`, or"):
        read_input(str(tmp_path / name))


def test_files_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xff\r\n")
    assert read_input(str(tmp_path / "file")) == b"\xff\r\n"

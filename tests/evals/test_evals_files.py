"""Bits per byte of files."""

import gzip
import io
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from rich.console import Console

from aunet.errors import AUNetError
from aunet.evals import bpb, files
from aunet.evals.files import FileScores, score_files, table
from aunet.language_model import LanguageModel
from tests.model.packs import small_config, small_model


@cache
def model() -> LanguageModel:
    return LanguageModel(small_model(small_config(2)))


def lines(*texts: str) -> str:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


def scored(*paths: Path | str, text_field: str = "text") -> tuple[FileScores, str]:
    """The scores and what was shown on the way."""
    shown = io.StringIO()
    found = score_files(model().session(), [str(path) for path in paths], text_field, Console(file=shown, width=400))
    return found, shown.getvalue()


def test_each_file_and_all_together(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines("one two", "three"))
    (tmp_path / "b.txt").write_text("one document.\n\nwhole\n")
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(lines("packed", "naïve").encode()))
    found, _ = scored(tmp_path / "a.jsonl", tmp_path / "b.txt", tmp_path / "c.jsonl.gz")
    documents = {
        "a.jsonl": ["one two", "three"],
        "b.txt": ["one document.\n\nwhole\n"],
        "c.jsonl.gz": ["packed", "naïve"],
    }
    assert list(found.files) == [str(tmp_path / name) for name in documents]
    for name, texts in documents.items():
        of_file, direct = found.files[str(tmp_path / name)], model().score(texts)
        assert of_file.bits == pytest.approx(direct.bits)
        assert (of_file.bytes, of_file.documents) == (direct.bytes, len(texts))
    everything = [text for texts in documents.values() for text in texts]
    assert found.total.bits_per_byte == pytest.approx(model().bits_per_byte(everything))
    values = found.to_json()
    assert json.loads(json.dumps(values)) == values
    assert values["documents"] == 5
    assert set(values["files"]) == set(found.files)


def test_a_directory_and_a_glob_are_the_files_in_them(tmp_path: Path) -> None:
    for name in ("x.jsonl", "y.jsonl"):
        (tmp_path / name).write_text(lines(f"the text of {name}"))
    assert scored(tmp_path)[0] == scored(str(tmp_path / "*.jsonl"))[0]
    assert len(scored(tmp_path)[0].files) == 2


def test_a_long_text_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("some words, " * 2500)
    found, _ = scored(tmp_path / "long.txt")
    assert (found.total.documents, found.total.bytes) == (1, 30000)


def test_a_missing_field_is_counted_and_named(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    path.write_text(lines("kept") + json.dumps({"body": "x"}) + "\n" + json.dumps({"body": "y"}) + "\nnot json\n")
    found, shown = scored(path)
    assert found.total.documents == 1
    assert "2 x" in shown
    assert f"{path}:2" in shown
    assert f"{path}:4" in shown
    other, _ = scored(path, text_field="body")
    assert other.total.bytes == 2


@pytest.mark.parametrize("name", ["absent.jsonl", "empty.jsonl", "other.jsonl", "odd.xyz", "*.none"])
def test_what_cannot_be_scored_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "other.jsonl").write_text(json.dumps({"body": "x"}) + "\n")
    (tmp_path / "odd.xyz").write_text("?")
    with pytest.raises(AUNetError, match=r"\w") as caught:
        scored(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_few_documents_are_in_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    alive, most = 0, 0

    class Counted(bytes):
        def __new__(cls, *data: bytes) -> "Counted":
            nonlocal alive, most
            alive += 1
            most = max(most, alive)
            return super().__new__(cls, *data)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def documents(*_: object) -> Iterator[tuple[str, bytes]]:
        for name in ("a.jsonl", "b.jsonl"):
            for i in range(300):
                yield name, Counted(f"text {i}".encode())

    monkeypatch.setattr(files, "files_documents", documents)
    monkeypatch.setattr(bpb, "together", lambda session: 100)
    found, _ = scored("a.jsonl", "b.jsonl")
    assert [of_file.documents for of_file in found.files.values()] == [300, 300]
    assert most < 20


def test_a_path_without_a_document_is_named_before_any_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("alpha")
    monkeypatch.setattr(files, "score", None)
    with pytest.raises(AUNetError, match=r"absent\.txt: no such file"):
        scored(tmp_path / "a.txt", tmp_path / "absent.txt")


def test_the_table_has_a_total_for_several_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("alpha")
    (tmp_path / "b[bold].txt").write_text("beta")

    def rows(*names: str) -> list[str]:
        console = Console(width=300)
        with console.capture() as capture:
            console.print(table(scored(*(tmp_path / name for name in names))[0]))
        return [line.split()[0] for line in capture.get().splitlines()]

    paths = [str(tmp_path / name) for name in ("a.txt", "b[bold].txt")]
    assert rows("a.txt", "b[bold].txt") == ["file", *paths, "total"]
    assert rows("a.txt") == ["file", paths[0]]

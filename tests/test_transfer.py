"""Transfer: texts of two kinds are scored once, compared by group, and drawn."""

import json
import shutil
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import zstandard

import transfer
from aunet.errors import AUNetError
from aunet.evals.bpb import score_documents
from aunet.language_model import LanguageModel
from aunet.model.directory import save_model
from tests.model.packs import small_config, small_model

TEXTS = {"kabyle": ["Azul fell-ak.", "Tanemmirt!"], "coptic": ["ⲁⲛⲟⲕ ⲡⲉ"]}
DECLARATIONS = [
    ("English", "Latn", "All human beings"),
    ("Portuguese (Brazil)", "Latn", "Todos os seres"),
    ("Greek (polytonic)", "Grek", "Όλοι οι άνθρωποι"),
    ("German, Standard (1901)", "Latn", "Alle Menschen"),
    ("Englisch", None, "..."),
]


def compressed(path: Path, rows: list[dict[str, str | None]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(zstandard.compress(text.encode()))
    return path


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two models, all texts, a place for records and the figure; the command line without the script."""
    monkeypatch.setattr(transfer, "RECORDS", tmp_path / "records")
    for seed, name in enumerate(("ours", "theirs")):
        save_model(small_model(small_config(2), seed=seed), tmp_path / name)
    languages = [
        compressed(tmp_path / f"{name}.valid.jsonl.zst", [{"text": text} for text in texts])
        for name, texts in TEXTS.items()
    ]
    rows: list[dict[str, str | None]] = [
        {"name": name, "script": script, "text": text} for name, script, text in DECLARATIONS
    ]
    declarations = compressed(tmp_path / "all.jsonl.zst", rows)
    models = [f"{name}={tmp_path / name}" for name in ("ours", "theirs")]
    options = ["--languages", *languages, "--declarations", declarations, "--figure", tmp_path / "figure.svg"]
    return [*models, *map(str, options)]


def test_documents_are_scored_compared_and_drawn(
    tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["transfer.py", *arguments])
    monkeypatch.setenv("COLUMNS", "200")
    transfer.main()
    shown = capsys.readouterr().out
    record = json.loads((tmp_path / "records" / "ours.json").read_text())
    documents = [text.encode() for _, texts in sorted(TEXTS.items()) for text in texts]
    documents += [text.encode() for *_, text in DECLARATIONS]
    scores = score_documents(LanguageModel(small_model(small_config(2), seed=0)).session(), documents)
    latin, greek, other = "udhr, Latn", "udhr, Grek", "udhr, script not named"
    groups = ["coptic", "kabyle", "kabyle", latin, latin, greek, latin, other]
    assert [row[0] for row in record["documents"]] == groups
    assert [row[1] for row in record["documents"]] == pytest.approx([one.bits for one in scores], abs=1e-3)
    assert [row[2] for row in record["documents"]] == [len(data) for data in documents]
    bits = sum(one.bits for one in scores[1:3]) / sum(map(len, documents[1:3]))
    assert [line.split()[:4] for line in shown.splitlines() if line.startswith("kabyle")] == [
        ["kabyle", "2", str(sum(map(len, documents[1:3]))), f"{bits:.3f}"]
    ]
    names = {element.text for element in ET.parse(tmp_path / "figure.svg").iter("{http://www.w3.org/2000/svg}text")}
    assert {"coptic", "kabyle", "Latn", "Grek", "script not named"} <= names

    def fail(path: Path) -> None:
        raise AssertionError(f"{path} is loaded again")

    monkeypatch.setattr(transfer.aunet, "load", fail)
    transfer.main()
    assert capsys.readouterr().out == shown


def test_what_cannot_be_compared_is_one_line(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["transfer.py", *arguments[1:]])
    with pytest.raises(SystemExit, match="2"):
        transfer.main()
    assert "--figure: takes a FILE.svg, and two models or more to compare" in capsys.readouterr().err


def test_a_record_of_another_model_is_not_taken_for_its_own(
    tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs, *more = arguments
    monkeypatch.setattr(sys, "argv", ["transfer.py", *arguments])
    transfer.main()
    shown = capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["transfer.py", ours.replace("/ours", "/theirs"), theirs, *more])
    with pytest.raises(AUNetError, match=r"ours\.json: is of another model than .*theirs; remove it or name the model"):
        transfer.main()
    monkeypatch.setattr(sys, "argv", ["transfer.py", ours, ours, *more])
    with pytest.raises(SystemExit, match="2"):
        transfer.main()
    assert "two models have one name; name each of them otherwise" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "ours")  # its record is what is left of it
    monkeypatch.setattr(sys, "argv", ["transfer.py", *arguments])
    transfer.main()
    assert capsys.readouterr().out == shown


def test_declarations_in_languages_of_training_count_with_no_others(
    tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["transfer.py", *arguments, "--read", "English", "Portuguese", "German"])
    monkeypatch.setenv("COLUMNS", "200")
    transfer.main()
    shown = capsys.readouterr().out.splitlines()
    rows = json.loads((tmp_path / "records" / "ours.json").read_text())["documents"][-5:]
    read, greek, other = "udhr, read in training", "udhr, Grek", "udhr, script not named"
    assert [group for group, *_ in rows] == [read, read, greek, read, other]
    whole = next(line.split() for line in shown if line.startswith("udhr, all"))
    bits, size = sum(rows[i][1] for i in (2, 4)), sum(rows[i][2] for i in (2, 4))
    assert whole[2:5] == ["2", str(size), f"{bits / size:.3f}"]
    assert any(line.startswith(f"{read}  ") and line.split()[4] == "3" for line in shown)
    assert "read in training" not in (tmp_path / "figure.svg").read_text()


@pytest.mark.parametrize("read", [["English"], ["English", "Danish"]])
def test_what_was_read_is_named_alike_for_all(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, read: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["transfer.py", *arguments])
    transfer.main()
    monkeypatch.setattr(sys, "argv", ["transfer.py", *arguments, "--read", *read])
    message = "--read: .* has no declaration in Danish$" if "Danish" in read else "ours.json: is of other documents, or"
    with pytest.raises(AUNetError, match=message):
        transfer.main()


@pytest.mark.parametrize("other", [[["kabyle", 9.0, 4]], [["coptic", 9.0, 4], ["kabyle", 9.0, 4]]])
def test_records_of_other_documents_are_not_compared(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, other: list[list[str | float]]
) -> None:
    monkeypatch.setattr(sys, "argv", ["transfer.py", *arguments])
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "theirs.json").write_text(json.dumps({"name": "theirs", "documents": other}))
    with pytest.raises(AUNetError, match=r"theirs\.json: is of other documents, or of another --read; remove it or"):
        transfer.main()


@pytest.mark.parametrize("content", ["", "[1]", '{"documents": [["kabyle", 9.0]]}'])
def test_a_record_that_is_none_is_named(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["transfer.py", *arguments])
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "ours.json").write_text(content)
    with pytest.raises(AUNetError, match=r"ours.json: no record of this script; remove it$"):
        transfer.main()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory"),
        (b"plain", "not JSON lines of name, script, text under zstd"),
        (zstandard.compress(b'{"text": "a"}'), "not JSON lines of name, script, text under zstd"),
        (zstandard.compress(b"[1]"), "not JSON lines of name, script, text under zstd"),
    ],
)
def test_declarations_that_cannot_be_read_are_named(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, message: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["transfer.py", *arguments])
    (tmp_path / "all.jsonl.zst").unlink()
    if content is not None:
        (tmp_path / "all.jsonl.zst").write_bytes(content)
    with pytest.raises(AUNetError, match=f"--declarations: .*all.jsonl.zst: {message}$"):
        transfer.main()


def test_intervals_are_over_languages_where_there_are_several() -> None:
    texts = (
        ("kabyle", 10.0, 4),
        ("kabyle", 11.0, 5),
        ("coptic", 9.0, 3),
        ("udhr, Latn", 7.0, 2),
        ("udhr, Grek", 8.0, 2),
    )
    rows = [transfer.Found(*text) for text in texts]
    drawn = {group: transfer.drawn_of(rows, chosen) for group, chosen in transfer.grouped(rows).items()}
    assert drawn["kabyle"] == [(10.0, 4), (11.0, 5)]
    assert drawn["all languages"] == [(21.0, 9), (9.0, 3)]
    assert drawn["udhr, all"] == [(7.0, 2), (8.0, 2)]


def test_languages_count_for_their_family_and_script() -> None:
    assert transfer.groups_of("ojibwa") == ("ojibwa", "family: Algonquian", "script: Cans", "all languages")
    assert transfer.groups_of("basque") == ("basque", "family: basque", "script: Latn", "all languages")
    assert transfer.groups_of("udhr, Grek") == ("udhr, Grek", "udhr, all")
    languages = [language for family in transfer.FAMILIES.values() for language in family]
    assert len(languages) == len(set(languages))
    assert set(transfer.SCRIPTS) <= set(languages)

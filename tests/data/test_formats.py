"""Documents of every format, each at its position."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import SUFFIXES, encoded, error_of, read, sentences, write
from hypothesis import given
from hypothesis import strategies as st

from aunet.config import SourceConfig
from aunet.data import Problems, files_documents
from aunet.data.formats import FORMATS
from aunet.data.sources import plan_source


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
def test_documents_of_every_format(tmp_path, suffix):
    texts = sentences(50)
    path = write(tmp_path / f"some{suffix}", texts)
    assert read(path) == encoded(texts)
    upper = path.rename(tmp_path / f"OTHER{suffix.upper()}")
    assert read(upper) == encoded(texts)


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
def test_every_position_goes_on_after_its_document(tmp_path, suffix):
    texts = sentences(30)
    path = write(tmp_path / f"some{suffix}", texts)
    plan = plan_source(SourceConfig(path=str(path)), 1, Problems())
    for block in plan.lanes[0]:
        found = list(FORMATS[block.format].read(block, 0, "text", Problems()))
        for k, (position, _) in enumerate(found):
            assert list(FORMATS[block.format].read(block, position, "text", Problems())) == found[k + 1 :]


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
def test_text_field(tmp_path, suffix):
    path = write(tmp_path / f"some{suffix}", ["a", "b"], field="content")
    assert read(path, text_field="content") == [b"a", b"b"]


def test_a_txt_file_is_a_document(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"two\nlines \xff\n")
    assert read(tmp_path / "a.txt") == [b"two\nlines \xff\n"]


def test_bytes_in_parquet_are_taken_as_they_are(tmp_path):
    pq.write_table(pa.table({"text": pa.array([b"\xff\x00", b"b"])}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [b"\xff\x00", b"b"]


@pytest.mark.parametrize("shared", [False, True])
def test_strings_in_parquet_that_are_not_utf8_are_their_bytes(tmp_path, shared):
    strings = pa.array([b"a", b"caf\xe9", "é".encode()]).view(pa.string())
    table = pa.table({"text": strings.dictionary_encode() if shared else strings})
    pq.write_table(table, tmp_path / "a.parquet")
    problems = Problems()
    assert read(tmp_path / "a.parquet", problems) == [b"a", b"caf\xe9", "é".encode()]
    assert not problems


def test_lone_surrogates_in_json(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a\\ud800"}\n')
    assert read(tmp_path / "a.jsonl") == ["a\ufffd".encode()]


def test_lines_without_a_last_end_and_blank_lines(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\r\n\n  \n{"text": "b"}')
    problems = Problems()
    assert read(tmp_path / "a.jsonl", problems) == [b"a", b"b"]
    assert not problems


@pytest.mark.parametrize("lines", [True, False])
def test_a_large_txt_file_is_a_run_of_documents(tmp_path, lines):
    text = ("é" * 50 + ("\n" if lines else "")) * 30_000
    path = write(tmp_path / "a.txt", [text])
    found = read(path)
    assert b"".join(found) == text.encode()
    assert len(found) == 3
    assert all(abs(len(document) - (1 << 20)) < 200 for document in found[:2])
    assert all(document.decode() for document in found), "never cut inside a character"
    if lines:
        assert all(document.endswith(b"\n") for document in found)
    assert list(files_documents([path])) == [(str(path), text.encode())]
    assert len(plan_source(SourceConfig(path=str(path)), 8, Problems()).lanes) == 3


def test_text_cuts_agree_however_long_the_lines_are(tmp_path):
    # Lines that end just around the nominal cuts, and lines longer than a document.
    mib = 1 << 20
    for lengths in ([mib - 1, mib, 5], [mib, 10], [mib + 1, 10], [2 * mib, 3], [3 * mib + 7, mib], [10, 4 * mib]):
        text = b"".join(b"x" * (length - 1) + b"\n" for length in lengths)
        (tmp_path / "a.txt").write_bytes(text)
        assert b"".join(read(tmp_path / "a.txt")) == text


@given(st.lists(st.text(max_size=30), min_size=1, max_size=30), st.integers(1, 200))
def test_blocks_of_lines_hold_every_line_once(tmp_path_factory, texts, step):
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    path.write_text(
        "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), "utf-8", "replace"
    )
    problems = Problems()
    size = path.stat().st_size
    blocks = FORMATS["lines"].blocks(str(path), size, step, "text", problems)
    found = [text for block in blocks for _, text in FORMATS["lines"].read(block, 0, "text", problems)]
    assert found == [text.encode("utf-8", "replace") for text in texts if text]
    held = [FORMATS["lines"].held(block) for block in blocks]
    assert sum(held) == size
    if all(texts):
        any_inside = [any(FORMATS["lines"].read(block, 0, "text", problems)) for block in blocks]
        assert [size > 0 for size in held] == any_inside


# Hugging Face datasets


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_hub_datasets(tmp_path, suffix):
    texts = sentences(40)
    write(tmp_path / f"train-0{suffix}", texts[:25])
    write(tmp_path / f"train-1{suffix}", texts[25:])
    write(tmp_path / f"test-0{suffix}", ["other"])
    assert read(f"hf:{tmp_path}") == encoded(texts)
    assert read(f"hf:{tmp_path}@test") == [b"other"]
    plan = plan_source(SourceConfig(path=f"hf:{tmp_path}"), 8, Problems())
    assert len(plan.lanes) == 2
    (block,) = plan.lanes[0]
    assert [text for _, text in FORMATS["hf"].read(block, 20, "text", Problems())] == encoded(texts[20:25])


def test_hub_datasets_that_are_not_there(tmp_path):
    write(tmp_path / "train-0.jsonl", ["a"])
    message = error_of(f"hf:{tmp_path}@nosuch")
    assert message.startswith(f"hf:{tmp_path}@nosuch: ")
    assert "nosuch" in message.removeprefix(f"hf:{tmp_path}@nosuch")
    assert error_of(f"hf:{tmp_path}/absent").startswith(f"hf:{tmp_path}/absent: ")
    assert "the row has the keys: 'text', 'n'; set text_field" in error_of(f"hf:{tmp_path}", text_field="body")

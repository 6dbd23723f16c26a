"""Lines and files that cannot be read as they are: counted, or refused in one line."""

import codecs
import gzip
import io
import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from corpora import SUFFIXES, encoded, error_of, read, sentences, write

from aunet.data import Problems, sources
from aunet.data.lines import gzip_chunks, zstd_chunks
from aunet.errors import MissingExtra

BAD_LINES = {
    "malformed JSON": (
        '{"text": "b',
        "not valid JSON (Unterminated string starting at: column 10), expected one object per line",
    ),
    "not an object": ("[1, 2]", "a JSON list, expected an object with the key 'text'"),
    "no text field": (
        '{"id": 1, "content": "b"}',
        "text_field is 'text', the line has the keys: 'id', 'content'; set text_field",
    ),
    "text is not a string": ('{"text": null}', "'text' is null, expected a string"),
    "empty document": ('{"text": ""}', "'text' is empty"),
}


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
@pytest.mark.parametrize("kind", BAD_LINES)
def test_bad_lines_are_counted_or_refused(tmp_path, kind, suffix):
    line, what = BAD_LINES[kind]
    compress = {".jsonl": bytes, ".jsonl.gz": gzip.compress, ".jsonl.zst": zstandard.ZstdCompressor().compress}[suffix]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(compress(f'{{"text": "a"}}\n{line}\n{{"text": "c"}}\n{line}\n'.encode()))
    problems = Problems()
    assert read(path, problems) == [b"a", b"c"]
    assert problems.lines() == [f"skipped 2 x {kind}, first {path}:2: {what}"]
    path.write_bytes(compress(f"{line}\n{line}\n".encode()))
    assert error_of(path) == f"{path}: no usable document; first problem: {path}:1: {what}"


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b'{"text": "\xff"}', "not UTF-8"),
        (b"[" * 100_000, "maximum recursion depth exceeded"),
        (b'{"text": ' + b"9" * 5000 + b"}", "Exceeds the limit (4300 digits) for integer string conversion"),
    ],
)
def test_odd_json(tmp_path, line, what):
    path = tmp_path / "a.jsonl"
    path.write_bytes(line + b"\n" + b'{"text": "b"}\n')
    problems = Problems()
    assert read(path, problems) == [b"b"]
    assert problems.counts == {"malformed JSON": 1}
    assert problems.first["malformed JSON"].startswith(f"{path}:1: {what}")


def test_line_numbers_in_the_middle_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SMALLEST_BLOCK", 100)
    path = write(tmp_path / "a.jsonl", sentences(200))
    lines = path.read_text().splitlines()
    lines[150] = "{"
    path.write_text("\n".join(lines))
    problems = Problems()
    assert len(read(path, problems)) == 199
    assert problems.first["malformed JSON"].startswith(f"{path}:151: ")


def test_what_keys_hold_does_not_reach_the_terminal(tmp_path):
    keys = {"a\nb": 1, "\x1b[31mred\x07": 1, "k" * 100_000: 1, "größe": 1}
    (tmp_path / "a.jsonl").write_text(json.dumps(keys) + "\n")
    shown = r"'a\nb', '\x1b[31mred\x07', " + f"'{'k' * 60}...', 'größe'"
    assert f"the line has the keys: {shown}; set" in error_of(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.txt", codecs.BOM_UTF8, "nothing but a byte order mark"),
        ("a.jsonl", b" \n\r\n", "nothing but blank lines"),
        ("a.jsonl.gz", gzip.compress(b"\n\n"), "nothing but blank lines"),
        ("a.jsonl.zst", zstandard.compress(b"  \n"), "nothing but blank lines"),
    ],
)
def test_files_with_nothing_in_them_are_empty(tmp_path, name, content, what):
    path = tmp_path / name
    path.write_bytes(content)
    assert error_of(path) == f"{path}: no usable document; first problem: {path}: {what}"
    write(tmp_path / "b.txt", ["text"])
    problems = Problems()
    assert read(tmp_path, problems) == [b"text"]
    assert problems.first == {"empty file": f"{path}: {what}"}


def test_a_source_without_text_and_without_a_problem_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SMALLEST_BLOCK", 10)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n" * 25)
    assert error_of(path) == f"{path}: no usable document; there is no text in it"


def test_empty_files(tmp_path):
    for suffix in SUFFIXES:
        (tmp_path / f"empty{suffix}").touch()
    (tmp_path / "hollow.jsonl.gz").write_bytes(gzip.compress(b""))
    write(tmp_path / "z.txt", ["text"])
    problems = Problems()
    assert read(tmp_path, problems) == [b"text"]
    assert problems.counts == {"empty file": 6}
    path = tmp_path / "empty.jsonl"
    assert error_of(path) == f"{path}: no usable document; first problem: {path}: empty file"


@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_binary_files(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"ELF\0" * 1_000_000)
    write(tmp_path / "b.txt", ["text"])
    problems = Problems()
    assert read(tmp_path, problems) == [b"text"]
    what = f"{path}: binary file (a NUL byte in its first 8192 bytes)"
    assert problems.lines() == [f"skipped 1 x binary file, first {what}"]
    assert error_of(path) == f"{path}: no usable document; first problem: {what}"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_utf_16_is_named_also_where_no_byte_is_nul(tmp_path, suffix, encoding):
    path = tmp_path / f"a{suffix}"
    mark = codecs.BOM_UTF16_BE if encoding.endswith("be") else b""
    path.write_bytes(mark + "\u4e2d\u6587\u5b57".encode(encoding) * (1 if encoding == "utf-32" else 3))
    what = f"{path}: UTF-16 text; convert it to UTF-8, as with iconv"
    assert error_of(path) == f"{path}: no usable document; first problem: {what}"


def test_text_in_another_encoding_is_read_and_told(tmp_path):
    texts = {"latin.txt": "dé".encode("latin-1"), "marked.txt": codecs.BOM_UTF8 + b"marked", "utf8.txt": "dé".encode()}
    for name, data in texts.items():
        (tmp_path / name).write_bytes(data)
    problems = Problems()
    assert read(tmp_path, problems) == [b"d\xe9", b"marked", "dé".encode()]
    what = f"{tmp_path / 'latin.txt'}: convert it, as with iconv, to learn its characters"
    assert problems.lines() == [f"read 1 x text that is not UTF-8, as it is, first {what}"]


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
def test_truncated_files_are_read_up_to_the_cut(tmp_path, suffix):
    texts = sentences(3000)
    path = write(tmp_path / f"a{suffix}", texts)
    path.write_bytes(path.read_bytes()[:-100])
    problems = Problems()
    found = read(path, problems)
    assert encoded(texts)[: len(found)] == found
    assert len(found) > 500
    name = {".jsonl.gz": "gzip", ".jsonl.zst": "zstd"}[suffix]
    assert problems.counts == {"corrupt file": 1}
    assert problems.first["corrupt file"] == f"{path}:{len(found) + 1}: truncated {name} file; read up to here"


@pytest.mark.parametrize(
    ("chunks", "compress"),
    [(gzip_chunks, gzip.compress), (zstd_chunks, zstandard.ZstdCompressor(level=19).compress)],
)
def test_what_is_decompressed_at_a_time_has_a_limit(chunks, compress):
    lines = b'{"text": "aaaa"}\n' * 4_000_000
    compressed = compress(lines)
    assert len(compressed) < len(lines) / 200
    sizes = [len(chunk) for chunk in chunks(io.BytesIO(compressed))]
    assert sum(sizes) == len(lines)
    assert max(sizes) <= 16 << 20


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst", ".parquet"])
def test_files_that_are_not_what_their_name_says(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"plain text, no more\n" * 10)
    message = error_of(path)
    assert message.startswith(f"{path}: no usable document; first problem: {path}")
    assert {".jsonl.gz": "corrupt gzip", ".jsonl.zst": "corrupt zstd", ".parquet": "not a readable parquet"}[
        suffix
    ] in message


def test_corrupt_parquet_pages(tmp_path):
    texts = sentences(2000)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": texts}), path, row_group_size=1000, compression="gzip", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[2000:2400] = bytes(400)
    path.write_bytes(bytes(data))
    problems = Problems()
    found = read(path, problems)
    assert found[-1000:] == encoded(texts)[1000:], "the other row group is read"
    assert problems.counts == {"corrupt file": 1}
    assert problems.first["corrupt file"].startswith(f"{path}:")


@pytest.mark.parametrize("place", ["_sample", "_columns"])
def test_a_parquet_file_is_not_corrupt_because_memory_is_short(tmp_path, monkeypatch, place):
    def short(*_):
        raise pa.lib.ArrowMemoryError("malloc of size 4294967296 failed")

    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", "b"]}), path)
    monkeypatch.setattr(f"aunet.data.tables.{place}", short)
    with pytest.raises(MemoryError, match="malloc of size"):
        read(path)


def test_parquet_without_the_column_or_with_other_types(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": [1], "body": ["b"]}), path)
    assert error_of(path) == (
        f"{path}: no usable document; first problem: {path}: "
        "text_field is 'text', the file has the columns: 'id', 'body'; set text_field"
    )
    assert error_of(path, text_field="id").endswith(f"{path}:1: 'id' is int, expected a string")
    pq.write_table(pa.table({"text": ["a", None, "", "d"]}), path, row_group_size=2)
    problems = Problems()
    assert read(path, problems) == [b"a", b"d"]
    assert problems.first == {
        "text is not a string": f"{path}:2: 'text' is null, expected a string",
        "empty document": f"{path}:3: 'text' is empty",
    }


@pytest.mark.parametrize(
    ("suffix", "module", "feature"),
    [(".jsonl.zst", "zstandard", "reading .zst files"), (".parquet", "pyarrow", "reading .parquet files")],
)
def test_missing_packages_are_named(tmp_path, monkeypatch, suffix, module, feature):
    path = write(tmp_path / f"a{suffix}", ["text"])
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra) as error:
        read(path)
    assert str(error.value) == f"{feature} needs the package {module!r}: pip install 'aunet[data]'"

import codecs
import gzip
import io
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from corpora import SUFFIXES, sentences, write
from hypothesis import given
from hypothesis import strategies as st

from aunet.config import DataConfig, SourceConfig
from aunet.data import Problems, documents, files_documents, sources, tables, valid_documents
from aunet.data.blocks import Block
from aunet.data.formats import FORMATS
from aunet.data.lines import gzip_chunks, zstd_chunks
from aunet.data.sources import deal, find_files, plan_source
from aunet.errors import AUNetError, MissingExtra

KNOWN = ".txt, .jsonl, .jsonl.gz, .jsonl.zst, .parquet"


def read(path, problems=None, **keys):
    return list(documents(SourceConfig(path=str(path), **keys), problems))


def error_of(path, **keys):
    with pytest.raises(AUNetError) as error:
        read(path, **keys)
    assert "\n" not in str(error.value)
    return str(error.value)


def encoded(texts):
    return [text.encode() for text in texts]


# Formats


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


# Files, globs, directories


def test_directories_are_walked_in_order(tmp_path):
    for i, name in enumerate(["b/c.txt", "a.txt", "b/a/z.jsonl", "b/b.parquet"]):
        write(tmp_path / name, [str(i)])
    (tmp_path / ".hidden").mkdir()
    write(tmp_path / ".hidden" / "x.txt", ["no"])
    write(tmp_path / ".x.txt", ["no"])
    (tmp_path / "README.md").write_text("no")
    problems = Problems()
    assert read(tmp_path, problems) == [b"1", b"2", b"3", b"0"]
    assert problems.lines() == [
        f"skipped 1 x unknown kind of file, first {tmp_path}/README.md: unknown kind of file; known: {KNOWN}"
    ]


def test_a_link_to_a_directory_is_told(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    write(tmp_path / "b" / "x.txt", ["b"])
    (tmp_path / "a" / "more").symlink_to(tmp_path / "b")
    assert error_of(tmp_path / "a").endswith("; link to a directory is not followed")
    write(tmp_path / "a" / "y.txt", ["a"])
    problems = Problems()
    assert read(tmp_path / "a", problems) == [b"a"]
    (line,) = problems.lines()
    assert f"{tmp_path / 'a' / 'more'}: leads to {tmp_path / 'b'}" in line


def test_globs(tmp_path):
    for name in ["x/1.txt", "x/y/2.txt", "x/y/3.jsonl", "4.txt"]:
        write(tmp_path / name, [name])
    assert read(tmp_path / "*.txt") == [b"4.txt"]
    assert read(tmp_path / "**" / "*.txt") == [b"4.txt", b"x/1.txt", b"x/y/2.txt"]
    assert read(tmp_path / "x" / "y" / "[23].*") == [b"x/y/2.txt", b"x/y/3.jsonl"]


@pytest.mark.parametrize("pattern", [".", "*"])
def test_pipes_and_links_that_lead_nowhere_are_counted(tmp_path, pattern):
    write(tmp_path / "a.txt", ["text"])
    os.mkfifo(tmp_path / "b.txt")
    (tmp_path / "c.txt").symlink_to("nowhere")
    (tmp_path / "d").mkdir()
    problems = Problems()
    assert read(tmp_path / pattern, problems) == [b"text"]
    assert problems.lines() == [
        f"skipped 2 x not a file, first {tmp_path}/b.txt: neither a file nor a directory",
    ]
    assert error_of(tmp_path / "b.txt") == f"{tmp_path}/b.txt: neither a file nor a directory"
    (tmp_path / "b.txt").unlink()
    (tmp_path / "a.txt").unlink()
    problems = Problems()
    with pytest.raises(AUNetError):
        read(tmp_path / pattern, problems)
    with pytest.raises(AUNetError):
        find_files(str(tmp_path / pattern), problems)
    assert problems.first == {"not a file": f"{tmp_path}/c.txt: leads to nowhere, which is not there"}


@pytest.mark.parametrize("pattern", ["**/*.txt", "*/*.txt"])
def test_what_several_links_lead_to_is_read_once(tmp_path, pattern):
    write(tmp_path / "a" / "x.txt", ["text"])
    (tmp_path / "a" / "y.txt").symlink_to("x.txt")
    (tmp_path / "b").symlink_to("a")
    problems = Problems()
    assert read(tmp_path / pattern, problems) == [b"text"]
    first = f"first {tmp_path}/a/y.txt: is {tmp_path}/a/x.txt, which is read once"
    assert problems.lines() == [f"skipped 3 x repeated file, {first}"]
    (tmp_path / "a" / "itself").symlink_to(".")
    assert read(tmp_path / pattern) == [b"text"]


def test_a_name_that_looks_like_a_glob(tmp_path):
    assert read(write(tmp_path / "a[1].txt", ["text"])) == [b"text"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.txt", "{}: no such file or directory"),
        ("*.txt", f"{{}}: matches no file of a known kind ({KNOWN})"),
        ("empty", f"{{}}: holds no file of a known kind ({KNOWN})"),
        ("notes.md", f"{{}}: unknown kind of file; known: {KNOWN}, hf:NAME"),
    ],
)
def test_paths_that_mean_nothing(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.md").write_text("text")
    assert error_of(tmp_path / name) == message.format(tmp_path / name)


def test_paths_that_cannot_be_looked_at_are_one_line():
    assert "File name too long" in error_of("a" * 5000)
    assert error_of("").startswith("the path of a source is empty; ")
    assert error_of("~nobody-of-this-name/a.txt").startswith("~nobody-of-this-name/a.txt: ")


def test_a_file_without_permission():
    with tempfile.TemporaryDirectory() as name:  # unlike tmp_path, other users may be let in
        directory = Path(name)
        directory.chmod(0o755)
        path = write(directory / "a.txt", ["text"])
        path.chmod(0)
        root = os.geteuid() == 0
        if root:  # who may read everything
            os.seteuid(65534)
        try:
            assert error_of(path) == f"{path}: Permission denied"
        finally:
            if root:
                os.seteuid(0)


def test_files_are_sorted(tmp_path):
    for name in ["10.txt", "9.txt", "a/1.txt"]:
        write(tmp_path / name, ["x"])
    assert find_files(str(tmp_path), Problems()) == [str(tmp_path / name) for name in ["10.txt", "9.txt", "a/1.txt"]]


# Bad input

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


# Lanes of a source


@given(st.lists(st.integers(1, 100), min_size=1, max_size=40), st.integers(1, 9))
def test_dealing_is_balanced_and_complete(sizes, lanes):
    blocks = [Block("text", "a", i, i + 1, size, 0) for i, size in enumerate(sizes)]
    dealt = deal(blocks, lanes)
    assert len(dealt) == min(lanes, len(blocks))
    assert sorted(block for lane in dealt for block in lane) == sorted(blocks)
    weights = [sum(block.size for block in lane) for lane in dealt]
    assert max(weights) - min(weights) <= max(sizes)
    assert all(list(lane) == sorted(lane, key=lambda block: block.start) for lane in dealt)


def test_lanes_without_documents_are_left_out(tmp_path):
    write(tmp_path / "a.txt", ["text"])
    (tmp_path / "b.jsonl").write_text("{\n" * 3)
    (tmp_path / "c.txt").write_bytes(b"\0\0")
    problems = Problems()
    plan = plan_source(SourceConfig(path=str(tmp_path)), 8, problems)
    assert [block.path for lane in plan.lanes for block in lane] == [str(tmp_path / "a.txt")]
    assert problems.counts == {"malformed JSON": 3, "binary file": 1}


def test_sizes_are_those_of_the_text(tmp_path):
    texts = ["word " * 1000] * 100
    plans = {
        suffix: plan_source(SourceConfig(path=str(write(tmp_path / f"a{suffix}", texts))), 4, Problems())
        for suffix in SUFFIXES
    }
    assert plans[".txt"].size == 500_000
    for suffix in SUFFIXES[1:4]:
        assert plans[suffix].size == pytest.approx(plans[".jsonl"].size, rel=0.01)


def plan_of_table(path, columns, field="text", **options):
    pq.write_table(pa.table(columns), path, **options)
    return plan_source(SourceConfig(path=str(path), text_field=field), 4, Problems())


def test_text_that_comes_again_in_parquet_counts_each_time(tmp_path):
    """The file holds it once, in a dictionary."""
    texts = [str(i % 5) * 1000 for i in range(400)]
    for shared in (texts, pa.array(texts).dictionary_encode(), [text.encode() for text in texts]):
        plan = plan_of_table(tmp_path / "a.parquet", {"text": shared}, row_group_size=100)
        assert plan.size == pytest.approx(400_000)
        assert plan.lane_sizes == pytest.approx((100_000,) * 4)


def test_a_large_row_group_is_sampled(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "SAMPLE", 1000)
    plan = plan_of_table(tmp_path / "a.parquet", {"text": ["word " * 20] * 2000})
    assert plan.size == pytest.approx(200_000)


def test_files_with_and_without_repetition_have_one_size_together(tmp_path):
    draw = np.random.default_rng(0)
    for i in range(4):
        text = [draw.bytes(500).hex() if i else "x" * 1000 for _ in range(200)]
        pq.write_table(pa.table({"text": text}), tmp_path / f"{i}.parquet")
    assert plan_source(SourceConfig(path=str(tmp_path)), 4, Problems()).size == pytest.approx(800_000, rel=0.02)


def test_names_of_columns_may_hold_dots_and_begin_alike(tmp_path):
    columns = {"id": [1] * 50, "meta.text": ["a" * 100] * 50, "meta": ["b" * 30] * 50}
    for field, letter, size in (("meta.text", b"a", 100), ("meta", b"b", 30)):
        assert plan_of_table(tmp_path / "a.parquet", columns, field).size == pytest.approx(50 * size)
        assert read(tmp_path / "a.parquet", text_field=field) == [letter * size] * 50


def test_lanes_are_as_large_as_what_starts_in_them(tmp_path, monkeypatch):
    """Else lanes of long documents would be read once while those of short ones come again."""
    monkeypatch.setattr(sources, "SMALLEST_BLOCK", 4096)
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": "x" * 7 ** (i % 6)}) + "\n" for i in range(200)))
    plan = plan_source(SourceConfig(path=str(path)), 4, Problems())
    frame = len('{"text": ""}\n')
    for blocks, size in zip(plan.lanes, plan.lane_sizes, strict=True):
        found = [FORMATS["lines"].read(block, 0, "text", Problems()) for block in blocks]
        assert size == sum(frame + len(document) for reading in found for _, document in reading)
    assert plan.size == path.stat().st_size


def test_the_digest_tells_files_and_sizes(tmp_path):
    write(tmp_path / "a.txt", ["text"])

    def digest():
        return plan_source(SourceConfig(path=str(tmp_path)), 4, Problems()).digest

    before = digest()
    assert digest() == before
    write(tmp_path / "a.txt", ["other text"])
    assert digest() != before
    write(tmp_path / "a.txt", ["text"])
    write(tmp_path / "b.txt", ["text"])
    assert digest() != before


# Whole files, and held-out text


def test_files_for_scoring(tmp_path):
    one, two = write(tmp_path / "one.txt", ["text\nof one"]), write(tmp_path / "two.jsonl", ["a", "b"])
    assert list(files_documents([two, str(one)])) == [(str(two), b"a"), (str(two), b"b"), (str(one), b"text\nof one")]
    assert len(list(files_documents([two, one, tmp_path, tmp_path / "t*.jsonl"]))) == 3, "each file once"
    with pytest.raises(AUNetError, match=r"no such file"):
        list(files_documents([one, tmp_path / "absent.txt"]))
    (tmp_path / "three.txt").write_bytes(b"\0")
    with pytest.raises(AUNetError, match=r"three.txt: no usable document; first problem: .*binary file"):
        list(files_documents([one, tmp_path / "three.txt"]))


def test_held_out_documents_up_to_a_limit(tmp_path):
    a = write(tmp_path / "a.jsonl", ["a" * 10] * 20)
    b = write(tmp_path / "b.jsonl", ["b" * 25, "B" * 5])
    config = DataConfig(valid=(SourceConfig(path=str(a)), SourceConfig(path=str(b))), valid_bytes=100)
    found = valid_documents(config)
    assert sum(map(len, found)) == 100
    assert found == valid_documents(config)
    assert found[:5] == [b"a" * 10, b"b" * 25, b"a" * 10, b"a" * 10, b"B" * 5]
    assert valid_documents(DataConfig()) == []
    everything = valid_documents(config.model_copy(update={"valid_bytes": 10**9}))
    assert len(everything) == 22


def test_problems_of_held_out_text_are_counted(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{\n' * 5)
    problems = Problems()
    config = DataConfig(valid=(SourceConfig(path=str(tmp_path / "a.jsonl")),), valid_bytes=3)
    assert valid_documents(config, problems) == [b"a"] * 3
    assert problems.counts == {"malformed JSON": 2}

"""Lanes of a source and their sizes, files that are scored, and held-out text."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import SUFFIXES, read, write
from hypothesis import given
from hypothesis import strategies as st

from aunet.config import DataConfig, SourceConfig
from aunet.data import Problems, files_documents, sources, tables, valid_documents
from aunet.data.blocks import Block
from aunet.data.formats import FORMATS
from aunet.data.sources import deal, plan_source
from aunet.errors import AUNetError

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

import json
from itertools import islice

import pytest
from corpora import Residues, pieces, same, sentences, write
from hypothesis import given, settings
from hypothesis import strategies as st

from aunet.config import DataConfig, SourceConfig
from aunet.data import Loader, sources
from aunet.errors import AUNetError, ConfigError
from aunet.splitting import splitter

RULE = Residues()


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(sources, "SMALLEST_BLOCK", 1000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Documents of all kinds of lengths, in all formats, some of them bad."""
    root = tmp_path_factory.mktemp("corpus")
    for i, suffix in enumerate([".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"]):
        write(root / "mixed" / f"{i}{suffix}", sentences(30, words=20, seed=i))
    write(root / "long.txt", [" ".join(sentences(20, words=20, seed=9))])
    with (root / "mixed" / "0.jsonl").open("a") as file:
        file.write('{"text": 3}\n{\n')
    return root


def config(folder, **values):
    mixed, long = SourceConfig(path=str(folder / "mixed")), SourceConfig(path=str(folder / "long.txt"))
    defaults = {"seq_len": 128, "lanes": 4, "shuffle_documents": 16, "workers": 0, "prefetch": 3}
    return DataConfig(sources=(mixed, long), **{**defaults, **values})


def take(loader, n):
    """n rows, with the state after each as it would come out of a checkpoint."""
    return [(row, json.loads(json.dumps(state))) for row, state in islice(loader, n)]


@pytest.fixture(scope="module")
def uninterrupted(folder):
    """More than two epochs, read in this process."""
    patch = pytest.MonkeyPatch()
    patch.setattr(sources, "SMALLEST_BLOCK", 1000)
    with patch.context(), Loader(config(folder), RULE) as loader:
        found = take(loader, 500)
        assert min(loader.epochs) >= 2
    patch.undo()
    return found


@pytest.mark.parametrize("workers", [0, 1, 2, 3, 16])
def test_the_sequence_does_not_depend_on_workers(folder, uninterrupted, workers):
    with Loader(config(folder, workers=workers), RULE) as loader:
        found = take(loader, 300)
    for (row, state), (expected, expected_state) in zip(found, uninterrupted[:300], strict=True):
        assert same(row, expected)
        assert state == expected_state


@settings(max_examples=20)
@given(k=st.integers(0, 439))
def test_resumed_equals_uninterrupted_anywhere(folder, uninterrupted, k):
    with pytest.MonkeyPatch.context() as patch:  # hypothesis has no fixture per example
        patch.setattr(sources, "SMALLEST_BLOCK", 1000)
        with Loader(config(folder), RULE) as loader:
            loader.load_state_dict(uninterrupted[k][1])
            assert loader.state_dict() == uninterrupted[k][1]
            for expected, expected_state in uninterrupted[k + 1 : k + 60]:
                assert same(loader.next_row(), expected)
                assert loader.state_dict() == expected_state


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0), (1, 3), (3, 1), (2, 2)])
def test_resumed_with_other_workers(folder, uninterrupted, before, after):
    with Loader(config(folder, workers=before), RULE) as loader:
        state = take(loader, 77)[-1][1]
    with Loader(config(folder, workers=after, prefetch=1), RULE) as loader:
        loader.load_state_dict(state)
        rows = loader.next_rows(60)
    assert all(same(row, expected) for row, (expected, _) in zip(rows, uninterrupted[77:], strict=False))


def test_the_states_cover_the_difficult_places(uninterrupted):
    lanes = [lane for _, state in uninterrupted for source in state["lanes"] for lane in source]
    assert any(cut for *_, cut in lanes), "inside a document"
    assert any(doc for *_, doc, _ in lanes), "inside a window"
    assert any(epoch and not (block or position or doc) for _, epoch, block, position, doc, _ in lanes), "a new epoch"


def test_a_loader_goes_back_and_goes_on_after_close(folder, uninterrupted):
    with Loader(config(folder, workers=1), RULE) as loader:
        take(loader, 20)
        loader.load_state_dict(uninterrupted[9][1])
        assert same(loader.next_row(), uninterrupted[10][0])
        loader.close()
        assert same(loader.next_row(), uninterrupted[11][0])


def test_an_epoch_holds_every_document(folder, uninterrupted):
    expected = sorted(text.encode() for i in range(4) for text in sentences(30, words=20, seed=i))
    with Loader(config(folder).model_copy(update={"sources": config(folder).sources[:1], "lanes": 1}), RULE) as loader:
        read, part = [], b""
        while len(read) < 2 * len(expected):
            for text, _, last in pieces(loader.next_row()):
                part += text
                if last:
                    read.append(part)
                    part = b""
    assert sorted(read[:120]) == sorted(read[120:240]) == expected


def test_the_state_is_small(uninterrupted):
    assert len(json.dumps(uninterrupted[-1][1])) < 3000


# Mixing


def rows_by_source(loader, n):
    before = [0] * len(loader.plans)
    take(loader, n)
    after = [sum(lane[0] for lane in source) for source in loader.state_dict()["lanes"]]
    return [b - a for a, b in zip(before, after, strict=True)]


def test_rows_follow_the_weights(folder):
    mixed, long = config(folder).sources
    weighted = (mixed.model_copy(update={"weight": 1}), long.model_copy(update={"weight": 3}))
    with Loader(config(folder).model_copy(update={"sources": weighted}), RULE) as loader:
        assert rows_by_source(loader, 100) == [25, 75]


def test_rows_follow_the_sizes(folder):
    with Loader(config(folder), RULE) as loader:
        sizes = [plan.size for plan in loader.plans]
        assert loader.shares == pytest.approx([size / sum(sizes) for size in sizes])
        counts = rows_by_source(loader, 200)
        assert counts == pytest.approx([200 * share for share in loader.shares], abs=1)
    with Loader(config(folder, temperature=1e6), RULE) as loader:
        assert rows_by_source(loader, 100) == [50, 50]


def test_the_seed_changes_the_rows(folder, uninterrupted):
    with Loader(config(folder, seed=1), RULE) as loader:
        assert not all(
            same(row, expected) for row, (expected, _) in zip(loader.next_rows(20), uninterrupted, strict=False)
        )


# Problems


@pytest.mark.parametrize("workers", [0, 2])
def test_problems_reach_the_main_process_once(folder, workers):
    with Loader(config(folder, workers=workers), RULE) as loader:
        take(loader, 400)
        assert min(loader.epochs) >= 1
        assert loader.problems.counts == {"text is not a string": 1, "malformed JSON": 1}
        path = folder / "mixed" / "0.jsonl"
        assert loader.problems.first["text is not a string"] == f"{path}:31: 'text' is int, expected a string"
        state = loader.state_dict()
    with Loader(config(folder, workers=workers), RULE) as loader:
        loader.load_state_dict(state)
        take(loader, 10)
        assert loader.problems.counts == {"text is not a string": 1, "malformed JSON": 1}


def test_problems_are_the_same_wherever_a_run_was_interrupted(folder):
    with Loader(config(folder), RULE) as loader:
        for _ in range(250):
            take(loader, 1)
            state = loader.state_dict()
            loader.close()
            loader.load_state_dict(state)
        assert loader.problems.counts == {"text is not a string": 1, "malformed JSON": 1}


def test_files_that_were_left_out_are_counted(tmp_path):
    write(tmp_path / "a.txt", ["some text"])
    (tmp_path / "b.txt").touch()
    (tmp_path / "c.pdf").touch()
    with Loader(
        config(tmp_path, workers=0).model_copy(update={"sources": (SourceConfig(path=str(tmp_path)),)}), RULE
    ) as loader:
        assert loader.problems.counts == {"unknown kind of file": 1, "empty file": 1}


def test_nothing_to_read():
    with pytest.raises(ConfigError) as error:
        Loader(DataConfig(), RULE)
    assert str(error.value) == "data.sources: nothing to read; give at least one source with a path"


def test_a_source_without_documents_is_refused_at_once(folder, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"body": "x"}\n')
    bad = (*config(folder).sources, SourceConfig(path=str(tmp_path / "a.jsonl")))
    with pytest.raises(AUNetError) as error:
        Loader(config(folder).model_copy(update={"sources": bad}), RULE)
    assert str(error.value) == (
        f"{tmp_path}/a.jsonl: no usable document; first problem: {tmp_path}/a.jsonl:1: "
        "text_field is 'text', the line has the keys: 'body'; set text_field"
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_changes_or_vanishes_while_it_is_read(tmp_path, workers):
    path = write(tmp_path / "a.jsonl", sentences(30))
    values = config(tmp_path, workers=workers).model_copy(update={"sources": (SourceConfig(path=str(path)),)})
    size = path.stat().st_size
    with Loader(values, RULE) as loader:
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(AUNetError) as error:
            take(loader, 1000)
        assert str(error.value) == (
            f"{path}: changed while it was being read: had {size} bytes, has {size - 10}; put it back and run "
            "the same command again"
        )
    write(path, sentences(30))
    with Loader(values, RULE) as loader:
        path.unlink()
        with pytest.raises(AUNetError) as error:
            take(loader, 1000)
        assert str(error.value) == f"{path}: No such file or directory"


# Resuming with something else


@pytest.mark.parametrize(
    ("key", "now", "then"),
    [("seed", 1, 0), ("seq_len", 64, 128), ("lanes", 2, 4), ("shuffle_documents", 9, 16), ("temperature", 2.0, None)],
)
def test_another_setting_is_refused(folder, uninterrupted, key, now, then):
    with Loader(config(folder, **{key: now}), RULE) as loader, pytest.raises(AUNetError) as error:
        loader.load_state_dict(uninterrupted[0][1])
    assert str(error.value) == (
        f"cannot resume: data.{key} is {json.dumps(now)}, in the checkpoint it is {json.dumps(then)}; "
        "restore it or start a new run"
    )


def test_another_splitter_version_or_source_is_refused(folder, uninterrupted, tmp_path):
    state = uninterrupted[0][1]
    with (
        Loader(config(folder), Residues(rule="other")) as loader,
        pytest.raises(AUNetError, match=r"model\.splitter is"),
    ):
        loader.load_state_dict(state)
    one = config(folder).model_copy(update={"sources": config(folder).sources[:1]})
    with Loader(one, RULE) as loader, pytest.raises(AUNetError, match=r"data\.sources has fewer entries"):
        loader.load_state_dict(state)
    with Loader(config(folder), RULE) as loader, pytest.raises(AUNetError, match="version 99, known: 1"):
        loader.load_state_dict({**state, "version": 99})


def test_files_that_changed_are_named(tmp_path):
    path = write(tmp_path / "a.jsonl", sentences(30))
    values = config(tmp_path).model_copy(update={"sources": (SourceConfig(path=str(path)),)})
    with Loader(values, RULE) as loader:
        state = loader.state_dict()
    write(path, sentences(31))
    with Loader(values, RULE) as loader, pytest.raises(AUNetError) as error:
        loader.load_state_dict(state)
    assert str(error.value).startswith('cannot resume: data.sources.0 is "1 files of ')


# Real text


def test_real_novels(shared):
    path = shared("data/novels-en") / "valid.jsonl.zst"
    values = DataConfig(sources=(SourceConfig(path=str(path)),), seq_len=2048, workers=1)
    rule = splitter("word1+word2")
    with Loader(values, rule) as loader:
        found = loader.next_rows(200)
        assert loader.problems.counts == {}
    read = sum(row.bytes for row in found)
    assert read / 200 > 0.75 * 2048, "rows are well filled"
    assert 4 < read / sum(row.counts[1] for row in found) < 7, "bytes per word"
    texts = [pieces(row) for row in found]
    starts = [first for row in texts for _, first, _ in row]
    assert 0 < sum(starts) < len(starts), "whole documents and pieces"
    cuts = [text for row in texts for text, first, _ in row if not first]
    assert sum(text[:1].isspace() or not text[:1].isalpha() for text in cuts) > 0.95 * len(cuts), "cut where words end"

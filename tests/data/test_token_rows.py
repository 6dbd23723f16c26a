"""Rows of tokens: exact bytes over cuts, the same rows from any state and any kind of worker."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aunet.config import DataConfig, SourceConfig
from aunet.data import Loader, Row, collate
from aunet.data.text import read
from aunet.errors import AUNetError
from aunet.splitting import splitter
from aunet.vocabulary import Tokens
from tests.vocabulary.bpe import TEXTS, tokens, trained

WORDS = tokens()
SEQ_LEN = 12


def documents(seed: int = 0) -> list[str]:
    draw = np.random.default_rng(seed)
    words = ["the ", "river ", "東京", " naïve", "\n\n", "1234567 ", "x", "🙂", "house "]
    texts = ["".join(words[j] for j in draw.integers(len(words), size=draw.integers(1, 40))) for _ in range(60)]
    return [f"{i} {text}" for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    path = tmp_path_factory.mktemp("data") / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents()))
    sources = (SourceConfig(path=str(path)),)
    return DataConfig(sources=sources, seq_len=SEQ_LEN, lanes=2, workers=0, shuffle_documents=7)


def loader(config: DataConfig, words: Tokens = WORDS, **more: str) -> Loader:
    return Loader(config, splitter(""), vocabulary=words, **more)


def same(a: Row, b: Row) -> bool:
    arrays = ("ids", "targets", "levels", "starts")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in arrays) and a.bytes == b.bytes


def test_every_document_comes_whole_with_exact_bytes(config: DataConfig) -> None:
    found, part, expected = [], b"", b""
    with loader(config.model_copy(update={"lanes": 1})) as rows:
        while not rows.epochs[0]:
            row = rows.next_row()
            assert row.units <= SEQ_LEN
            assert row.counts == (len(row.ids),)
            assert row.units == len(row.ids) - (row.ids == WORDS.bos).sum()
            for start, stop in itertools.pairwise(row.starts):
                ids, targets = row.ids[start:stop], row.targets[start:stop]
                assert (ids[0] == WORDS.bos) == (not part), "a document goes on where it was cut"
                assert (targets[:-1] == ids[1:]).all()
                if part and ids[0] != WORDS.bos:
                    assert WORDS.decode(ids).startswith(expected), "the position before a cut predicts what is behind"
                part += WORDS.decode(ids)
                expected = WORDS.decode(targets[-1:])
                if targets[-1] == WORDS.eos:
                    found.append(part.decode())
                    part = b""
            assert row.bytes == len(WORDS.decode(row.ids))
    assert sorted(found) == sorted(documents())


def test_the_bytes_of_an_epoch_are_those_of_its_documents(config: DataConfig) -> None:
    with loader(config.model_copy(update={"lanes": 1, "shuffle_documents": 100})) as rows:
        total, batch = 0, []
        while not rows.epochs[0]:
            batch.append(rows.next_row())
            total += batch[-1].bytes
    assert total == sum(len(text.encode()) for text in documents())
    whole = collate(batch)
    assert (whole.bytes, whole.units) == (total, sum(row.units for row in batch))
    assert whole.units == sum(len(WORDS.encode(text.encode())) for text in documents())
    assert int(whole.ids.max()) == WORDS.bos
    assert int(whole.targets.max()) == WORDS.eos


@settings(max_examples=15, deadline=None)
@given(taken=st.integers(0, 60))
def test_rows_go_on_from_any_state(config: DataConfig, taken: int) -> None:
    with loader(config) as rows, loader(config) as resumed:
        rows.next_rows(taken)
        resumed.load_state_dict(json.loads(json.dumps(rows.state_dict())))
        assert all(same(a, b) for a, b in zip(rows.next_rows(25), resumed.next_rows(25), strict=True))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_any_kind_give_the_same_rows(config: DataConfig, method: str) -> None:
    with loader(config) as here, loader(config.model_copy(update={"workers": 2}), start_method=method) as there:
        assert all(same(a, b) for a, b in zip(here.next_rows(40), there.next_rows(40), strict=True))


def test_another_tokenizer_is_refused(config: DataConfig) -> None:
    other = Tokens(trained(300), "other.json")
    with loader(config) as rows, loader(config, other) as others, Loader(config, splitter("")) as plain:
        state = rows.state_dict()
        for wrong in (others, plain):
            with pytest.raises(AUNetError, match=r"cannot resume: model\.tokenizer|data.sources has fewer"):
                wrong.load_state_dict(state)


def test_a_document_that_its_tokenizer_would_change_ends_the_run(config: DataConfig) -> None:
    values = json.loads(trained())
    values["normalizer"] = {"type": "Replace", "pattern": {"String": "river 東京"}, "content": "x"}
    words = Tokens(json.dumps(values), "t.json")
    for workers in (0, 1):
        with (
            loader(config.model_copy(update={"workers": workers}), words) as rows,
            pytest.raises(AUNetError, match=r"^t\.json: does not give back exactly the document that starts with b'"),
        ):
            rows.next_rows(300)


def test_levels_of_tokens_are_all_0() -> None:
    text = read(TEXTS[0].encode(), splitter(""), WORDS)
    assert len(text.levels) == len(text.ids)
    assert not text.levels.any()

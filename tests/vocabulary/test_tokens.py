"""Tokens give back every byte string, and what does not is refused in one line."""

import json
import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from aunet.config import AUNetConfig
from aunet.errors import AUNetError, ConfigError
from aunet.vocabulary import BYTES, Tokens, Vocabulary, vocabulary
from aunet.vocabulary.tokens import stretches, tokenizer_size
from tests.vocabulary.bpe import TEXTS, token_config, tokenizer_file, tokens, trained

texts = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=40).map(str.encode),
    st.lists(st.sampled_from([b"the ", b"\xff", "東京".encode(), b"\xe6\x9d", b" 1234", b"\r\n", b"\xed\xa0\x80"])).map(
        b"".join
    ),
)


@given(texts)
@pytest.mark.parametrize("words", [BYTES, tokens()], ids=["bytes", "tokens"])
def test_any_bytes_come_back_with_their_lengths(words: Vocabulary, data: bytes) -> None:
    ids = words.encode(data)
    assert words.decode(ids) == data
    assert words.lengths(ids).sum() == len(data)
    assert [len(words.decode([i])) for i in ids] == words.lengths(ids).tolist()
    assert ids.dtype in (np.uint8, np.int32)
    assert not np.isin(ids, [words.bos, words.eos]).any()


@pytest.mark.parametrize("words", [BYTES, tokens()], ids=["bytes", "tokens"])
def test_the_marks_are_the_last_two_ids_and_stand_for_nothing(words: Vocabulary) -> None:
    assert (words.bos, words.eos) == (words.size - 2, words.size - 1)
    assert words.decode([words.bos, words.eos]) == b""
    assert words.lengths([words.bos, words.eos]).tolist() == [0, 0]


def test_tokens_are_fewer_than_bytes() -> None:
    data = TEXTS[0].encode()
    assert len(tokens().encode(data)) < len(data) / 2


@given(texts)
def test_stretches_are_the_whole_text(data: bytes) -> None:
    parts = list(stretches(data))
    assert b"".join(part.encode() if isinstance(part, str) else part for part in parts) == data
    assert all(isinstance(a, str) != isinstance(b, str) for a, b in pairwise(parts))


@given(texts)
def test_words_that_are_looked_up_are_those_of_the_library(data: bytes) -> None:
    library = Tokenizer.from_str(trained())
    text = data.decode(errors="replace")
    assert tokens().encode(text.encode()).tolist() == library.encode(text).ids


SPLIT = {"type": "Split", "behavior": "Isolated", "invert": False}
LETTERS = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


@pytest.mark.parametrize(
    "cuts",
    [
        [{**LETTERS, "use_regex": True}],  # as GPT-2 does
        [{**SPLIT, "pattern": {"Regex": "[a-z]+"}}, LETTERS],  # leaves parts out
        [{**SPLIT, "pattern": {"Regex": "(a|b)|[^ab]+"}}, LETTERS],  # has a group
        [{**SPLIT, "pattern": {"String": " "}}, LETTERS],
        [{**SPLIT, "pattern": {"Regex": "\\s+|\\S+"}, "behavior": "MergedWithNext"}, LETTERS],
    ],
)
def test_other_ways_to_cut_are_those_of_the_library(cuts: list[dict[str, Any]]) -> None:
    text = changed(pre_tokenizer={"type": "Sequence", "pretokenizers": cuts})
    words, library = Tokens(text, "t.json"), Tokenizer.from_str(text)
    for data in TEXTS:
        assert words.encode(data.encode()).tolist() == library.encode(data).ids


def test_a_process_that_is_spawned_has_the_same_tokens() -> None:
    copy = pickle.loads(pickle.dumps(tokens()))
    assert (copy.size, copy.digest) == (tokens().size, tokens().digest)
    assert copy.encode(b"the house").tolist() == tokens().encode(b"the house").tolist()


def test_a_text_that_spells_an_added_token_is_a_text() -> None:
    values = json.loads(trained())
    values["added_tokens"] = [{"id": 320, "content": "<|end|>", "special": True, "normalized": False}]
    words = Tokens(json.dumps(values), "t.json")
    assert words.size == 323
    ids = words.encode(b"the <|end|>")
    assert 320 not in ids
    assert words.decode(ids) == b"the <|end|>"
    assert words.decode([320]) == b"<|end|>"


def test_dropout_truncation_and_templates_of_a_file_are_left_out() -> None:
    values = json.loads(trained())
    values["model"]["dropout"] = 0.9
    values["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    values["padding"] = {
        "strategy": {"Fixed": 50},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "a",
    }
    data = TEXTS[0].encode()
    assert Tokens(json.dumps(values), "t.json").encode(data).tolist() == tokens().encode(data).tolist()


def changed(**keys: Any) -> str:
    return json.dumps({**json.loads(trained()), **keys})


def with_model(**keys: Any) -> str:
    return changed(model={**json.loads(trained())["model"], **keys})


def without_a_byte() -> str:
    values = json.loads(trained(256, ["a"]))
    vocab = values["model"]["vocab"]
    vocab["xyz"] = vocab.pop("z")
    return json.dumps(values)


PREFIX = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (changed(normalizer={"type": "Lowercase"}), "comes back as"),
        (changed(normalizer={"type": "NFC"}), "comes back as"),
        (changed(normalizer={"type": "NFKC"}), "comes back as"),
        (changed(normalizer={"type": "Strip", "strip_left": True, "strip_right": True}), "comes back as"),
        (changed(pre_tokenizer=PREFIX), "comes back as"),
        (changed(pre_tokenizer={"type": "Whitespace"}), "comes back as"),
        (without_a_byte(), "1 of the 256 bytes have no token"),
        (changed(model={"type": "Unigram", "vocab": [["a", 0.0]]}), "of the kind Unigram"),
        (changed(model={"type": "BPE", "vocab": {"a": 0, "b": 2}, "merges": []}), "ids are not 0 to 1"),
        (changed(model={"type": "BPE", "vocab": {"": 0}, "merges": []}), "stands for nothing"),
        (changed(pre_tokenizer={"type": "Nonsense"}), "cannot be read by tokenizers"),
        (changed(normalizer={"type": "Precompiled", "precompiled_charsmap": ""}), "cannot be read by tokenizers"),
        (changed(normalizer={"type": "Prepend", "prepend": ""}), "cannot be read by tokenizers"),
        (changed(pre_tokenizer={"type": "FixedLength", "length": 0}), "tokenizers (chunk size must be non-zero)"),
        ("{}", "not a tokenizer.json"),
        ("[]", "not a tokenizer.json"),
        ("no JSON", "not a tokenizer.json"),
        ('{"model": {"vocab": 3}}', "kind BPE"),
        (changed(model={"type": "BPE", "vocab": {"a": 0, "b": "1"}, "merges": []}), "ids are not 0 to 1"),
        (changed(model={"type": "BPE", "vocab": {"a": 0, "b": True}, "merges": []}), "ids are not 0 to 1"),
        (changed(model={"type": "BPE", "vocab": {"a": [0]}, "merges": []}), "not a tokenizer.json"),
        (changed(added_tokens=[{"id": None, "content": "a"}]), "ids are not 0 to 320"),
        (changed(added_tokens=[{"id": 320, "content": 5}]), "not a tokenizer.json"),
        (changed(added_tokens=[{"id": 320, "content": "\ud800"}]), "not a tokenizer.json"),
        (changed(added_tokens=5), "not a tokenizer.json"),
        (with_model(continuing_subword_prefix="ByteLevel"), "has a continuing_subword_prefix"),
        ("[" * 100_000, "not a tokenizer.json"),
    ],
)
def test_what_does_not_give_bytes_back_is_refused_in_one_line(text: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Tokens(text, "t.json")
    assert str(caught.value).startswith("t.json: ")
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_document_that_would_change_is_named() -> None:
    # No probe holds this pair, so the file is taken and the document is refused.
    replace = {"type": "Replace", "pattern": {"String": "qzj"}, "content": "q"}
    words = Tokens(changed(normalizer=replace), "t.json")
    assert words.decode(words.encode(b"qz j")) == b"qz j"
    with pytest.raises(AUNetError, match=r"t\.json: .*document that starts with b'a qzj") as caught:
        words.encode(b"a qzj" + b" more" * 50)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_the_vocabulary_of_a_model(tmp_path: Path) -> None:
    assert vocabulary(token_config()).digest == tokens().digest
    assert vocabulary(AUNetConfig.model_validate({"stages": [{"dim": 8, "layers": 1, "head_dim": 8}]})) is BYTES
    assert tokenizer_size(tokenizer_file()) == 320
    with pytest.raises(ConfigError, match=r"model\.vocab_size: is 300, but .* has 320 tokens, .* set it to 322$"):
        vocabulary(token_config(vocab_size=300))
    with pytest.raises(ConfigError, match=r"cannot be read .*name a tokenizer"):
        vocabulary(token_config(tokenizer=str(tmp_path / "none.json")))

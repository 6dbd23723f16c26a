"""Any bytes come back as they were, and no text can spell a document mark."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from aunet.bytes import BOS, EOS
from aunet.errors import AUNetError
from aunet.hf import AUNetTokenizer

PAD = 258
TOKENIZER = AUNetTokenizer()


@given(st.binary(max_size=40))
def test_any_bytes_come_back(data: bytes) -> None:
    ids = TOKENIZER.encode_bytes(data)
    assert ids == [BOS, *data] == TOKENIZER(data)["input_ids"]
    assert TOKENIZER.decode_bytes(ids) == data
    escaped = TOKENIZER.decode(ids, skip_special_tokens=True, errors="surrogateescape")
    assert escaped == data.decode(errors="surrogateescape")
    assert TOKENIZER(escaped)["input_ids"] == ids
    assert TOKENIZER.convert_tokens_to_ids(TOKENIZER.convert_ids_to_tokens(ids)) == ids


@given(st.text(max_size=40))
def test_any_text_comes_back(text: str) -> None:
    ids = TOKENIZER(text)["input_ids"]
    assert ids == [BOS, *text.encode()]
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == text
    assert TOKENIZER.convert_tokens_to_string(TOKENIZER.tokenize(text)) == text


def test_what_cannot_be_printed_is_shown_as_a_replacement() -> None:
    assert TOKENIZER.decode(list(b"a\xff\xc3")) == "a\ufffd\ufffd"
    assert TOKENIZER.decode([ord("a")]) == "a"
    assert TOKENIZER.decode(97) == "a"
    assert TOKENIZER.decode([]) == ""
    assert TOKENIZER.decode([[97], [98]]) == ["a", "b"]
    exact = AUNetTokenizer(errors="surrogateescape")
    assert exact.decode(list(b"a\xff")) == "a\udcff"
    # Lone surrogates that stand for no byte.
    assert TOKENIZER("\ud800")["input_ids"] == [BOS, *"\ufffd".encode()]


@pytest.mark.parametrize("mark", ["<|bos|>", "<|eos|>", "<|pad|>"])
def test_no_text_spells_a_mark(mark: str) -> None:
    text = f"a{mark} b"
    assert TOKENIZER(text)["input_ids"] == [BOS, *text.encode()]
    assert TOKENIZER.decode(list(text.encode()), skip_special_tokens=True) == text


def test_marks_are_shown_or_left_out() -> None:
    ids = [PAD, BOS, 97, EOS]
    assert TOKENIZER.decode(ids) == "<|pad|><|bos|>a<|eos|>"
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == "a"
    assert (TOKENIZER.bos_token_id, TOKENIZER.eos_token_id, TOKENIZER.pad_token_id) == (BOS, EOS, PAD)
    assert len(TOKENIZER) == 259
    assert sorted(TOKENIZER.get_vocab().values()) == list(range(259))
    assert {TOKENIZER.convert_ids_to_tokens(i): i for i in range(259)} == TOKENIZER.get_vocab()


def test_batches_are_padded_on_the_left() -> None:
    batch = TOKENIZER(["abc", b"\xff", ""], padding=True, return_tensors="pt")
    assert batch["input_ids"].tolist() == [[BOS, 97, 98, 99], [PAD, PAD, BOS, 255], [PAD, PAD, PAD, BOS]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]]
    right = TOKENIZER(["abc", ""], padding=True, padding_side="right")
    assert right["input_ids"] == [[BOS, 97, 98, 99], [BOS, PAD, PAD, PAD]]


def test_a_whole_text_can_be_closed_and_a_cut_one_has_not_ended() -> None:
    texts = ["abc", "abcdef", ""]
    closed = TOKENIZER(texts, add_eos=True, truncation=True, max_length=5)["input_ids"]
    assert closed == [[BOS, *b"abc", EOS], [BOS, *b"abcd"], [BOS, EOS]]
    assert TOKENIZER("abc", add_special_tokens=False)["input_ids"] == list(b"abc")
    assert TOKENIZER("a", "b")["input_ids"] == [BOS, 97, BOS, 98]
    assert TOKENIZER.encode("ab", add_eos=True) == [BOS, 97, 98, EOS]
    assert TOKENIZER([[1, 2], [3]])["input_ids"] == [[BOS, 1, 2], [BOS, 3]]


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    AUNetTokenizer(errors="surrogateescape", padding_side="right").save_pretrained(tmp_path)
    loaded = AUNetTokenizer.from_pretrained(tmp_path)
    assert (loaded.errors, loaded.padding_side) == ("surrogateescape", "right")
    assert loaded("é<|eos|>")["input_ids"] == TOKENIZER("é<|eos|>")["input_ids"]
    assert (loaded.pad_token_id, len(loaded)) == (PAD, 259)


def test_a_model_directory_needs_no_files_of_a_tokenizer(trained: Path) -> None:
    assert not list(trained.glob("*token*"))
    tokenizer = AutoTokenizer.from_pretrained(trained)
    assert isinstance(tokenizer, AUNetTokenizer)
    assert tokenizer("a")["input_ids"] == [BOS, 97]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: TOKENIZER.decode([259]), "token_ids"),
        (lambda: TOKENIZER.decode([-1]), "token_ids"),
        (lambda: TOKENIZER.decode_bytes([1, 300]), "token_ids"),
        (lambda: TOKENIZER.decode_bytes([[1], [2]]), "token_ids"),
        (lambda: TOKENIZER.decode_bytes([0.5]), "token_ids"),
        (lambda: TOKENIZER.convert_ids_to_tokens([259]), "token_ids"),
        (lambda: TOKENIZER.decode([97], errors="nonsense"), "errors"),
        (lambda: AUNetTokenizer(errors="nonsense"), "errors"),
        (lambda: TOKENIZER.add_tokens(["new"]), "add_tokens"),
        (lambda: TOKENIZER.add_special_tokens({"extra_special_tokens": ["<new>"]}), "add_tokens"),
        (lambda: TOKENIZER.add_special_tokens({"pad_token": "[PAD]"}), "add_tokens"),
        (lambda: setattr(TOKENIZER, "pad_token", "[PAD]"), "add_tokens"),
        (lambda: setattr(TOKENIZER, "mask_token", "<mask>"), "add_tokens"),
    ],
)
def test_bad_input_is_one_line(wrong: Any, message: str) -> None:
    with pytest.raises(AUNetError, match=f"^{message}") as caught:
        wrong()
    assert "\n" not in str(caught.value)
    assert TOKENIZER.all_special_ids == [BOS, EOS, PAD]  # nothing of it is kept


def test_other_marks_may_pad() -> None:
    """What scripts for other models do."""
    tokenizer = AUNetTokenizer()
    assert tokenizer.add_special_tokens({"pad_token": "<|pad|>"}) == 0
    tokenizer.pad_token = tokenizer.eos_token
    assert tokenizer(["a", "bc"], padding=True)["input_ids"][0] == [EOS, BOS, ord("a")]

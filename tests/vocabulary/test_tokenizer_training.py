"""What a tokenizer learns, and that it always learns the same."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from aunet.errors import AUNetError, ConfigError
from aunet.tokenizer import train_file
from aunet.vocabulary import Tokens
from aunet.vocabulary.training import train_tokenizer
from tests.vocabulary.bpe import TEXTS, tokens, trained


def pieces(text: str, words: Tokens) -> list[str]:
    return [words.decode([i]).decode() for i in words.encode(text.encode())]


def test_tokens_cross_no_word_and_no_group_of_digits() -> None:
    line = "of the 1234567 people, we'll (see) them. \n\n  So: they've नमस्ते!\n"
    words = Tokens(train_tokenizer([line.encode()] * 50, 1000), "t.json")
    expected = ["of", " the", " ", "123", "456", "7", " people", ",", " we", "'ll", " (", "see", ")", " them", "."]
    assert pieces(line, words) == [*expected, " \n\n", " ", " So", ":", " they", "'ve", " नमस्ते", "!\n"]


def test_the_size_counts_the_tokens_of_the_file() -> None:
    for size in (256, 300, 320):
        assert len(json.loads(trained(size))["model"]["vocab"]) == size
    assert len(json.loads(trained(100_000))["model"]["vocab"]) < 1000  # no pair is left that repeats
    with pytest.raises(ConfigError, match="--vocab-size: 255 is below 256"):
        trained(255)
    with pytest.raises(ConfigError, match="--vocab-size: 16777215 is above 16777214"):
        trained((1 << 24) - 1)


def test_where_it_cannot_be_written_no_text_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out, line in (
        (tmp_path, "is a directory; name a file"),
        (tmp_path / "file" / "t.json", "cannot be written to"),
        (tmp_path / "file", "is there, and models may be of its tokens; remove it"),
    ):
        with pytest.raises(AUNetError, match=f"--out: .* {line}"):
            train_file([str(tmp_path / "absent.txt")], 300, out, "text", None, Console())


def test_a_text_with_too_few_pairs_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the the the")
    found = train_file([str(tmp_path / "a.txt")], 4096, tmp_path / "t.json", "text", None, Console())
    assert (found.asked, found.to_json()["asked"]) == (4096, 4096)
    assert f"{found.tokens} tokens (4,096 were asked for; no more pairs repeat) from 1 documents" in found.line()
    exact = train_file([str(tmp_path / "a.txt")], found.tokens, tmp_path / "u.json", "text", None, Console())
    assert f"{found.tokens} tokens from 1 documents" in exact.line()


def test_other_processes_learn_the_same(tmp_path: Path) -> None:
    program = f"""
from aunet.vocabulary.training import train_tokenizer
print(train_tokenizer([text.encode() for text in {TEXTS!r} for _ in range(3)], 320), end="")
"""
    for threads in ("1", "4"):
        found = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, env={"RAYON_NUM_THREADS": threads, **_environment()}
        )
        assert found.stdout.decode() == trained()


def _environment() -> dict[str, str]:
    return {"PYTHONPATH": ":".join(sys.path), "PYTHONIOENCODING": "utf-8"}


def test_bytes_that_are_not_utf_8_do_no_harm() -> None:
    words = Tokens(train_tokenizer([b"the \xff the \xff the " * 9], 400), "t.json")
    assert words.decode(words.encode(b"the \xff the")) == b"the \xff the"
    assert [len(words.decode([i])) for i in words.encode(b"\xff")] == [1]


def test_it_is_a_tokenizer_of_the_library() -> None:
    from tokenizers import Tokenizer

    theirs = Tokenizer.from_str(trained())
    for text in TEXTS:
        found = theirs.encode(text)
        assert found.ids == tokens().encode(text.encode()).tolist()
        assert theirs.decode(found.ids) == text

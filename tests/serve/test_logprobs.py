"""Names of bytes and places of characters."""

import pytest

from aunet.infer.request import ByteScore
from aunet.serve.logprobs import TextFormat, chat_format


def scores(data: bytes) -> list[ByteScore]:
    return [ByteScore(byte, -1.0, ((byte, -1.0), (257, float("-inf")))) for byte in data]


@pytest.mark.parametrize(
    "data", ["aé漢😀z".encode(), b"\xff\xfe", b"a\xe6\xbcz", b"\xe6\xe6\xe6\xbc\xa2", b"\xf0\x9f\x98"]
)
def test_offsets_are_those_of_the_decoded_text(data: bytes) -> None:
    """The character at the offset of a byte is the byte itself, or what the byte is a part of."""
    text = data.decode(errors="replace")
    offsets = TextFormat().push(scores(data)).text_offset
    for byte, offset in zip(data, offsets, strict=True):
        assert (text[offset] == chr(byte)) if byte < 128 else not text[offset].isascii()
    assert sorted(set(offsets)) == list(range(len(text)))


def test_pieces_count_on() -> None:
    data = "né漢".encode()
    format = TextFormat()
    pieces = [offset for byte in data for offset in format.push(scores(bytes([byte]))).text_offset]
    assert pieces == TextFormat().push(scores(data)).text_offset


@pytest.mark.parametrize("data", [b"", "né".encode(), b"a\xe6\xbc"])
def test_the_end_stands_behind_the_text(data: bytes) -> None:
    end = ByteScore(257, -2.0, ())
    found = TextFormat().push([*scores(data), end])
    assert (found.tokens[-1], found.token_logprobs[-1]) == ("<eos>", -2.0)
    assert found.text_offset[-1] == len(data.decode(errors="replace"))
    assert len(chat_format([*scores(data), end]).content) == len(data)


def test_json_has_no_infinity() -> None:
    assert TextFormat().push(scores(b"a")).top_logprobs == [{"a": -1.0, "<eos>": -9999.0}]
    (one,) = chat_format(scores(b"\xe9")).content
    assert (one.token, one.bytes) == ("bytes:\\xe9", [0xE9])
    assert (one.top_logprobs[1].token, one.top_logprobs[1].bytes, one.top_logprobs[1].logprob) == (
        "<eos>",
        None,
        -9999.0,
    )

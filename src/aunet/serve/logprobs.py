"""Log-probabilities in OpenAI's two formats. A token is a byte."""

import codecs
from collections.abc import Sequence

from aunet.bytes import BOS, EOS
from aunet.infer.request import ByteScore
from aunet.serve.schemas import ChatLogprobs, Logprobs, TokenLogprob, TopLogprob

LEAST = -9999.0
"""JSON has no infinity; this is what OpenAI gives for impossible tokens."""
MARKS = {BOS: "<bos>", EOS: "<eos>"}
"""What opens and closes a document."""


def token(byte_id: int) -> str:
    """The name of a byte: its character if that is ASCII.

    >>> token(65), token(0xE2), token(257)
    ('A', 'bytes:\\\\xe2', '<eos>')
    """
    if byte_id < 128:
        return chr(byte_id)
    return MARKS.get(byte_id, f"bytes:\\x{byte_id:02x}")


def chat_format(scores: Sequence[ByteScore]) -> ChatLogprobs:
    """As chat completions have it: nothing of the end."""
    return ChatLogprobs(
        content=[
            TokenLogprob(
                token=token(score.id),
                bytes=_bytes(score.id),
                logprob=_finite(score.logprob),
                top_logprobs=[
                    TopLogprob(token=token(i), bytes=_bytes(i), logprob=_finite(logprob)) for i, logprob in score.top
                ],
            )
            for score in scores
            if score.id != EOS
        ]
    )


class TextFormat:
    """As completions have it; counts the characters of one choice from its beginning."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._characters = 0

    def push(self, scores: Sequence[ByteScore]) -> Logprobs:
        """The next bytes, and the end where it was drawn: who reads scores by their number finds one for each draw."""
        return Logprobs(
            tokens=[token(score.id) for score in scores],
            token_logprobs=[_finite(score.logprob) for score in scores],
            top_logprobs=[{token(i): _finite(logprob) for i, logprob in score.top} for score in scores],
            text_offset=[self._offset(score.id) for score in scores],
        )

    def _offset(self, byte_id: int) -> int:
        """Where the character of this byte begins; for EOS, the end of the text."""
        if byte_id == EOS:
            return self._characters + len(self._decoder.decode(b"", final=True))
        self._characters += len(self._decoder.decode(bytes([byte_id])))
        incomplete = bool(self._decoder.getstate()[0])
        return self._characters if incomplete else self._characters - 1


def _bytes(byte_id: int) -> list[int] | None:
    return [byte_id] if byte_id < BOS else None


def _finite(logprob: float) -> float:
    return max(logprob, LEAST)

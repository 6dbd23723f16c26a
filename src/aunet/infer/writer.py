"""One sequence that is written: when it ends, and what can be given out."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from aunet.bytes import Utf8Stream
from aunet.infer.request import ByteScore, Event, Request
from aunet.vocabulary import BYTES, Vocabulary

Logits = npt.NDArray[np.float32]
"""Scores of the next id, [V]."""


class Writer:
    """Draws the ids of one request, decides when it ends, holds back what is not certain."""

    def __init__(self, index: int, request: Request, vocabulary: Vocabulary = BYTES) -> None:
        self.index, self.request, self.left = index, request, request.max_bytes
        self.vocabulary = vocabulary
        self.prompt = vocabulary.encode(request.prompt).tolist()
        """Its ids."""
        self.generator = request.sampling.generator()
        self.utf8 = Utf8Stream()
        self.held = b""
        """New bytes that may still turn out to begin a stop string."""
        self.scores: list[ByteScore] = []
        """Of the held bytes and the newest id."""

    def echo(self, scores: Sequence[ByteScore] = ()) -> Event:
        """The prompt itself."""
        return Event(self.index, self._decode(self.request.prompt), self.request.prompt, None, tuple(scores))

    def choose(self, logits_V: Logits) -> int:
        """The next id; EOS when no byte is left to give."""
        if not self.left:
            return self.vocabulary.eos
        chosen = self.request.sampling.draw(logits_V, self.generator)
        if self.request.alternatives is not None:
            self.scores.append(score_of(logits_V, chosen, self.request.alternatives))
        return chosen

    def take(self, chosen: int) -> Event:
        """What can be given out after this id; a token is cut where the text ends inside it."""
        if chosen == self.vocabulary.eos:
            return self._end("eos" if self.left else "length", self.held)
        for byte in self.vocabulary.decode([chosen]):
            self.left -= 1
            self.held += bytes([byte])
            # Of stop strings that end together, the longest: no part of it is given out, in whatever order they are.
            if stopped := max((len(stop) for stop in self.request.stop if self.held.endswith(stop)), default=0):
                return self._end("stop", self.held[:-stopped])
            if not self.left:
                return self._end("length", self.held)
        keep = max((_overlap(self.held, stop) for stop in self.request.stop), default=0)
        count = len(self.held) - keep
        ready, self.held = self.held[:count], self.held[count:]
        scores, self.scores = self.scores[:count], self.scores[count:]
        return Event(self.index, self._decode(ready), ready, None, tuple(scores))

    def _end(self, finish: str, data: bytes) -> Event:
        scores = tuple(self.scores if finish == "eos" else self.scores[: len(data)])
        return Event(self.index, self._decode(data) + self.utf8.flush(), data, finish, scores)

    def _decode(self, data: bytes) -> str:
        return "".join(self.utf8.push(byte) for byte in data)


def score_of(logits_V: Logits, chosen: int, alternatives: int) -> ByteScore:
    """The score of an id, and of the likeliest ones in its place: BOS, which is never drawn, is the last of them."""
    wide_V = logits_V.astype(np.float64)
    wide_V -= wide_V.max()
    logprobs_V = wide_V - np.log(np.exp(wide_V).sum())
    order_V = -logprobs_V
    order_V[-2] = np.inf
    best = np.argsort(order_V, kind="stable")[:alternatives].tolist()
    return ByteScore(chosen, float(logprobs_V[chosen]), tuple((i, float(logprobs_V[i])) for i in best))


def _overlap(data: bytes, stop: bytes) -> int:
    """Length of the longest end of `data` that is a beginning of `stop`."""
    return next((n for n in range(min(len(data), len(stop) - 1), 0, -1) if data.endswith(stop[:n])), 0)

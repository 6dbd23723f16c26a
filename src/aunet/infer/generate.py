"""Generation: one or many prompts, streaming valid UTF-8 and the raw bytes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aunet.bytes import BOS, EOS, Utf8Stream, to_bytes
from aunet.errors import ConfigError
from aunet.infer.sampling import Sampling
from aunet.infer.session import Session
from aunet.infer.state import State

CHUNK = 16384
"""Bytes of all prompts that are read in one pass."""


@dataclass(frozen=True)
class Event:
    """Something new of one sequence."""

    index: int
    """Which prompt."""
    text: str
    """Valid text that is certain: no incomplete character, no beginning of a stop string. May be empty."""
    data: bytes
    """The raw bytes since the last event of this sequence."""
    finish: str | None = None
    """On the last event: `eos`, `stop` or `length`."""


@dataclass(frozen=True)
class Generated:
    """A whole continuation."""

    text: str
    data: bytes
    finish: str

    def to_json(self) -> dict[str, Any]:
        """As JSON values; `bytes_hex` has what `text` can only show as U+FFFD."""
        return {"text": self.text, "bytes_hex": self.data.hex(), "finish": self.finish}


def generate(
    session: Session,
    prompts: Sequence[str | bytes],
    max_bytes: int = 256,
    sampling: Sampling | Sequence[Sampling] | None = None,
    stop: Sequence[str | bytes] = (),
) -> Iterator[Event]:
    """Continue each prompt (an empty one too) until EOS, a stop string, or `max_bytes` new bytes.

    Stop strings are looked for in the new bytes only and are not given out. `sampling`: one for all, or one per prompt.
    Sequences that have ended leave the batch.
    """
    if max_bytes < 0:
        raise ConfigError(f"max_bytes: {max_bytes} is negative")
    stops = [to_bytes(s) for s in ([stop] if isinstance(stop, str | bytes) else stop)]
    if not all(stops):
        raise ConfigError("stop: an empty stop string would end every text at once; leave it out")
    each = (
        [sampling or Sampling()] * len(prompts)
        if sampling is None or isinstance(sampling, Sampling)
        else list(sampling)
    )
    writers = [_Writer(i, one, max_bytes, stops) for i, one in enumerate(each)]
    return _run(session, [to_bytes(prompt) for prompt in prompts], writers)


def collect(events: Iterable[Event]) -> list[Generated]:
    """Whole continuations, in the order of the prompts."""
    texts: dict[int, list[Event]] = {}
    for event in events:
        texts.setdefault(event.index, []).append(event)
    return [
        Generated("".join(e.text for e in parts), b"".join(e.data for e in parts), parts[-1].finish or "")
        for _, parts in sorted(texts.items())
    ]


def _run(session: Session, prompts: list[bytes], writers: list["_Writer"]) -> Iterator[Event]:
    if not prompts:
        return
    state = session.start(len(prompts))
    logits = _prefill(session, state, prompts)
    while writers:
        going, ids = [], []
        for b, writer in enumerate(writers):
            chosen = writer.choose(logits[b])
            event = writer.take(chosen)
            if event.text or event.data or event.finish:
                yield event
            if event.finish is None:
                going.append(b)
                ids.append(chosen)
        if len(going) < len(writers):
            writers = [writers[b] for b in going]
            state = state.copy(going) if going else state
        if going:
            logits = list(session.step(state, ids))


def _prefill(session: Session, state: State, prompts: list[bytes]) -> list[Tensor]:
    """Logits after each prompt, [V] each; however long the prompts, memory is bounded by what is read at a time."""
    ids = [np.concatenate([[BOS], np.frombuffer(prompt, dtype=np.uint8)]) for prompt in prompts]
    piece = max(1, CHUNK // len(ids))
    last: list[Tensor] = [torch.empty(0)] * len(ids)
    for first in range(0, max(map(len, ids)), piece):
        for b, logits in enumerate(session.extend(state, [row[first : first + piece] for row in ids])):
            if len(logits):
                last[b] = logits[-1]
    return last


class _Writer:
    """One sequence: draws its bytes, decides when it ends, holds back what is not certain."""

    def __init__(self, index: int, sampling: Sampling, max_bytes: int, stops: list[bytes]) -> None:
        self.index, self.sampling, self.left, self.stops = index, sampling, max_bytes, stops
        self.generator = sampling.generator()
        self.utf8 = Utf8Stream()
        self.held = b""
        """New bytes that may still turn out to begin a stop string."""

    def choose(self, logits_V: Tensor) -> int:
        """The next id; EOS when no byte is left to give."""
        return self.sampling.draw(logits_V, self.generator) if self.left else EOS

    def take(self, chosen: int) -> Event:
        """What can be given out after this id."""
        if chosen == EOS:
            return self._end("eos" if self.left else "length", self.held)
        self.left -= 1
        self.held += bytes([chosen])
        for stop in self.stops:
            if self.held.endswith(stop):
                return self._end("stop", self.held[: -len(stop)])
        if not self.left:
            return self._end("length", self.held)
        keep = max((_overlap(self.held, stop) for stop in self.stops), default=0)
        ready, self.held = self.held[: len(self.held) - keep], self.held[len(self.held) - keep :]
        return Event(self.index, self._decode(ready), ready)

    def _end(self, finish: str, data: bytes) -> Event:
        return Event(self.index, self._decode(data) + self.utf8.flush(), data, finish)

    def _decode(self, data: bytes) -> str:
        return "".join(self.utf8.push(byte) for byte in data)


def _overlap(data: bytes, stop: bytes) -> int:
    """Length of the longest end of `data` that is a beginning of `stop`."""
    return next((n for n in range(min(len(data), len(stop) - 1), 0, -1) if data.endswith(stop[:n])), 0)

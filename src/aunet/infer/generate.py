"""Generation: one or many prompts, streaming valid UTF-8 and the raw bytes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from aunet.bytes import Text, to_bytes
from aunet.infer.engine import Engine
from aunet.infer.request import Event, Request
from aunet.infer.sampling import Sampling
from aunet.infer.session import Session


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
    prompts: Sequence[Text],
    max_bytes: int = 256,
    sampling: Sampling | Sequence[Sampling] | None = None,
    stop: Text | Sequence[Text] | None = None,
) -> Iterator[Event]:
    """Continue each prompt (an empty one too) until EOS, a stop string, or `max_bytes` new bytes.

    Stop strings are looked for in the new bytes only, also inside tokens, and are not given out. `sampling`: one for
    all, or one per prompt.
    """
    stops = tuple(to_bytes(s) for s in ([stop] if isinstance(stop, Text) else stop or ()))
    one = sampling if isinstance(sampling, Sampling) else Sampling()
    each = [one] * len(prompts) if sampling is None or isinstance(sampling, Sampling) else sampling
    requests = [Request(to_bytes(p), max_bytes, how, stops) for p, how in zip(prompts, each, strict=True)]
    return _run(Engine(session), requests)


def _run(engine: Engine, requests: Sequence[Request]) -> Iterator[Event]:
    first = [engine.submit(request) for request in requests][:1]
    while engine.busy:
        for event in engine.step():
            yield Event(event.index - first[0], event.text, event.data, event.finish, event.scores)


def collect(events: Iterable[Event]) -> list[Generated]:
    """Whole continuations, in the order of the prompts."""
    texts: dict[int, list[Event]] = {}
    for event in events:
        texts.setdefault(event.index, []).append(event)
    return [
        Generated("".join(e.text for e in parts), b"".join(e.data for e in parts), parts[-1].finish or "")
        for _, parts in sorted(texts.items())
    ]

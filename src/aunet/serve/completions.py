"""/v1/completions: a text that goes on."""

import asyncio
import time
import uuid
from collections.abc import Sequence

from aunet.bytes import to_bytes
from aunet.infer.request import Event, Request
from aunet.serve.generation import Order, order
from aunet.serve.logprobs import TextFormat
from aunet.serve.schemas import Completion, CompletionChoice, CompletionRequest, Finish, Reading, Usage
from aunet.serve.settings import Settings
from aunet.splitting import Splitter, Stream

FINISH: dict[str, Finish] = {"eos": "stop", "stop": "stop", "length": "length"}
"""OpenAI does not tell the end of a document from a stop string."""


def prompts(body: CompletionRequest) -> list[bytes]:
    """The bytes of all prompts."""
    given = body.prompt
    if isinstance(given, str):
        return [to_bytes(given)]
    if isinstance(given[0], int):
        return [bytes(given)]
    return [to_bytes(one) if isinstance(one, str) else bytes(one) for one in given]


def completion_order(body: CompletionRequest, settings: Settings) -> Order:
    """What the engine has to do."""
    return order(body, prompts(body), settings, body.max_tokens, body.logprobs, bool(body.echo))


class CompletionShape:
    """The answer as OpenAI's completions have it, with the raw bytes and their levels."""

    def __init__(self, model: str, streams: Sequence[Stream], logprobs: bool) -> None:
        self._model, self._streams, self._logprobs = model, streams, logprobs
        self._id, self._created = f"cmpl-{uuid.uuid4().hex}", int(time.time())
        self._formats = [TextFormat() for _ in streams]

    @classmethod
    async def create(cls, model: str, splitter: Splitter, requests: Sequence[Request]) -> "CompletionShape":
        """Reads the prompts, byte by byte, without holding up anybody."""
        streams = await asyncio.to_thread(_streams, splitter, requests)
        return cls(model, streams, requests[0].alternatives is not None)

    def whole(self, events: Sequence[Event], usage: Usage) -> Completion:
        """All choices."""
        return self._completion([self._choice(event) for event in events], usage)

    def piece(self, event: Event) -> Completion:
        """A piece of one choice."""
        return self._completion([self._choice(event)], None)

    def closing(self, usage: Usage) -> Completion:
        """No choice, only the usage."""
        return self._completion([], usage)

    def _completion(self, choices: list[CompletionChoice], usage: Usage | None) -> Completion:
        return Completion(id=self._id, created=self._created, model=self._model, choices=choices, usage=usage)

    def _choice(self, event: Event) -> CompletionChoice:
        stream = self._streams[event.index]
        return CompletionChoice(
            index=event.index,
            text=event.text,
            logprobs=self._formats[event.index].push(event.scores) if self._logprobs else None,
            finish_reason=None if event.finish is None else FINISH[event.finish],
            aunet=Reading(bytes=list(event.data), levels=[stream.push(byte) for byte in event.data]),
        )


def _streams(splitter: Splitter, requests: Sequence[Request]) -> list[Stream]:
    """The splitter where each text begins: after the prompt, unless that is repeated."""
    read: dict[bytes, Stream] = {}
    for request in requests:
        before = b"" if request.echo else request.prompt
        if before not in read:
            stream = read[before] = splitter.stream()
            for byte in before:
                stream.push(byte)
    return [read[b"" if request.echo else request.prompt].copy() for request in requests]

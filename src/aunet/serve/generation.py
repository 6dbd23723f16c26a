"""From a request to its answer, whole or streamed: what completions and chat have in common."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from aunet.bytes import to_bytes
from aunet.infer.request import Event, Request
from aunet.infer.sampling import Sampling
from aunet.serve.errors import APIError, invalid
from aunet.serve.metrics import Metrics
from aunet.serve.patience import Patience
from aunet.serve.schemas import MOST_SEQUENCES, Generation, Usage
from aunet.serve.settings import Settings
from aunet.serve.worker import Reply, Worker

DEFAULT_BYTES = 256
"""New bytes where a request does not say."""
GATHER = 0.03
"""Seconds between two pieces of a stream: many small ones would cost more than the bytes in them."""
MANY = 256
"""Bytes with log-probabilities in a piece, which take milliseconds to write down: far longer than to begin a thread."""
DONE = b"data: [DONE]\n\n"


class Shape(Protocol):
    """How an answer looks: one object for each request."""

    def whole(self, events: Sequence[Event], usage: Usage) -> BaseModel:
        """An answer that is not streamed; one event for each sequence."""
        ...

    def piece(self, event: Event) -> BaseModel:
        """A piece of a streamed one."""
        ...

    def closing(self, usage: Usage) -> BaseModel:
        """The last piece of a streamed one, if the usage was asked for."""
        ...


@dataclass(frozen=True)
class Order:
    """What was asked for, as the engine takes it."""

    requests: list[Request]
    prompt_bytes: int
    """Of all prompts, each counted once."""
    stream: bool
    include_usage: bool


def order(
    body: Generation,
    prompts: Sequence[bytes],
    settings: Settings,
    max_bytes: int | None,
    alternatives: int | None = None,
    echo: bool = False,
    more_stops: Sequence[str] = (),
    param: str = "prompt",
    limit_param: str = "max_tokens",
) -> Order:
    """Check a request against the limits; `param` and `limit_param` name the fields of prompts and length in errors."""
    choices = 1 if body.n is None else body.n
    total, sequences = sum(map(len, prompts)), len(prompts) * choices
    repeated = total * choices if echo else 0
    most = min(DEFAULT_BYTES, settings.max_new_bytes) if max_bytes is None else max_bytes

    def within(name: str, value: int, limit: int, what: str) -> None:
        if value > limit:
            raise invalid(f"{name}: {value} {what}; at most {limit} are possible", name, "too_long")

    within(param, max(total, repeated), settings.max_prompt_bytes, "bytes")
    within(limit_param, most, settings.max_new_bytes, "new bytes")
    within("n", sequences, MOST_SEQUENCES, "texts in one request")
    if alternatives is not None:
        within("logprobs", repeated + sequences * most, settings.max_scored_bytes, "bytes with log-probabilities")
    if body.stream_options is not None and not body.stream:
        raise invalid("stream_options: needs stream: true", "stream_options")
    given = [body.stop] if isinstance(body.stop, str) else body.stop or []
    stops = tuple(to_bytes(stop) for stop in [*given, *more_stops])
    seed = secrets.randbits(63) if body.seed is None else body.seed
    temperature = 1.0 if body.temperature is None else body.temperature
    requests = [
        Request(prompt, most, Sampling(temperature, body.top_k, body.top_p, seed + i), stops, alternatives, echo)
        for prompt in prompts
        for i in range(choices)
    ]
    include_usage = body.stream_options is not None and body.stream_options.include_usage
    return Order(requests, total, bool(body.stream), include_usage)


@dataclass
class Count:
    """How much of an order has been given out."""

    order: Order
    given: int = 0
    running: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.running = set(range(len(self.order.requests)))

    def add(self, event: Event) -> None:
        """One more piece."""
        self.given += len(event.data)
        if event.finish is not None:
            self.running.discard(event.index)

    @property
    def usage(self) -> Usage:
        """Of a finished order."""
        asked = self.order.prompt_bytes
        new = self.given - sum(len(request.prompt) for request in self.order.requests if request.echo)
        return Usage(prompt_tokens=asked, completion_tokens=new, total_tokens=asked + new)


async def answer(
    order: Order, shape: Shape, worker: Worker, patience: Patience, settings: Settings, metrics: Metrics
) -> Response:
    """The response to a request; APIError if there is none."""
    reply = worker.open(order.requests)
    streaming = False
    try:
        events = await patience.wait_for(reply.take() if order.stream else reply.whole())
        if reply.first_byte is not None:
            metrics.first_byte.observe(reply.first_byte - patience.started)
        if not order.stream:
            return await asyncio.to_thread(_whole, order, shape, events)
        streaming = True
    finally:
        if not streaming:
            worker.close(reply)
    # A reader so slow that its connection takes nothing may hold it for as long again, and no longer.
    pieces = _pieces(order, shape, reply, events, patience)
    return EventStream(pieces, 2 * settings.max_seconds, lambda: worker.close(reply))


def _whole(order: Order, shape: Shape, events: Sequence[Event]) -> Response:
    count = Count(order)
    for event in events:
        count.add(event)
    return Response(shape.whole(events, count.usage).model_dump_json(), media_type="application/json")


async def _pieces(
    order: Order, shape: Shape, reply: Reply, events: list[Event], patience: Patience
) -> AsyncIterator[bytes]:
    """The events of a stream. What goes wrong now can only be said inside it."""
    count = Count(order)
    try:
        while events:
            for event in events:
                count.add(event)
                if len(event.scores) < MANY:
                    yield _piece(shape, event)
                else:  # as of a prompt that is echoed; the streams of others would stand still meanwhile
                    yield await asyncio.to_thread(_piece, shape, event)
            await reply.settle(GATHER)
            events = await patience.in_time(reply.take())
        if order.include_usage:
            yield _sse(shape.closing(count.usage))
    except APIError as error:
        patience.note(error)
        if error.code == "stopping":
            for index in sorted(count.running):
                yield _piece(shape, Event(index, "", b"", "length"))
        else:
            yield _sse(error.body)
    yield DONE


class EventStream(StreamingResponse):
    """Server-sent events; whatever ends them, `close` is called."""

    media_type = "text/event-stream"

    def __init__(self, content: AsyncIterator[bytes], seconds: float, close: Callable[[], None]) -> None:
        super().__init__(content, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._seconds, self._close = seconds, close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; a connection that takes nothing is given up."""
        try:
            async with asyncio.timeout(self._seconds):
                await super().__call__(scope, receive, send)
        except TimeoutError:
            return
        finally:
            self._close()


def _piece(shape: Shape, event: Event) -> bytes:
    return _sse(shape.piece(event))


def _sse(model: BaseModel) -> bytes:
    return f"data: {model.model_dump_json()}\n\n".encode()

"""From events of the engine to the pieces of a stream, without an engine."""

import asyncio
import threading
from typing import Any

import pytest
from starlette.responses import StreamingResponse

from aunet.infer.request import ByteScore, Event, Request
from aunet.serve.generation import MANY, Order, answer
from aunet.serve.metrics import Metrics
from aunet.serve.patience import Patience
from aunet.serve.schemas import Usage
from aunet.serve.settings import Settings
from aunet.serve.worker import Reply


class Finished:
    """A worker that has written everything at once."""

    counters = running = waiting = None

    def __init__(self, event: Event) -> None:
        self.event = event

    def open(self, requests: Any) -> Reply:
        reply = Reply(1)
        reply.put(self.event)
        return reply


class Watched:
    """A shape that knows in which threads its pieces were made."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def piece(self, event: Event) -> Usage:
        self.threads.append(threading.get_ident())
        return Usage(prompt_tokens=0, completion_tokens=len(event.data), total_tokens=len(event.data))


@pytest.mark.parametrize("size", [MANY - 1, MANY])
def test_many_log_probabilities_are_written_down_beside_the_event_loop(size: int) -> None:
    scores = tuple(ByteScore(97, -1.0, ()) for _ in range(size))
    worker: Any = Finished(Event(0, "a" * size, b"a" * size, "length", scores))
    shape: Any = Watched()

    async def pieces() -> list[Any]:
        patience = Patience({}, asyncio.Event().wait, 3600)  # type: ignore[arg-type]
        order = Order([Request()], 0, stream=True, include_usage=False)
        response = await answer(order, shape, worker, patience, Settings(), Metrics(worker))
        assert isinstance(response, StreamingResponse)
        return [piece async for piece in response.body_iterator]

    piece, done = asyncio.run(pieces())
    assert f'"completion_tokens":{size}'.encode() in piece
    assert done == b"data: [DONE]\n\n"
    assert (shape.threads == [threading.get_ident()]) == (size < MANY)

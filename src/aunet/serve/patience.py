"""How long a request may take, and whether its client is still there."""

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import Request
from starlette.types import Receive, Scope

from aunet.serve.errors import APIError, outcome, too_slow

OUTCOME, PATIENCE = "aunet_outcome", "aunet_patience"
"""Keys of an ASGI scope."""
T = TypeVar("T")


class Gone(Exception):
    """The client has left; nobody reads an answer."""


class Patience:
    """The time of one request, from its arrival to the end of its answer: it begins now."""

    def __init__(self, scope: Scope, receive: Receive, seconds: float) -> None:
        self.started = time.monotonic()
        self._scope, self._receive, self._seconds = scope, receive, seconds
        self._deadline = asyncio.get_running_loop().time() + seconds

    @staticmethod
    def of(http: Request) -> "Patience":
        """That of a request: the gate has begun it."""
        patience: Patience = http.scope[PATIENCE]
        return patience

    async def in_time(self, work: Awaitable[T]) -> T:
        """The result of `work`; it is cancelled when the time is over: APIError."""
        try:
            async with asyncio.timeout_at(self._deadline):
                result = await work
        except TimeoutError:
            raise too_slow(self._seconds) from None
        # Work that never has to wait is never interrupted.
        if asyncio.get_running_loop().time() > self._deadline:
            raise too_slow(self._seconds)
        return result

    async def wait_for(self, work: Awaitable[T]) -> T:
        """The same before anything has been sent: `work` is also cancelled when the client disconnects: `Gone`."""
        return await self.in_time(self._unless_gone(work))

    def note(self, error: APIError) -> None:
        """Remember how a request ended whose status has been sent already."""
        self._scope[OUTCOME] = outcome(error.status)

    async def _unless_gone(self, work: Awaitable[T]) -> T:
        tasks = asyncio.ensure_future(work), asyncio.create_task(self._left())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not tasks[0].done():
                raise Gone
            return tasks[0].result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

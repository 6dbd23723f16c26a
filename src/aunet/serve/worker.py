"""One thread owns the engine; the event loop talks to it.

    event loop                                    engine thread
    open(requests) ── commands (a queue) ──────>  submit, cancel, jobs
    Reply <────────── call_soon_threadsafe ────── events of one step at a time

What nobody has taken yet waits in its `Reply`, joined when it is taken: a slow reader gets larger pieces, never makes
anybody wait, and keeps at most the bytes of its own request.
"""

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from functools import partial
from itertools import chain
from typing import Any, Literal, TypeVar

from aunet.infer.engine import Engine, EngineCounters
from aunet.infer.request import Event, Request
from aunet.infer.session import Session
from aunet.serve.errors import APIError, failed, invalid, not_started, stopping, too_many

T = TypeVar("T")
Job = Generator[None, None, T]
"""Work for the engine's thread in pieces, a piece between two steps; its result is what it returns."""

JOIN = 256
"""Events of a sequence that may wait as they came; an event takes far more memory than its byte."""

log = logging.getLogger("aunet.serve")


class Reply:
    """What the sequences of one request give out. Lives on the event loop."""

    def __init__(self, sequences: int) -> None:
        self.sequences = sequences
        self.first_byte: float | None = None
        """When the first byte came, by `time.monotonic`."""
        self._waiting: dict[int, list[Event]] = {}
        self._running = sequences
        self._error: APIError | None = None
        self._news, self._done = asyncio.Event(), asyncio.Event()

    @property
    def finished(self) -> bool:
        """Whether nothing more will come."""
        return self._done.is_set()

    def put(self, event: Event) -> None:
        """Something new; `event.index` is the place of the sequence in the request."""
        if event.data and self.first_byte is None:
            self.first_byte = time.monotonic()
        parts = self._waiting.setdefault(event.index, [])
        parts.append(event)
        if len(parts) >= JOIN:
            parts[:] = [_joined(parts)]
        self._news.set()
        if event.finish is not None:
            self._running -= 1
            if not self._running:
                self._done.set()

    def fail(self, error: APIError) -> None:
        """Nothing more will come; who takes what has come gets the error next. A finished reply stays as it is."""
        if not self.finished:
            self._error = error
            self._news.set()
            self._done.set()

    async def take(self) -> list[Event]:
        """What has come since the last time, joined, one event for each sequence; [] when all has been taken."""
        if not self.finished:
            await self._news.wait()
        if self._error is not None and not self._waiting:
            raise self._error
        self._news.clear()
        events = [_joined(parts) for _, parts in sorted(self._waiting.items())]
        self._waiting.clear()
        return events

    async def whole(self) -> list[Event]:
        """Everything, once it is finished: one event for each sequence, in order."""
        await self._done.wait()
        if self._error is not None:
            raise self._error
        return await self.take()

    async def settle(self, seconds: float) -> None:
        """Let news gather for a moment, unless these are the last."""
        try:
            await asyncio.wait_for(self._done.wait(), seconds)
        except TimeoutError:
            return


class Worker:
    """The engine and its thread. Everything but `__init__` is called on the event loop."""

    def __init__(self, engine: Engine, waiting: int) -> None:
        """`waiting`: sequences that may wait for a slot of the engine."""
        self._engine = engine
        self._most = engine.slots + waiting
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        # The event loop's:
        self._taken = 0
        self._replies: set[Reply] = set()
        self._futures: set[asyncio.Future[Any]] = set()
        self._failed = self._stopping = False
        # The thread's:
        self._owners: dict[int, tuple[Reply, int]] = {}
        self._jobs: deque[tuple[Job[Any], asyncio.Future[Any]]] = deque()

    @property
    def status(self) -> Literal["ok", "not_started", "stopping", "failed"]:
        """Whether it takes requests."""
        if self._loop is None:
            return "not_started"
        return "failed" if self._failed else "stopping" if self._stopping else "ok"

    @property
    def session(self) -> Session:
        """The model; to be run in jobs only."""
        return self._engine.session

    @property
    def running(self) -> int:
        """Sequences that have a slot."""
        return self._engine.running

    @property
    def waiting(self) -> int:
        """Sequences that wait for one."""
        return self._engine.waiting

    @property
    def counters(self) -> EngineCounters:
        """What the engine has done so far."""
        return self._engine.counters

    def start(self) -> None:
        """Start the thread; belongs to the running event loop from now on."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def open(self, requests: Sequence[Request]) -> Reply:
        """Submit the sequences of a request; every reply must be closed. APIError if there is no place for all."""
        self._admit(len(requests))
        reply = Reply(len(requests))
        self._replies.add(reply)
        self._commands.put(partial(self._submit, reply, list(requests)))
        return reply

    def close(self, reply: Reply) -> None:
        """Nobody wants more of it: what still runs gives its places back."""
        self._replies.discard(reply)
        if not reply.finished:
            self._commands.put(partial(self._withdraw, reply))

    async def run(self, work: Callable[[Session], Job[T]]) -> T:
        """Do a job with the session between the engine's steps; it is dropped if the caller is cancelled."""
        self._admit(1)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._futures.add(future)
        self._commands.put(lambda: self._jobs.append((work(self._engine.session), future)))
        try:
            return await future
        finally:
            self._futures.discard(future)

    def refuse(self) -> None:
        """Take no more requests."""
        self._stopping = True

    def cut(self) -> None:
        """End what still runs; its readers see that the server is stopping."""
        self.refuse()
        self._break_off(stopping())

    def join(self, seconds: float) -> None:
        """End the thread after its current step, waiting so long at most."""
        self._commands.put(None)
        self._thread.join(seconds)

    def _admit(self, places: int) -> None:
        if self._loop is None:  # a request would wait in vain until its time is over
            raise not_started()
        if self._failed:
            raise failed()
        if self._stopping:
            raise stopping()
        if places > self._most:
            raise invalid(f"{places} sequences at once are more than the {self._most} that this server can hold", "n")
        if self._taken + places > self._most:
            raise too_many(1)
        self._taken += places

    def _break_off(self, error: APIError) -> None:
        for reply in list(self._replies):
            unfinished = not reply.finished
            reply.fail(error)
            if unfinished:
                self._commands.put(partial(self._withdraw, reply))
        for future in self._futures:
            if not future.done():
                future.set_exception(error)

    def _release(self, places: int) -> None:
        self._taken -= places

    def _deliver(self, news: list[tuple[Reply, Event]]) -> None:
        for reply, event in news:
            reply.put(event)
            if event.finish is not None:
                self._release(1)

    def _settle(self, future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
        self._release(1)
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def _fail(self) -> None:
        self._failed = True
        self._break_off(failed())

    # From here on: the engine's thread.

    def _run(self) -> None:
        try:
            while self._obey():
                if self._engine.busy:
                    self._hand_out(self._engine.step())
                self._advance()
        except Exception:
            log.exception("the engine has failed")
            self._post(self._fail)

    def _obey(self) -> bool:
        """Carry out what was asked for, waiting for it if there is nothing else to do; False: end."""
        block = not (self._engine.busy or self._jobs)
        while True:
            try:
                command = self._commands.get(block)
            except queue.Empty:
                return True
            if command is None:
                return False
            command()
            block = False

    def _submit(self, reply: Reply, requests: list[Request]) -> None:
        for index, request in enumerate(requests):
            self._owners[self._engine.submit(request)] = reply, index

    def _withdraw(self, reply: Reply) -> None:
        tickets = [ticket for ticket, (owner, _) in self._owners.items() if owner is reply]
        for ticket in tickets:
            self._engine.cancel(ticket)
            del self._owners[ticket]
        self._post(self._release, len(tickets))

    def _hand_out(self, events: list[Event]) -> None:
        news = []
        for event in events:
            reply, index = self._owners[event.index]
            news.append((reply, Event(index, event.text, event.data, event.finish, event.scores)))
            if event.finish is not None:
                del self._owners[event.index]
        if news:
            self._post(self._deliver, news)

    def _advance(self) -> None:
        """One piece of the oldest job."""
        if not self._jobs:
            return
        job, future = self._jobs.popleft()
        if future.cancelled():
            job.close()
            self._post(self._settle, future, None, None)
            return
        try:
            next(job)
            self._jobs.appendleft((job, future))
        except StopIteration as end:
            self._post(self._settle, future, end.value, None)
        except Exception as error:
            self._post(self._settle, future, None, error)

    def _post(self, call: Callable[..., None], *arguments: Any) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            log.debug("the event loop has ended")


def _joined(parts: list[Event]) -> Event:
    return Event(
        parts[0].index,
        "".join(part.text for part in parts),
        b"".join(part.data for part in parts),
        parts[-1].finish,
        tuple(chain.from_iterable(part.scores for part in parts)),
    )

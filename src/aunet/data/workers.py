"""Loader workers: processes that read lanes ahead of the training process.

Every worker knows the schedule and emits the rows of the lanes it owns, in their global order, into its own pipe; the
training process takes row i from the owner of its lane. So the sequence of rows is the same for any number of workers.

Not torch's DataLoader: its handler for dead workers raises from whatever line of the training step the signal meets,
and its worker processes act on the Ctrl-C and the SIGTERM that the training process wants to answer by finishing its
step. Here a death is seen where rows are taken, and the workers, which only read, are killed when they are not needed.
"""

import atexit
import itertools
import multiprocessing
import os
import queue
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import torch

from aunet.data.lanes import Lane, LaneRow, LaneSpec, LaneState
from aunet.data.mixing import Schedule, Share
from aunet.errors import AUNetError, RunFailed
from aunet.splitting import Splitter
from aunet.vocabulary import Vocabulary

LESS_MEMORY = "lower data.workers or data.shuffle_bytes"
"""What makes workers take less."""


class Job(NamedTuple):
    """What a worker needs to know; it is pickled where processes are spawned."""

    lanes: dict[int, tuple[LaneSpec, LaneState]]
    """The lanes it owns, by their number over all sources."""
    schedule: Schedule
    first: int
    """Number in the run of the row that comes next."""
    share: Share
    splitter: Splitter
    vocabulary: Vocabulary
    prefetch: int
    """Rows of all ranks that are read ahead."""


class Failed(NamedTuple):
    """What a worker sends before it ends on its own."""

    message: str
    kind: type[Exception]
    """AUNetError for input that cannot be used, RunFailed where memory is short, RuntimeError for a bug."""


class WorkerKilled(RunFailed):
    """A worker has ended without a word."""


class Workers:
    """A running set of workers, AUNetError where one cannot be started. Use `close`, or let it be collected.

    At exit they are stopped too.
    """

    def __init__(self, jobs: Sequence[Job], start_method: str | None = None) -> None:
        # Forking is the only method that works from unguarded scripts and notebooks. It is safe here because a child
        # uses numpy and the readers alone; where a system has no reliable fork (macOS) its own default is taken.
        method = start_method or ("fork" if sys.platform == "linux" else None)
        context: Any = multiprocessing.get_context(method)
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        # Before the first starts, so that those that run are stopped where a later one cannot be started.
        self._close = weakref.finalize(self, _stop, self._pipes, self._processes)
        # multiprocessing waits at exit for daemons to heed a SIGTERM, which these ignore. Its hook was registered
        # before this one, so this one runs first.
        self._close.atexit = False
        atexit.register(self._close)
        try:
            with _interrupts_blocked():
                for number, job in enumerate(jobs):
                    receiver, sender = context.Pipe(duplex=False)
                    self._pipes.append(receiver)
                    arguments = (job, sender, list(self._pipes))
                    process = context.Process(target=_work, args=arguments, name=f"aunet-loader-{number}", daemon=True)
                    process.start()
                    # Closed here, so that a dead worker is an end of file, and before the next fork inherits it.
                    sender.close()
                    self._processes.append(process)
        except OSError as error:  # the system has no memory, process or open file left
            started = len(self._processes)
            self.close()
            raise AUNetError(
                f"data.workers: {started} of {len(jobs)} could be started ({error.strerror}); lower it"
            ) from None

    def take(self, worker: int) -> LaneRow:
        """The next row of a worker; AUNetError if it found its input unusable or had too little memory."""
        try:
            item = self._pipes[worker].recv()
        except (EOFError, OSError):
            process = self._processes[worker]
            process.join()
            code = process.exitcode or 0
            cause = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
            raise WorkerKilled(f"loader worker {worker} {cause}; if memory is short {LESS_MEMORY}") from None
        if isinstance(item, Failed):
            raise item.kind(item.message if item.kind is AUNetError else f"loader worker {worker}: {item.message}")
        assert isinstance(item, LaneRow)
        return item

    def close(self) -> None:
        """Stop all workers at once."""
        atexit.unregister(self._close)
        self._close()


def _stop(pipes: Sequence[Connection], processes: Sequence[BaseProcess]) -> None:
    for pipe in pipes:
        pipe.close()
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
        process.close()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Children start with both signals blocked: one that is still importing prints no traceback and does not die."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(job: Job, pipe: Connection, inherited: Sequence[Connection]) -> None:
    """Body of a worker: reads in this thread, sends in another, at most `prefetch` rows apart."""
    for end in inherited:
        end.close()  # so that the training process is the only reader, and its death breaks the pipes
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)  # for splitters that use torch
    ahead: queue.Queue[LaneRow | Failed] = queue.Queue(job.prefetch)
    sender = threading.Thread(target=_send, args=(ahead.get, pipe), daemon=True)
    sender.start()
    try:
        lanes = {number: Lane(spec, job.splitter, state, job.vocabulary) for number, (spec, state) in job.lanes.items()}
        for row in itertools.count(job.first):
            lane = lanes.get(job.schedule.next())
            if lane is not None:
                ahead.put(lane.next_row(job.share.holds(row)))
    except AUNetError as error:
        ahead.put(Failed(str(error), AUNetError))
    except MemoryError:  # where the system refuses memory rather than kill who takes it
        ahead.put(Failed(f"out of memory; {LESS_MEMORY}", RunFailed))
    except Exception:
        ahead.put(Failed(traceback.format_exc(), RuntimeError))
    sender.join()


def _send(get: Callable[[], LaneRow | Failed], pipe: Connection) -> None:
    try:
        item: LaneRow | Failed | None = None
        while not isinstance(item, Failed):
            item = get()
            pipe.send(item)
    except OSError:  # nobody reads any more: the training process is gone
        os._exit(0)

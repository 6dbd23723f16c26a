"""What the other processes do: one that has ended or that hangs is named, instead of a traceback or of silence.

Every process writes down what it does, and a thread of its own posts that to the store in which the processes found
each other. A process that has not got on for `train.stall_timeout` looks at the posts of all: behind is who posts no
more (stopped, or its machine is gone), else who is at the earliest place. Then all end, so that a launcher can start
them again.

One process alone is not watched.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

from torch import distributed
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.distributed_c10d import Store

from aunet.errors import RunFailed
from aunet.train.distributed import Ranks

PHASES = ("starting", "reading", "computing", "validating", "saving")
"""What a process does, in the order in which it does so in a step."""
PATIENT = ("starting", "validating", "saving")
"""They take long, and only the time limit of the backend (half an hour with gloo) ends them."""
GRACE = 3.0
"""Seconds in which the process that names the others has the floor."""


class Place(NamedTuple):
    """What a process was doing when it last posted."""

    step: int
    phase: int
    beat: int
    """Grows with every post: a process that is stopped posts no more."""
    name: str
    """Host and process id."""


class Watch:
    """Where this process is: `at` writes it down and costs nothing."""

    def __init__(self) -> None:
        self.step, self.phase, self.moved = 0, "starting", time.monotonic()

    def at(self, step: int, phase: str) -> None:
        """This process begins a phase of a step."""
        self.step, self.phase, self.moved = step, phase, time.monotonic()


@contextmanager
def watching(ranks: Ranks, store: Store | None, timeout: float) -> Iterator[Watch]:
    """A watch that is posted while the block runs; RunFailed where a collective fails because a process has ended."""
    watch = Watch()
    if store is None:
        yield watch
        return
    done = threading.Event()
    thread = threading.Thread(target=_follow, args=(watch, ranks, store, timeout, done), daemon=True)
    thread.start()
    try:
        yield watch
    except Exception as error:
        if _is_lost(error):
            raise RunFailed(
                f"rank {ranks.rank}, step {watch.step}, {watch.phase}: another process has ended; what it says itself "
                "tells why; run the same command again to resume"
            ) from None
        raise
    finally:
        done.set()


def _is_lost(error: BaseException | None) -> bool:
    """Whether the connection to another process is behind an error."""
    while error is not None:
        if isinstance(error, distributed.DistError) or (isinstance(error, RuntimeError) and "gloo/" in str(error)):
            return True
        if isinstance(error, CheckpointException):
            return any(_is_lost(inner[0]) for inner in error.failures.values())
        error = error.__cause__ or error.__context__
    return False


def _follow(watch: Watch, ranks: Ranks, store: Store, timeout: float, done: threading.Event) -> None:
    """Body of the thread that judges; another one posts, because a store that is gone blocks whoever asks it."""
    pause = min(max(timeout / 20, 0.1), 10.0)
    posts: dict[int, tuple[Place, float]] = {}
    own_store = store.clone()  # type: ignore[attr-defined]  # a thread that waits blocks those who share its connection
    posting = (watch, ranks, own_store, pause, timeout, posts, done)
    threading.Thread(target=_post, args=posting, daemon=True).start()
    while not done.wait(pause):
        if time.monotonic() - watch.moved < timeout:
            continue
        behind = _behind(posts, ranks, timeout)
        if behind is None:
            continue
        if ranks.rank != min(rank for rank in range(ranks.count) if rank not in behind or len(behind) == ranks.count):
            done.wait(GRACE)  # another process names them
        elif not done.is_set():
            for rank, what in behind.items():
                print(
                    f"aunet: error: rank {rank} hangs: {what}; nothing has moved for {timeout:g} s "
                    "(train.stall_timeout); run the same command again to resume",
                    file=sys.stderr,
                    flush=True,
                )
        os._exit(1)  # the main thread waits in a collective and cannot be interrupted


def _post(
    watch: Watch,
    ranks: Ranks,
    store: Store,
    pause: float,
    timeout: float,
    posts: dict[int, tuple[Place, float]],
    done: threading.Event,
) -> None:
    """Post the place of this process; once it stands still, also note when those of the others changed last."""
    store.set_timeout(timedelta(seconds=timeout))
    keys = [f"place-{rank}" for rank in range(ranks.count)]
    name, beat = f"{socket.gethostname()}, process {os.getpid()}", 0
    try:
        while True:
            beat += 1
            store.set(keys[ranks.rank], json.dumps([watch.step, PHASES.index(watch.phase), beat, name]))
            if time.monotonic() - watch.moved > timeout / 2 and store.check(keys):
                for rank, text in enumerate(store.multi_get(keys)):
                    place = Place(*json.loads(text))
                    if rank not in posts or posts[rank][0] != place:
                        posts[rank] = place, time.monotonic()
            if done.wait(pause):
                return
    except (RuntimeError, ValueError):
        return  # the store has ended with its process, and so will this one


def _behind(posts: dict[int, tuple[Place, float]], ranks: Ranks, timeout: float) -> dict[int, str] | None:
    """Who hangs, and what it was doing; None as long as somebody does what may take long."""
    now = time.monotonic()
    if len(posts) < ranks.count:
        return {0: "the store of the processes, which rank 0 or the launcher keeps, does not answer"}
    silent = [rank for rank, (_, seen) in posts.items() if now - seen > timeout / 4]
    alive = [rank for rank in posts if rank not in silent]
    if any(PHASES[posts[rank][0].phase] in PATIENT for rank in alive):
        return None
    first = min(posts[rank][0][:2] for rank in posts)
    found = silent or [rank for rank in posts if posts[rank][0][:2] == first]
    described = {}
    for rank in found:
        place = posts[rank][0]
        answers = "does not answer" if rank in silent else "answers"
        described[rank] = f"{place.name} {answers}, last seen in step {place.step}, {PHASES[place.phase]}"
    return described

"""Signals and time that end a run after the step it is in. Needs no torch, for scripts that only start runs."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aunet.train.distributed import Ranks

SIGNALS = (signal.SIGTERM, signal.SIGINT)
TOGETHER = 0.5
"""Seconds within which two signals are one: `timeout` sends its own to the process and to the group of it."""


class Stop:
    """Set by the first SIGTERM or Ctrl-C, so that the loop finishes its step; a second one interrupts at once.

    `seconds`: it is set by itself after that time. `patient`: a second signal is nothing new, because a launcher sends
    one to its processes that had it already, as where systemd or SLURM signal all processes.
    """

    def __init__(self, seconds: float = math.inf, patient: bool = False) -> None:
        self.signal: signal.Signals | None = None
        self._patient = patient
        self._received = -math.inf
        self._deadline = time.monotonic() + seconds

    @property
    def requested(self) -> bool:
        """Whether to stop after the step that runs."""
        return self.signal is not None or time.monotonic() >= self._deadline

    def agreed(self, ranks: "Ranks") -> bool:
        """Whether any rank has to stop: all ask before each step, so that all stop after the same one."""
        code = ranks.most(self.requested + (self.signal or 0))
        if code > 1:
            self.signal = signal.Signals(code - 1)
        return code > 0

    @property
    def exit_code(self) -> int:
        """128 + signal, as a shell reports it: 143 for SIGTERM, 130 for Ctrl-C; 0 without a signal."""
        return 128 + self.signal if self.signal else 0

    def _receive(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if self.signal is not None and not self._patient and now - self._received > TOGETHER:
            raise KeyboardInterrupt
        self.signal, self._received = signal.Signals(number), now


@contextmanager
def stop_on_signals(seconds: float = math.inf, patient: bool = False) -> Iterator[Stop]:
    """While the block runs, SIGTERM and SIGINT set the yielded `Stop`, and so does the end of its time."""
    stop = Stop(seconds, patient)
    before = {number: signal.signal(number, stop._receive) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

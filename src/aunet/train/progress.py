"""What a person sees while a run goes on: a live line in a terminal, now and then a plain line elsewhere."""

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_SECONDS = 10.0
"""Between two lines where there is no terminal."""


class TrainingProgress:
    """Step, bits per byte of the training rows, bytes per second, time left."""

    def __init__(self, console: Console, steps: int, done: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._steps, self._clock = console, steps, clock
        self._started, self._first, self._printed = clock(), done, -PLAIN_SECONDS
        self._live: Progress | None = None
        if console.is_terminal:
            self._live = Progress(
                TextColumn("step"),
                MofNCompleteColumn(),
                BarColumn(),
                TextColumn("{task.fields[bits]:.3f} bits/byte"),
                TextColumn("{task.fields[rate]:,.0f} bytes/s"),
                TimeRemainingColumn(compact=True),
                TextColumn("left"),
                console=console,
                transient=False,
            )
            self._task = self._live.add_task("train", total=steps, completed=done, bits=float("nan"), rate=0.0)
            self._live.start()

    def update(self, step: int, bits_per_byte: float, bytes_per_second: float) -> None:
        """Show the state after `step`."""
        if self._live is not None:
            self._live.update(self._task, completed=step, bits=bits_per_byte, rate=bytes_per_second)
            return
        now = self._clock()
        if now - self._printed >= PLAIN_SECONDS or step == self._steps:
            self._printed = now
            left = (now - self._started) / max(step - self._first, 1) * (self._steps - step)
            self._console.print(
                f"step {step}/{self._steps}  {bits_per_byte:.3f} bits/byte  {bytes_per_second:,.0f} bytes/s  "
                f"{_clock(left)} left",
                highlight=False,
                soft_wrap=True,
            )

    def say(self, line: str) -> None:
        """A line that stays."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

"""When a run of a sweep is ended before its end; only where it is asked for."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from aunet.scaling.run import Job
from aunet.train import metrics
from aunet.train.plan import make_plan

WINDOW = 0.05
"""Share of the steps over which a loss is averaged, since single steps are noisy."""
TAIL = 1 << 14
"""Bytes of the end of a metrics file in which its last lines are."""


class HalfwayRule:
    """At half of its steps a run is ended if its loss is more than `above` over the best of the others at their half.

    All runs of a sweep read the same number of bytes, so half of the steps is half of the bytes for each. The loss is
    that of the training rows in bits per byte, the mean over the last 5% of the steps before the half. None: never.
    """

    def __init__(self, job: Job, above: float | None, others: Callable[[], Sequence[float]]) -> None:
        self._path, self._steps = job.out / metrics.FILE, make_plan(job.config).steps
        self._above, self._others = above, others
        self.half: float | None = None
        """The loss at half of the steps, once it is known."""

    def look(self) -> str | None:
        """Why to end the run now, or None."""
        if self._above is None or self.half is not None or last_step(self._path) < self._steps / 2:
            return None
        half = mean_loss(self._path, (0.5 - WINDOW) * self._steps, 0.5 * self._steps)
        if math.isnan(half):  # nothing was logged before the half
            return None
        self.half = half
        best = min(self._others(), default=math.inf)
        if self.half - best <= self._above:
            return None
        return (
            f"at half of its steps its loss, {self.half:.4f} bits per byte of the training rows, was more than "
            f"{self._above:g} above the best, {best:.4f}"
        )


def last_step(path: Path) -> int:
    """The last step that stands in a metrics file; 0 if there is none."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - TAIL, 0))
        lines = file.read().splitlines()
    for text in reversed(lines):
        try:
            line = json.loads(text)
        except ValueError:  # cut off, or still being written
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            return int(line["step"])
    return 0


def mean_loss(path: Path, after: float, until: float) -> float:
    """Mean bits per byte of the training rows in steps after < step <= until; the last one before if there is none."""
    losses = [
        (line["step"], line["train_bits_per_byte"])
        for line in metrics.read(path)
        if "train_bits_per_byte" in line and line["step"] <= until
    ]
    inside = [loss for step, loss in losses if step > after] or [loss for _, loss in losses[-1:]]
    return sum(inside) / len(inside) if inside else math.nan

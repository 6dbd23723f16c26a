"""Mixing: which lane gives row i, and which rank gets it.

The schedule is static: it depends on the shares alone and never on what the rows hold, so that every process can tell
the lane of every row. It is the smooth weighted round robin: the source that is furthest behind its share of the rows
so far comes next. Random draws would need as little state, but would stray from the shares by the square root of the
number of rows; here a source is never more than a few rows away, so every stretch of a run sees the mixture asked for.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from aunet.config import DataConfig
from aunet.errors import ConfigError

SMALLEST_SHARE = 2.0**-63
"""Of the rows, whose counts have 63 bits: a source with less would come first after more of them than can be."""


def shares(config: DataConfig, sizes: Sequence[float]) -> list[float]:
    """Share of the rows of each source: its weight, or its size to the power 1 / temperature, over the sum.

    `sizes`: uncompressed bytes, NaN if unknown, which ConfigError refuses where a share depends on it, as it does a
    share that is next to nothing.
    """
    if len(sizes) == 1:
        return [1.0]
    weights = [source.weight for source in config.sources]
    if all(weight is None for weight in weights):
        for i, size in enumerate(sizes):
            if math.isnan(size):
                raise ConfigError(
                    f"data.sources.{i}.weight: the size of {config.sources[i].path} is unknown; "
                    "give every source a weight"
                )
        # Relative to the largest, because a high power of a size in bytes overflows.
        weights = [(size / max(sizes)) ** (1 / (config.temperature or 1.0)) for size in sizes]
    known = np.asarray(weights, dtype=np.float64)
    found = [float(share) for share in known / known.sum()]
    for i, share in enumerate(found):
        if share < SMALLEST_SHARE:
            source = config.sources[i]
            key = "data.temperature" if source.weight is None else f"data.sources.{i}.weight"
            raise ConfigError(f"{key}: {source.path} would never be read, its share of the rows is {share:g}; raise it")
    return found


def scarce(config: DataConfig, shares: Sequence[float], rows: int) -> list[str]:
    """A line for each source whose share of so many rows is less than one."""
    return [
        f"data.sources.{i}: {source.path} may never be read, its share of the {rows:,} rows of this run is "
        f"{share * rows:.2g} rows; give it a greater weight, or make the run longer"
        for i, (source, share) in enumerate(zip(config.sources, shares, strict=True))
        if share * rows < 1
    ]


class RoundRobin:
    """Smooth weighted round robin over n choices; the counts so far are its whole state."""

    def __init__(self, weights: Sequence[float], counts: Sequence[int] | None = None) -> None:
        values = np.asarray(weights, dtype=np.float64)
        self._shares: npt.NDArray[np.float64] = values / values.sum()
        self.counts: npt.NDArray[np.int64] = np.array(counts or [0] * len(weights), dtype=np.int64)
        self._total = int(self.counts.sum())

    def next(self) -> int:
        """The choice that is furthest behind its share; the first of equals."""
        self._total += 1
        choice = int(np.argmax(self._shares * self._total - self.counts)) if len(self.counts) > 1 else 0
        self.counts[choice] += 1
        return choice


class Schedule:
    """The lane of every row: sources take turns by their shares, the lanes of a source by their sizes."""

    def __init__(
        self,
        shares: Sequence[float],
        lane_sizes: Sequence[Sequence[float]],
        counts: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self._lanes = [RoundRobin(sizes, counts[i] if counts else None) for i, sizes in enumerate(lane_sizes)]
        self._sources = RoundRobin(shares, [int(lanes.counts.sum()) for lanes in self._lanes])
        self._first = np.cumsum([0, *map(len, lane_sizes)]).tolist()

    def next(self) -> int:
        """The lane of the next row, counted over all sources."""
        source = self._sources.next()
        return int(self._first[source] + self._lanes[source].next())

    def counts(self) -> list[list[int]]:
        """Rows so far, of each lane of each source."""
        return [lanes.counts.tolist() for lanes in self._lanes]


class Share(NamedTuple):
    """The rows of one of several processes that train together: they take turns, row i of a run is of rank i mod n."""

    rank: int = 0
    ranks: int = 1

    def holds(self, row: int) -> bool:
        """Whether row i of the run, from 0, is one of these."""
        return row % self.ranks == self.rank


ALL = Share()
"""Every row: one process trains alone."""


def assign(weights: Sequence[float], workers: int) -> list[int]:
    """The worker of each lane: the heaviest lane first, each to the worker with the least to do."""
    load = [0.0] * workers
    owner = [0] * len(weights)
    for lane in sorted(range(len(weights)), key=lambda lane: (-weights[lane], lane)):
        owner[lane] = min(range(workers), key=lambda worker: (load[worker], worker))
        load[owner[lane]] += weights[lane]
    return owner

"""Times systems that write text in turn, while little else goes on, for `bpe.py`."""

import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

QUIET = 0.1
"""Cores that others may take while a turn is timed."""

Times = list[float]
"""Seconds from the prompts to the first id of every sequence, the second, and so on."""


@dataclass(frozen=True)
class System:
    """What to time, and what one id of every sequence stands for, together."""

    write: Callable[[], Times]
    id_bytes: float
    id_characters: float


def measure(
    systems: dict[str, System], ratios: dict[str, tuple[str, str]], repeats: int, deadline: float
) -> dict[str, Any]:
    """Time the systems in turn; until the deadline, only while little else goes on."""
    for system in systems.values():
        system.write()  # warms up, and compiles what these steps need
    turns: list[dict[str, Rates]] = []
    others: list[float] = []
    while len(turns) < repeats:
        wait_for_quiet(deadline)
        turn, measured = {}, cores_of_others()
        for name in sorted(systems, reverse=bool(len(turns) % 2)):
            turn[name] = Rates.of(systems[name])
        taken = measured()
        if not taken > QUIET or time.monotonic() > deadline:
            turns.append(turn)
            others.append(taken)
    found = {
        name: {measure: spread([getattr(turn[name], measure) for turn in turns]) for measure in MEASURES}
        for name in systems
    }
    for ratio, (one, other) in ratios.items():
        found[ratio] = {
            measure: spread([getattr(turn[one], measure) / getattr(turn[other], measure) for turn in turns])
            for measure in MEASURES
        }
    return {"cores_of_others": None if math.isnan(sum(others)) else max(0.0, *others), **found}


def wait_for_quiet(deadline: float) -> None:
    """Sleep while other processes are busy, until the deadline at most."""
    while time.monotonic() < deadline:
        measured = cores_of_others()
        time.sleep(0.5)
        if not measured() > QUIET:
            return


def cores_of_others() -> Callable[[], float]:
    """To be called later: the cores that all other processes have used since, on average; not a number if not known."""

    def now() -> tuple[float, float]:
        try:
            user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
        except OSError:
            return time.perf_counter(), math.nan
        busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        return time.perf_counter(), busy - time.process_time()

    started, before = now()

    def measured() -> float:
        ended, after = now()
        return (after - before) / (ended - started)

    return measured


@dataclass(frozen=True)
class Rates:
    """What one turn of a system says."""

    first_text_s: float
    all_text_s: float
    bytes_per_s: float
    characters_per_s: float

    @classmethod
    def of(cls, system: System) -> "Rates":
        """Time it."""
        times = system.write()
        ids_per_s = (len(times) - 1) / (times[-1] - times[0])
        return cls(times[0], times[-1], ids_per_s * system.id_bytes, ids_per_s * system.id_characters)


MEASURES = [field.name for field in fields(Rates)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}

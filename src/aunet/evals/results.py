"""What a task gives: a score with its interval, and what it was measured with."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

HASH = "data_hash"
"""The setting that tells examples apart which have no version, as those of files of one's own."""


def data_hash(texts: Iterable[str]) -> str:
    """Of the texts of examples, in order.

    >>> data_hash(["a", "b"]) != data_hash(["ab"])
    True
    """
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode(errors="surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class TaskResult:
    """One metric of one task."""

    task: str
    metric: str
    value: float
    low: float
    """Bounds of the 95% interval, by the bootstrap over examples;"""
    high: float
    """both are the value where an interval has no meaning."""
    n: int
    """Examples."""
    seed: int
    """Of the bootstrap, and of whatever else the task draws."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the score depends on beside the model: number of examples in the prompt, limit, version of the task."""
    examples: tuple[float, ...] = ()
    """Score of each example in the order of the data, for paired comparisons; empty where they do not average."""
    counts: tuple[tuple[int, ...], ...] = ()
    """Of each example what a score of all together, such as BLEU, is made of when it is summed; else empty."""
    sizes: tuple[int, ...] = ()
    """Bytes of each example where the score is a sum over all of them, such as bits per byte; else empty."""

    @property
    def measure(self) -> str:
        """The metric, and how the answer was taken from what was written where a task does so in several ways."""
        return f"{self.metric} ({self.settings['filter']})" if "filter" in self.settings else self.metric

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "task": self.task,
            "metric": self.metric,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "seed": self.seed,
            "settings": dict(self.settings),
            "examples": list(self.examples),
            "counts": list(map(list, self.counts)),
            "sizes": list(self.sizes),
        }

"""The n-grams that a model's look-ups know: the most frequent ones of the first of its training text.

Shapes: T positions of a stage packed end to end, N lengths of its n-grams.

They are counted once, before the first step, by the first rank; from then on their keys are a part of the model.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aunet.config import RunConfig
from aunet.data.batch import collate
from aunet.data.loader import Loader
from aunet.model.aunet import AUNet
from aunet.model.layout import build_layout
from aunet.model.lookup import lookup_keys
from aunet.splitting import splitter
from aunet.train.distributed import Ranks
from aunet.vocabulary import vocabulary

PART = 1_000_000
"""Bytes that are counted at a time."""
BINS = 16
"""Ranges of keys that are summed one after the other, so that little is held twice."""


class Counted(NamedTuple):
    """Distinct keys, ascending, and how often each was there."""

    keys: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]


class Tally:
    """Counts keys, those of all lengths alike: a key is that of one length alone."""

    def __init__(self) -> None:
        self._bins: list[list[Counted]] = [[] for _ in range(BINS)]

    def add(self, key_TN: Tensor) -> None:
        """Count these once more."""
        keys, counts = np.unique(key_TN.numpy(), return_counts=True)
        edges = np.arange(1, BINS, dtype=np.int64) << 59  # keys have 63 bits
        ends = [0, *np.searchsorted(keys, edges).tolist(), len(keys)]
        for own, start, end in zip(self._bins, ends, ends[1:], strict=False):
            own.append(Counted(keys[start:end], counts[start:end]))

    def most_frequent(self, size: int) -> Tensor:
        """So many keys at most; of those that are as frequent, the smallest."""
        found = [_first(_summed(own), size) for own in self._bins if own]
        if not found:
            return torch.empty(0, dtype=torch.int64)
        keys, counts = (np.concatenate(columns) for columns in zip(*found, strict=True))
        order = np.argsort(keys)
        return torch.from_numpy(_first(Counted(keys[order], counts[order]), size).keys)


def _summed(parts: list[Counted]) -> Counted:
    keys, counts = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    distinct, index = np.unique(keys, return_inverse=True)
    return Counted(distinct, np.bincount(index, weights=counts, minlength=len(distinct)).astype(np.int64))


def _first(counted: Counted, size: int) -> Counted:
    order = np.argsort(-counted.counts, kind="stable")[:size]
    return Counted(counted.keys[order], counted.counts[order])


def know_ngrams(model: AUNet, config: RunConfig, ranks: Ranks, say: Callable[[str], None]) -> None:
    """Give the rows of look-ups that know their n-grams to the most frequent ones; all ranks call it together."""
    lookups = {s: lookup for s, lookup in enumerate(model.lookups) if lookup and lookup.config.known}
    if not lookups:
        return

    def count() -> None:
        if ranks.first:
            found = count_ngrams(config, {s: len(lookup.weight) - 1 for s, lookup in lookups.items()})
            for s, keys in found.items():
                lookups[s].know(keys)
                say(f"stage {s + 1} knows {len(keys):,} n-grams of {config.train.lookup_sample:,.0f} bytes")

    ranks.together(count)
    for lookup in lookups.values():
        if lookup.keys is not None:
            ranks.from_first(lookup.keys)


def count_ngrams(config: RunConfig, sizes: dict[int, int]) -> dict[int, Tensor]:
    """Keys of so many n-grams of each of these stages (0-based), the most frequent ones of all its lengths."""
    lookups = [stage.lookup if s in sizes else None for s, stage in enumerate(config.model.stages)]
    tallies = [Tally() for _ in lookups]
    sample, read = config.train.lookup_sample, 0
    with Loader(config.data, splitter(config.model.splitter), vocabulary=vocabulary(config.model)) as loader:
        while read < sample:
            batch = collate(loader.next_rows(math.ceil(min(PART, sample - read) / config.data.seq_len)))
            layouts = build_layout(batch.levels, batch.starts, batch.counts, config.model.offsets)
            for tally, key_TN in zip(tallies, lookup_keys(lookups, batch.ids, layouts), strict=True):
                if key_TN is not None:
                    tally.add(key_TN)
            read += batch.bytes
    return {s: tallies[s].most_frequent(size) for s, size in sizes.items()}

"""What a sequence that is read in pieces remembers of its ids, so that the next ones look up what they would in one.

Shapes: U new units of a stage, N tables of a stage.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from aunet.config import LookupConfig
from aunet.model.lookup import BASE, INVERSE, UNKNOWN, Lookup, key_of, salt, signed

Integers = npt.NDArray[np.int64]


@dataclass
class Trail:
    """The hashes of `aunet.model.lookup` that what was read last has begun."""

    lookups: tuple[LookupConfig | None, ...]
    """Of every stage."""
    known: tuple[Integers | None, ...]
    """Of every stage the sorted keys of the n-grams that have rows, where its look-up knows them."""
    begun: tuple[Integers, ...]
    """Of every stage with a look-up: the hash of what was read after each of the last units, the newest last, as many
    as its longest n-gram has. Where there are no such units, of all that was read."""

    @classmethod
    def of(cls, lookups: Sequence[Lookup | None]) -> "Trail":
        """That of a sequence that has read nothing, for a model whose stages have these look-ups."""
        configs = tuple(lookup.config if lookup else None for lookup in lookups)
        known = tuple(lookup.keys.cpu().numpy() if lookup and lookup.keys is not None else None for lookup in lookups)
        return cls(configs, known, tuple(np.zeros(max(x.ngrams), dtype=np.int64) for x in configs if x is not None))

    def read(self, ids: Sequence[int], levels: Sequence[int]) -> list[Integers | None]:
        """Rows [U, N] that the new units of every stage look up, None where a stage has no look-up; moves on."""
        found: list[Integers | None] = [None] * len(self.lookups)
        if not self.begun or not len(ids):
            return found
        powers_T, weights_T = (_powers(base, -(-len(ids) // BLOCK))[: len(ids)] for base in (BASE, INVERSE))
        # The running sum, which starts anew with every piece.
        after_T = ((np.array(ids, dtype=np.int64) + 1) * weights_T).cumsum()
        level_T, begun = np.asarray(levels), iter(self.begun)
        moved = []
        for s, lookup in enumerate(self.lookups):
            if lookup is None:
                continue
            before = next(begun)
            unit_U = np.flatnonzero(level_T >= s)
            # In terms of that sum, a hash that was begun before the piece starts behind 0.
            starts = -before
            found[s] = np.empty((0, len(lookup.ngrams)), dtype=np.int64)
            if len(unit_U):  # most bytes end no unit of a deeper stage
                starts = np.concatenate([starts, after_T[unit_U]])
                back_N1, salt_N1, first_N1 = _tables(lookup, s)
                start_NU = starts[back_N1 + np.arange(len(unit_U))]
                hash_NU = (after_T[unit_U] - start_NU) * powers_T[unit_U]
                key_NU, keys = key_of(hash_NU, salt_N1), self.known[s]
                row_NU = key_NU % lookup.buckets + first_N1 if keys is None else _known_rows(key_NU, keys)
                found[s] = np.ascontiguousarray(row_NU.T)
            moved.append((after_T[-1] - starts[len(unit_U) :]) * powers_T[-1:])
        self.begun = tuple(moved)
        return found

    def copy(self) -> "Trail":
        """An independent trail after the same ids."""
        return replace(self)  # its arrays are never written to


def _known_rows(key: Integers, keys: Integers) -> Integers:
    """As `aunet.model.lookup.known_rows`, in any shape; for the few n-grams of one byte torch's calls cost the most."""
    index = np.minimum(keys.searchsorted(key), len(keys) - 1)
    return np.where(keys[index] == key, index + 1, UNKNOWN)


BLOCK = 1024


@lru_cache(maxsize=64)
def _powers(base: int, blocks: int) -> Integers:
    """Powers 1, 2 ... of a base, [blocks * BLOCK]."""
    return np.full(blocks * BLOCK, signed(base), dtype=np.int64).cumprod()


@lru_cache(maxsize=64)
def _tables(lookup: LookupConfig, stage: int) -> tuple[Integers, Integers, Integers]:
    """Of every table, [N, 1]: where among the begun hashes its n-gram starts, its salt, its first row."""
    longest = max(lookup.ngrams)
    values = [(longest - n, salt(stage, n), i * lookup.buckets) for i, n in enumerate(lookup.ngrams)]
    back_N1, salt_N1, first_N1 = np.array(values, dtype=np.int64).T[:, :, None]
    return back_N1, salt_N1, first_N1


def rows_of(
    trails: Sequence[Trail], ids: Sequence[int], levels: Sequence[int], new: Sequence[int]
) -> list[Integers | None]:
    """Rows that the new units of every stage look up, those of all sequences end to end; moves the trails on.

    `new`: how many of the ids are each sequence's.
    """
    ends = [0, *accumulate(new)]
    found = [
        trail.read(ids[start:end], levels[start:end]) for trail, start, end in zip(trails, ends, ends[1:], strict=False)
    ]
    if len(found) == 1:
        return found[0]
    return [None if parts[0] is None else np.concatenate(parts) for parts in zip(*found, strict=True)]

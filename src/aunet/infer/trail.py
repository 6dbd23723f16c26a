"""What a sequence that is read in pieces remembers of its ids, so that the next ones look up what they would in one.

Shapes: U new units of a stage, N tables of a stage.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from aunet.config import AUNetConfig, LookupConfig
from aunet.model.lookup import BASE, INVERSE, MODULUS, row_of, signed

Integers = npt.NDArray[np.int64]


@dataclass
class Trail:
    """The running sum of `aunet.model.lookup` after the last ids."""

    lookups: tuple[LookupConfig | None, ...]
    """Of every stage."""
    seen: int = 0
    """Ids read; not counted where no stage has a look-up."""
    total: Integers = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    """The sum after all of them, [1]."""
    ends: tuple[Integers, ...] = ()
    """Of every stage with a look-up, the sum after each of the last units, as many as its longest n-gram has; 0, the
    sum before the first id, stands for those before the text."""

    @classmethod
    def of(cls, config: AUNetConfig) -> "Trail":
        """That of a sequence that has read nothing."""
        lookups = tuple(stage.lookup for stage in config.stages)
        ends = tuple(np.zeros(max(x.ngrams), dtype=np.int64) for x in lookups if x is not None)
        return cls(lookups, ends=ends)

    def read(self, ids: Sequence[int], levels: Sequence[int]) -> list[Integers | None]:
        """Rows [U, N] that the new units of every stage look up, None where a stage has no look-up; moves on."""
        found: list[Integers | None] = [None] * len(self.lookups)
        if not self.ends:
            return found
        powers_T, weights_T = (self._powers(base, len(ids)) for base in (BASE, INVERSE))
        after_T = ((np.array(ids, dtype=np.int64) + 1) * weights_T).cumsum() + self.total
        level_T, ends = np.asarray(levels), iter(self.ends)
        moved = []
        for s, lookup in enumerate(self.lookups):
            if lookup is None:
                continue
            unit_U = np.flatnonzero(level_T >= s)
            before, after_U, powers_U = next(ends), after_T[unit_U], powers_T[unit_U]
            units = np.concatenate([before, after_U])
            starts = [units[len(before) - n : len(units) - n] for n in lookup.ngrams]
            found[s] = np.stack(
                [row_of((after_U - start_U) * powers_U, lookup, s, i) for i, start_U in enumerate(starts)], axis=1
            )
            moved.append(units[len(unit_U) :])
        self.seen, self.ends = self.seen + len(ids), tuple(moved)
        self.total = np.concatenate([self.total, after_T])[-1:]
        return found

    def _powers(self, base: int, count: int) -> Integers:
        """Powers of the next positions, counted from 1."""
        powers_T = np.full(count, signed(base), dtype=np.int64)
        powers_T[:1] = signed(pow(base, self.seen + 1, MODULUS))
        return powers_T.cumprod()

    def copy(self) -> "Trail":
        """An independent trail after the same ids."""
        return replace(self)  # its arrays are never written to


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

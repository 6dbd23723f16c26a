"""Guesses of the bytes that come next, which a model can check faster than it writes them.

A table per order n: the byte that followed the last n bytes, and how often it did. Texts that were read beforehand and
the sequences that are being written fill it, so repetitions of a prompt are guessed as well as common words.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

ORDERS = (8, 6, 5, 4, 3)
"""Bytes looked back at, longest first; at most the 8 of a 64-bit word."""
BITS = 20
"""Entries of each table, as a power of two; n-grams that meet in one place spoil a guess and nothing else."""
_MIX = 0x9E3779B97F4A7C15
_WORD = (1 << 64) - 1


class Drafts:
    """Fixed memory (5 MiB an order), constant time per byte."""

    def __init__(self, likely: float = 0.5) -> None:
        self.likely = likely
        """How often a byte must have followed, of one time more than its n-gram was seen, to be guessed."""
        size = 1 << BITS
        self._next = {n: np.zeros(size, dtype=np.uint8) for n in ORDERS}
        self._hits = {n: np.zeros(size, dtype=np.uint16) for n in ORDERS}
        self._seen = {n: np.zeros(size, dtype=np.uint16) for n in ORDERS}

    def read(self, text: bytes) -> None:
        """Learn from a whole text; what it shows replaces what was known of its n-grams unless that is surer."""
        data = np.frombuffer(text, dtype=np.uint8)
        for n in ORDERS:
            if len(data) <= n:
                continue
            pairs, counts = np.unique(_places(data, n)[:-1] << np.int64(8) | data[n:], return_counts=True)
            # Of the bytes that came after one n-gram, the commonest is the last.
            order = np.lexsort((counts, pairs >> 8))
            pairs, counts = pairs[order], counts[order]
            place, first = np.unique(pairs >> 8, return_index=True)
            last = np.append(first[1:], len(pairs)) - 1
            surer = counts[last] > self._hits[n][place]
            place, last, seen = place[surer], last[surer], np.add.reduceat(counts, first)[surer]
            self._next[n][place] = pairs[last] & 255
            self._hits[n][place] = np.minimum(counts[last], 1 << 15)
            self._seen[n][place] = np.minimum(seen, 1 << 15)

    def follow(self, before: bytes, byte: int) -> None:
        """Learn that a byte came after these."""
        for n in ORDERS:
            if len(before) < n:
                continue
            place, (following, hits, seen) = _place(before, n), (self._next[n], self._hits[n], self._seen[n])
            if seen[place] >= 1 << 15:  # old counts fade
                hits[place] >>= 1
                seen[place] >>= 1
            seen[place] += 1
            if following[place] == byte:
                hits[place] += 1
            elif hits[place] > 1:
                hits[place] -= 1
            else:
                following[place], hits[place], seen[place] = byte, 1, 1

    def guess(self, before: bytes, count: int) -> list[int]:
        """At most so many bytes that may follow."""
        return list(self._guesses(before[-ORDERS[0] :], count))

    def _guesses(self, before: bytes, count: int) -> Iterator[int]:
        for _ in range(count):
            for n in ORDERS:
                if len(before) < n:
                    continue
                place = _place(before, n)
                if self._hits[n][place] >= self.likely * (int(self._seen[n][place]) + 1):
                    byte = int(self._next[n][place])
                    break
            else:
                return
            yield byte
            before = before[1 - ORDERS[0] :] + bytes([byte])


def _place(before: bytes, n: int) -> int:
    """Where the last n bytes are in a table."""
    return (int.from_bytes(before[-n:], "little") * _MIX & _WORD) >> (64 - BITS)


def _places(data: npt.NDArray[np.uint8], n: int) -> npt.NDArray[np.int64]:
    """The same for every n bytes of a text, [len(data) - n + 1]."""
    words = np.zeros(len(data) - n + 1, dtype=np.uint64)
    for i in range(n):
        words |= data[i : len(data) - n + 1 + i].astype(np.uint64) << np.uint64(8 * i)
    return (words * np.uint64(_MIX) >> np.uint64(64 - BITS)).astype(np.int64)

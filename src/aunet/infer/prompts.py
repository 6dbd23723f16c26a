"""Contexts of texts that were read before, for requests that begin with the same text."""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aunet.infer.state import Context
from aunet.infer.writer import Logits

ID_BYTES = 4


@dataclass(frozen=True)
class Read:
    """A text that was read."""

    count: int
    """Its ids, BOS not counted."""
    context: Context
    logits_V: Logits
    """Scores of the id after it."""


class PromptCache:
    """The texts that were read last, within a bound of memory.

    Contexts share the pages they have in common, and so they count once. States of recurrences are as large for a short
    text as for a long one.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        """Bytes of keys, values and states, and of the ids and scores of every text."""
        self.size = 0
        self._read: OrderedDict[bytes, Read] = OrderedDict()
        """By the packed ids."""
        self._holders: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._read)

    def find(self, whole: bytes, multiple: int = 1) -> Read | None:
        """The longest text read that these packed ids begin with: all of them or a multiple of so many."""
        usable = (
            key
            for key, read in self._read.items()
            if whole.startswith(key) and (read.count % multiple == 0 or key == whole)
        )
        found = max(usable, key=len, default=None)
        if found is None:
            return None
        self._read.move_to_end(found)
        return self._read[found]

    def add(self, key: bytes, context: Context, logits_V: Logits) -> None:
        """Keep a copy of a context that has read BOS and packed ids; lets go of the ones that were used longest ago."""
        if not key or not self.limit or key in self._read:
            return
        read = Read(len(key) // ID_BYTES, context.copy(), logits_V.copy())
        self._read[key] = read
        self.size += _own(key, read)
        for part in read.context.kept():
            self.size += part.nbytes if not self._holders[id(part)] else 0
            self._holders[id(part)] += 1
        while self.size > self.limit:
            old_key, old = self._read.popitem(last=False)
            self.size -= _own(old_key, old)
            for part in old.context.kept():
                self._holders[id(part)] -= 1
                if not self._holders[id(part)]:
                    del self._holders[id(part)]
                    self.size -= part.nbytes


def _own(key: bytes, read: Read) -> int:
    """Bytes that a text shares with no other: many where there are many tokens, or many ids."""
    return len(key) + read.logits_V.nbytes


def pack(ids: Sequence[int]) -> bytes:
    """Ids as they are compared at the speed of memory; the first n of them are ID_BYTES * n bytes."""
    return np.asarray(ids, dtype=np.int32).tobytes()

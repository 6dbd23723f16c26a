"""Contexts of texts that were read before, for requests that begin with the same text."""

from collections import Counter, OrderedDict
from dataclasses import dataclass

from aunet.infer.state import Context
from aunet.infer.writer import Logits


@dataclass(frozen=True)
class Read:
    """A text that was read."""

    data: bytes
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
        """Bytes of keys, values and states."""
        self.size = 0
        self._read: OrderedDict[bytes, Read] = OrderedDict()
        self._holders: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._read)

    def find(self, data: bytes, multiple: int = 1) -> Read | None:
        """The longest text read that `data` begins with: `data` itself or a multiple of so many bytes."""
        usable = (key for key in self._read if data.startswith(key) and (len(key) % multiple == 0 or key == data))
        found = max(usable, key=len, default=None)
        if found is None:
            return None
        self._read.move_to_end(found)
        return self._read[found]

    def add(self, data: bytes, context: Context, logits_V: Logits) -> None:
        """Keep a copy of a context that has read BOS and `data`; lets go of the ones that were used longest ago."""
        if not data or data in self._read or not self.limit:
            return
        read = Read(data, context.copy(), logits_V.copy())
        self._read[data] = read
        for part in read.context.kept():
            self.size += part.nbytes if not self._holders[id(part)] else 0
            self._holders[id(part)] += 1
        while self.size > self.limit:
            _, old = self._read.popitem(last=False)
            for part in old.context.kept():
                self._holders[id(part)] -= 1
                if not self._holders[id(part)]:
                    del self._holders[id(part)]
                    self.size -= part.nbytes

"""What a model remembers of the sequences it reads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aunet.infer.pages import Memory, Page
from aunet.infer.trail import Trail
from aunet.model.mamba import MambaState
from aunet.splitting import Stream


@dataclass
class Context:
    """What a model remembers of one sequence; a batch is any list of them, wherever each of them is."""

    memories: list[Memory]
    """Of every stage, bytes first."""
    stream: Stream
    """The splitter, after the last byte."""
    trail: Trail
    """The ids, as far as look-ups ask for them."""

    @property
    def seen(self) -> int:
        """Ids read, BOS included."""
        return self.memories[0].seen

    def kept(self) -> Iterator[Page | MambaState]:
        """All that takes memory and may be shared with copies: pages, and states of recurrences."""
        for memory in self.memories:
            yield from memory.pages
            yield from memory.states.values()

    def copy(self) -> "Context":
        """An independent continuation of the same ids; what was read is shared."""
        return Context([memory.copy() for memory in self.memories], self.stream.copy(), self.trail.copy())


@dataclass
class State:
    """A batch of contexts."""

    contexts: list[Context]

    def copy(self, members: Sequence[int]) -> "State":
        """An independent state of these sequences, in this order; a sequence may be taken several times."""
        return State([self.contexts[b].copy() for b in members])

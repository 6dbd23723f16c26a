"""Reading id by id or in pieces: the forward pass with a memory. Ids are bytes, or tokens for a model over tokens.

Shapes: B sequences, T new positions of all sequences end to end, D width of a stage, V vocabulary.

One function reads any number of new bytes of any subset of the sequences (`Session.extend`). A stage runs only for the
positions that were pooled: byte by byte that is only when a sequence completes a unit, and every other byte takes the
stage's last output vector again, one offset further. One byte or a million, from an empty state or any other, its
logits are those of the forward pass over the whole text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aunet.bytes import BOS
from aunet.infer.eager import EagerKernels
from aunet.infer.kernels import Kernels
from aunet.infer.pages import Memory
from aunet.infer.state import Context, State
from aunet.infer.trail import Trail
from aunet.model.aunet import AUNet
from aunet.splitting import Splitter
from aunet.vocabulary import BYTES, Vocabulary

Ids = Sequence[int] | npt.NDArray[np.integer]


class Session:
    """A model prepared for reading. What can be folded is folded once, so the weights must not change meanwhile."""

    def __init__(
        self,
        model: AUNet,
        splitter: Splitter,
        kernels: Kernels | None = None,
        vocabulary: Vocabulary = BYTES,
    ) -> None:
        self.model, self.splitter, self.vocabulary = model, splitter, vocabulary
        self.device = model.head_weight.device
        self.kernels: Kernels = kernels or EagerKernels(model)
        self._trail = Trail.of(model.lookups)
        self._recurrent = any(stage.mixer == "mamba2" for stage in model.config.stages)

    def context(self) -> Context:
        """A sequence that has read nothing, not even BOS."""
        memories = [Memory(stage.window) for stage in self.model.config.stages]
        return Context(memories, self.splitter.stream(), self._trail.copy())

    def start(self, batch: int) -> State:
        """The state of `batch` sequences that have read nothing."""
        return State([self.context() for _ in range(batch)])

    def levels(self, context: Context, ids: Ids) -> list[int]:
        """Levels of the next ids; moves the splitter on. BOS opens a text and has the highest level.

        Models over tokens have one stage, and so every level is 0, whatever an id stands for.
        """
        highest, levels = self.splitter.depth, []
        for i in ids:
            if i < BOS:
                levels.append(context.stream.push(int(i)))
            else:
                context.stream = self.splitter.stream()
                levels.append(highest)
        if levels and context.seen == 0:
            levels[0] = highest
        return levels

    @torch.inference_mode()
    def extend(
        self,
        state: State,
        ids: Sequence[Ids],
        levels: Sequence[Ids] | None = None,
        hidden: list[Tensor] | None = None,
    ) -> list[Tensor]:
        """Read new ids of every sequence (B lists, some may be empty); returns their next-byte logits, B times [n, V].

        `levels`: of these ids, by the splitter if not given; the first id of a sequence must have the highest level.
        `hidden`: a list to which the output vectors of the stages are appended, bytes first, [T, D] each; for one
        sequence.
        """
        if levels is None:
            levels = [self.levels(context, x) for context, x in zip(state.contexts, ids, strict=True)]
        found: list[list[Tensor]] = [[] for _ in ids]
        outputs: list[list[Tensor]] = [[] for _ in self.model.config.stages]
        size = self.kernels.rows
        for first in range(0, max(map(len, ids), default=0), size):
            members = [b for b, x in enumerate(ids) if len(x) > first]
            pieces, parts = ([_integers(of[b][first : first + size]) for b in members] for of in (ids, levels))
            new = [len(piece) for piece in pieces]
            logits_TV, reached = self.kernels.read(
                [state.contexts[b] for b in members], [*chain(*pieces)], [*chain(*parts)], new
            )
            for b, rows in zip(members, logits_TV.split(new), strict=True):
                found[b].append(rows)
            for kept, output in zip(outputs, reached, strict=False):
                kept.append(output)
        if hidden is not None:
            hidden += [torch.cat(parts) for parts in outputs if parts]
        nothing = torch.empty((0, self.model.config.vocab_size), dtype=self.kernels.dtype, device=self.device)
        return [rows[0] if len(rows) == 1 else torch.cat(rows) if rows else nothing for rows in found]

    def try_out(
        self, contexts: Sequence[Context], ids: Sequence[Sequence[int]], levels: Sequence[Sequence[int]]
    ) -> tuple[list[Tensor], Sequence["Rewind | Reread"]]:
        """Read at least one id of each context; some of the last may be taken back: their logits, and how to do so.

        The levels are given, and the splitters have not moved yet: `Rewind` moves them.
        """
        copies = [context.copy() for context in contexts] if self._recurrent else []
        before = [[(m.seen, m.coarse_E, m.offset) for m in context.memories] for context in contexts]
        trails = [context.trail.copy() for context in contexts]
        new = [len(x) for x in ids]
        with torch.inference_mode():
            logits_TV, outputs = self.kernels.read(contexts, [*chain(*ids)], [*chain(*levels)], new)
        if copies:
            them = zip(contexts, copies, ids, levels, strict=True)
            return list(logits_TV.split(new)), [Reread(self.kernels, *one) for one in them]
        rewinds, firsts = [], [0] * len(outputs)
        for context, x, of, was, trail in zip(contexts, ids, levels, before, trails, strict=True):
            counts = [sum(level >= s for level in of) for s in range(len(outputs))]
            rows = [output[a : a + n] for output, a, n in zip(outputs, firsts, counts, strict=True)]
            firsts = [a + n for a, n in zip(firsts, counts, strict=True)]
            rewinds.append(Rewind(context, x, of, was, trail, rows))
        return list(logits_TV.split(new)), rewinds

    @torch.inference_mode()
    def step(self, state: State, ids: Sequence[int]) -> Tensor:
        """Read one id of every sequence; [B, V]."""
        levels = [self.levels(context, [i])[0] for context, i in zip(state.contexts, ids, strict=True)]
        return self.kernels.read(state.contexts, ids, levels, [1] * len(ids))[0]


@dataclass(frozen=True)
class Rewind:
    """How to take back the last of some ids that were read."""

    context: Context
    ids: Sequence[int]
    levels: Sequence[int]
    before: list[tuple[int, Tensor | None, int]]
    """Of every stage: positions, last coarse vector, offset."""
    trail: Trail
    """As it was before."""
    outputs: list[Tensor]
    """Of every stage, the vectors of the new positions."""

    def keep(self, count: int) -> None:
        """Leave the context as if only the first `count` ids had been read."""
        for i in self.ids[:count]:
            self.context.stream.push(i)
        if count == len(self.ids):
            return
        level = list(self.levels[:count])
        self.trail.read(self.ids[:count], level)
        self.context.trail = self.trail
        for s, (memory, (seen, coarse_E, offset)) in enumerate(zip(self.context.memories, self.before, strict=True)):
            level = [one for one in level if one >= s]
            units = [i for i, one in enumerate(level) if one > s]
            memory.go_back(seen + len(level))
            if s + 1 == len(self.before):
                continue
            memory.coarse_E = self.outputs[s + 1][len(units) - 1].clone() if units else coarse_E
            memory.offset = len(level) - units[-1] if units else offset + len(level)


@dataclass(frozen=True)
class Reread:
    """The same where a recurrence has read them: its state holds all ids at once, so those that stay are read again."""

    kernels: Kernels
    context: Context
    before: Context
    """A copy that has not read them."""
    ids: Sequence[int]
    levels: Sequence[int]

    @torch.inference_mode()
    def keep(self, count: int) -> None:
        """Leave the context as if only the first `count` ids, at least one, had been read."""
        for i in self.ids[:count]:
            self.context.stream.push(i)
        if count < len(self.ids):
            self.context.memories, self.context.trail = self.before.memories, self.before.trail
            self.kernels.read([self.context], self.ids[:count], self.levels[:count], [count])


def document_levels(ids_n: npt.NDArray[np.integer], splitter: Splitter) -> npt.NDArray[np.uint8]:
    """Levels of a document at once, [n]: a mark has the highest one and starts the splitter anew."""
    levels_n = np.full(len(ids_n), splitter.depth, dtype=np.uint8)
    if not splitter.depth:  # then ids may be tokens
        return levels_n
    marks = np.flatnonzero(ids_n >= BOS)
    for start, end in zip([0, *(marks + 1)], [*marks, len(ids_n)], strict=True):
        levels_n[start:end] = splitter.levels(ids_n[start:end].astype(np.uint8).tobytes())
    levels_n[:1] = splitter.depth
    return levels_n


def _integers(values: Ids) -> list[int]:
    return values.tolist() if isinstance(values, np.ndarray) else list(values)

"""Many requests at once: they join and leave between two ids, and share what they begin with.

Ids are bytes, or tokens for a model over tokens; what requests say and counters count is in bytes. Each round reads a
bounded piece of the prompts that are not read yet, and the newest id of the sequences that are being written. A
sequence that completes a unit waits a few rounds for others that do, because the deeper stages read their weights once
for all of these units: `HOLD` says how long at most.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from aunet.errors import ConfigError
from aunet.infer.drafts import ORDERS, Drafts
from aunet.infer.prompts import ID_BYTES, PromptCache, pack
from aunet.infer.request import ByteScore, Event, Request
from aunet.infer.scoring import together
from aunet.infer.session import Session
from aunet.infer.state import Context, State
from aunet.infer.writer import Logits, Writer, score_of
from aunet.splitting import Stream

PIECE = 512
"""Prompts are kept for other requests at every multiple of so many ids, and at their ends."""
PROMPT_IDS = 2048
"""Ids of prompts read in a round while others are being written; otherwise as many as are scored together."""
REACH = max(ORDERS)
"""Bytes that guesses depend on."""
MOST_GUESSES = 64
HOLD = 8
"""Rounds that a sequence waits at most for others that complete a unit too."""


@dataclass
class EngineCounters:
    """What an engine has done since it was made."""

    requests: int = 0
    prompt_bytes: int = 0
    cached_prompt_bytes: int = 0
    """Those of them that had been read for another request."""
    new_bytes: int = 0
    passes: int = 0
    """Times that a sequence read its newest byte, with what was guessed after it."""
    guessed_bytes: int = 0
    accepted_bytes: int = 0
    """Guesses, and those of them that the model wrote indeed."""


@dataclass(eq=False)  # sequences are told apart, not compared
class _Sequence:
    """A request that has a place."""

    writer: Writer
    packed: bytes
    """The ids of its prompt, as `PromptCache` compares them: packed once, not for every piece of a long one."""
    context: Context
    to_read: list[int]
    """Ids of the prompt, or the newest id."""
    levels: list[int] = field(default_factory=list)
    after: Stream = field(init=False)
    """The splitter after the newest id; the context's own is before it until it is read."""
    done: list[int] = field(default_factory=list)
    """Ids that were read of the prompt, without BOS, and of the continuation behind it."""
    held: int = 0
    """Rounds since it began to wait for others."""
    scores: list[ByteScore] = field(default_factory=list)
    """Of the prompt, as far as it was read and if they were asked for."""

    @property
    def reads_prompt(self) -> bool:
        return len(self.done) < len(self.writer.prompt) or not self.context.seen


@dataclass(eq=False)
class _Waiting:
    """A request without a place."""

    writer: Writer
    packed: bytes
    awaited: tuple[_Sequence, int] | None = None
    """A sequence that reads what this one begins with, and ids of it that will be kept: found by comparing prompts,
    which takes long for long ones and is not done again before these ids are read."""


class Engine:
    """Continuous batching over one session. Not for several threads at once: one owns it.

    `slots`: requests that are worked on together; others wait in order. `prompt_cache`: bytes of keys and values kept
    for requests that begin alike. `invariant`: read every sequence by itself, so that not even the last bit of a
    logit depends on what else is going on; slower, unless the session's kernels are invariant anyway. `drafts`: guess
    up to `guesses` bytes and read them with the newest one; a guess that is not what the model draws is taken back, so
    what is written is the same, but for rounding where kernels are not invariant; for models over bytes.
    """

    def __init__(
        self,
        session: Session,
        slots: int = 64,
        prompt_cache: int = 256 << 20,
        invariant: bool = False,
        drafts: Drafts | None = None,
        guesses: int = 8,
    ) -> None:
        if slots < 1:
            raise ConfigError(f"slots: {slots} is not at least 1")
        if prompt_cache < 0:
            raise ConfigError(f"prompt_cache: {prompt_cache} is below 0; 0 keeps no prompt")
        if not 1 <= guesses <= MOST_GUESSES:
            raise ConfigError(f"guesses: {guesses} is not from 1 to {MOST_GUESSES}")
        if drafts and session.vocabulary.unit != "byte":
            raise ConfigError("drafts: bytes are guessed, and this model reads tokens; leave drafts out")
        self.session, self.slots = session, slots
        self.prompts = PromptCache(prompt_cache)
        self.counters = EngineCounters()
        self._alone = invariant and not session.kernels.invariant
        self._drafts, self._guesses = (None if self._alone else drafts), guesses
        self._waiting: deque[_Waiting] = deque()
        self._sequences: list[_Sequence] = []

    @property
    def waiting(self) -> int:
        """Requests without a place."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Requests with a place."""
        return len(self._sequences)

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._waiting or self._sequences)

    def submit(self, request: Request) -> int:
        """Ask for a continuation; the ticket is the `index` of its events."""
        if request.alternatives is not None and self.session.vocabulary.unit != "byte":
            raise ConfigError("alternatives: bytes are scored, and this model reads tokens; leave alternatives out")
        writer = Writer(self.counters.requests + 1, request, self.session.vocabulary)
        self.counters.requests += 1
        self.counters.prompt_bytes += len(request.prompt)
        self._waiting.append(_Waiting(writer, pack(writer.prompt)))
        return self.counters.requests

    def cancel(self, ticket: int) -> None:
        """Free the place of a request; there are no more events of it. Unknown tickets are ignored."""
        self._waiting = deque(one for one in self._waiting if one.writer.index != ticket)
        self._sequences = [sequence for sequence in self._sequences if sequence.writer.index != ticket]

    def step(self) -> list[Event]:
        """One round; the events of it."""
        events = self._admit()
        events += self._read_prompts()
        events += self._read_bytes()
        return events

    def _admit(self) -> list[Event]:
        """Give places to those who wait, in order; a request waits on while another one reads what it begins with."""
        events: list[Event] = []
        postponed: list[_Waiting] = []
        while self._waiting and len(self._sequences) < self.slots:
            waiting = self._waiting.popleft()
            if self._still_reads(waiting.awaited):
                postponed.append(waiting)
                continue
            writer, packed = waiting.writer, waiting.packed
            prompt = writer.prompt
            scored = writer.request.echo and writer.request.alternatives is not None
            # Read alone, a prompt is cut at multiples of a piece, and so is what it may begin with.
            read = None if scored else self.prompts.find(packed, PIECE if self._alone else 1)
            known = prompt[: read.count] if read else []
            waiting.awaited = None if scored else self._reading_now(prompt, len(known))
            if waiting.awaited:
                postponed.append(waiting)
                continue
            if read is None:
                sequence = _Sequence(writer, packed, self.session.context(), [self.session.vocabulary.bos, *prompt])
            else:
                self.counters.cached_prompt_bytes += int(self.session.vocabulary.lengths(known).sum())
                sequence = _Sequence(writer, packed, read.context.copy(), prompt[len(known) :], done=known)
            self._sequences.append(sequence)
            if self._drafts:
                self._drafts.read(writer.request.prompt)
            if writer.request.echo and not scored:
                events.append(writer.echo())
            if read is not None and len(known) == len(prompt):
                events += self._write(sequence, read.logits_V)
        self._waiting.extendleft(reversed(postponed))
        return events

    def _reading_now(self, prompt: list[int], known: int) -> tuple[_Sequence, int] | None:
        """A sequence that will soon have read more of a prompt than is known, and how much of it will be kept."""
        if not self.prompts.limit:
            return None
        for sequence in self._sequences:
            if sequence.reads_prompt:
                common = _kept_in_common(prompt, sequence.writer.prompt)
                if common > max(known, len(sequence.done)):  # what it has read and nobody knows was let go
                    return sequence, common
        return None

    def _still_reads(self, awaited: tuple[_Sequence, int] | None) -> bool:
        """Whether what a request waits for is still to come: its reader may have been cancelled."""
        if awaited is None:
            return False
        sequence, common = awaited
        return len(sequence.done) < common and sequence in self._sequences

    def _read_prompts(self) -> list[Event]:
        reading = [sequence for sequence in self._sequences if sequence.reads_prompt]
        if not reading:
            return []
        left = together(self.session)
        if len(reading) < len(self._sequences):
            left = min(left, PROMPT_IDS)
        chosen: list[_Sequence] = []
        sizes: list[int] = []
        for sequence in reading:
            # Up to the next multiple of a piece: the same cuts whoever else reads.
            size = min(len(sequence.to_read), PIECE - len(sequence.done) % PIECE + (not sequence.context.seen))
            if chosen and size > left:
                break
            chosen.append(sequence)
            sizes.append(size)
            left -= size
        events: list[Event] = []
        rows = self._extend(chosen, [s.to_read[:n] for s, n in zip(chosen, sizes, strict=True)])
        for sequence, size, logits_nV in zip(chosen, sizes, rows, strict=True):
            ids = sequence.to_read[:size]
            del sequence.to_read[:size]
            sequence.done += [i for i in ids if i != self.session.vocabulary.bos]
            self.prompts.add(sequence.packed[: ID_BYTES * len(sequence.done)], sequence.context, logits_nV[-1])
            request = sequence.writer.request
            if request.echo and request.alternatives is not None:
                first = len(sequence.scores)
                following = request.prompt[first : first + size]
                sequence.scores += [
                    score_of(row, i, request.alternatives) for row, i in zip(logits_nV, following, strict=False)
                ]
                if not sequence.to_read:
                    events.append(sequence.writer.echo(sequence.scores))
            if not sequence.to_read:
                events += self._write(sequence, logits_nV[-1])
        return events

    def _read_bytes(self) -> list[Event]:
        writing = [sequence for sequence in self._sequences if sequence.levels]
        if not writing:
            return []
        ending = [sequence for sequence in writing if any(sequence.levels)]
        together = 4 * len(ending) >= 3 * len(writing) or any(sequence.held >= HOLD for sequence in ending)
        if not together:
            for sequence in ending:
                sequence.held += 1
            writing = [sequence for sequence in writing if not any(sequence.levels)]
        self.counters.passes += len(writing)
        for sequence in writing:
            sequence.held = 0
        if self._drafts:
            return self._read_guesses(writing, self._drafts)
        events: list[Event] = []
        rows = self._extend(writing, [s.to_read for s in writing], [s.levels for s in writing])
        for sequence, logits_nV in zip(writing, rows, strict=True):
            sequence.done += sequence.to_read
            sequence.context.stream = sequence.after
            self._go_on(sequence, self._draw(sequence, logits_nV[-1], events))
        return events

    def _read_guesses(self, writing: Sequence[_Sequence], drafts: Drafts) -> list[Event]:
        """Read newest bytes and guesses behind them; what the model does not draw is taken back."""
        ids, levels = [], []
        for sequence in writing:
            guesses = drafts.guess(bytes(sequence.done[-REACH:]) + bytes(sequence.to_read), self._guesses)
            guessed = list(map(sequence.after.push, guesses))
            if not any(sequence.levels):
                # The deeper stages need not run for the newest byte, and should not run for a mere guess.
                guessed = list(takewhile(lambda level: level == 0, guessed))
            ids.append([*sequence.to_read, *guesses[: len(guessed)]])
            levels.append([*sequence.levels, *guessed])
        parts, rewinds = self.session.try_out([sequence.context for sequence in writing], ids, levels)
        events: list[Event] = []
        for sequence, read, part, rewind in zip(writing, ids, parts, rewinds, strict=True):
            for kept, logits_V in enumerate(part.float().cpu().numpy(), 1):
                drafts.follow(bytes(sequence.done[-REACH:]), read[kept - 1])
                sequence.done += read[kept - 1 : kept]
                chosen = self._draw(sequence, logits_V, events)
                if chosen is None or read[kept : kept + 1] != [chosen]:
                    break
            self.counters.guessed_bytes += len(read) - 1
            self.counters.accepted_bytes += kept - 1
            rewind.keep(kept)
            self._go_on(sequence, chosen)
        return events

    def _extend(
        self, sequences: Sequence[_Sequence], ids: Sequence[list[int]], levels: Sequence[list[int]] | None = None
    ) -> list[Logits]:
        contexts = [sequence.context for sequence in sequences]
        if levels is None:
            levels = [self.session.levels(context, x) for context, x in zip(contexts, ids, strict=True)]
        if self._alone:
            parts = [
                self.session.extend(State([context]), [x], [level])[0]
                for context, x, level in zip(contexts, ids, levels, strict=True)
            ]
        else:
            parts = self.session.extend(State(contexts), ids, levels)
        return [part.float().cpu().numpy() for part in parts]

    def _write(self, sequence: _Sequence, logits_V: Logits) -> list[Event]:
        """The first id behind a prompt."""
        events: list[Event] = []
        self._go_on(sequence, self._draw(sequence, logits_V, events))
        return events

    def _draw(self, sequence: _Sequence, logits_V: Logits, events: list[Event]) -> int | None:
        """The next id of a sequence, or None where it ends."""
        writer = sequence.writer
        chosen, left = writer.choose(logits_V), writer.left
        event = writer.take(chosen)
        self.counters.new_bytes += left - writer.left
        if event.text or event.data or event.finish:
            events.append(event)
        return None if event.finish else chosen

    def _go_on(self, sequence: _Sequence, chosen: int | None) -> None:
        """Read this id next, or leave."""
        if chosen is None:
            self._sequences.remove(sequence)
            return
        sequence.to_read, sequence.after = [chosen], sequence.context.stream.copy()
        sequence.levels = [sequence.after.push(chosen)]


def _kept_in_common(a: list[int], b: list[int]) -> int:
    """Length of the longest beginning of `a` that is kept when `b` has been read."""
    if a[: len(b)] == b:
        return len(b)
    same = next((i for i in range(0, min(len(a), len(b)), PIECE) if a[i : i + PIECE] != b[i : i + PIECE]), math.inf)
    return int(min(same, len(a) // PIECE * PIECE, len(b) // PIECE * PIECE))

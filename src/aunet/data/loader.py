"""The loader: an endless sequence of rows from a mixture of sources, and its state.

    Schedule (static): row i -> lane        Lane: row, state after it        Loader: rows in order, states of all lanes

The sequence depends on the data and the configuration, never on workers or on how often it was interrupted. The state
is that of the rows that were taken, not of those read ahead.

Where several ranks train together, each has a loader with its share of the rows. Where a row ends is known only by
reading what comes before it, so every rank reads and splits all documents and lays out the rows of its own alone: all
ranks are in the same state without exchanging it, every one has the same number of rows but for one, and the sequence
is that of a single rank. Reading costs every rank what it costs a single one.
"""

import json
import math
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from aunet.config import DataConfig
from aunet.data.held_out import refuse_overlap
from aunet.data.lanes import Lane, LaneRow, LaneSpec, LaneState
from aunet.data.mixing import ALL, Schedule, Share, assign, shares
from aunet.data.problems import Problems
from aunet.data.rows import Row
from aunet.data.sources import SourcePlan, plan_source
from aunet.data.workers import Job, WorkerKilled, Workers
from aunet.errors import AUNetError, ConfigError
from aunet.splitting import Splitter
from aunet.vocabulary import BYTES, Vocabulary

STATE_VERSION = 1
DEATHS = 3
"""Times in a row, without a row in between, that killed workers are started again: memory that is short stays short."""


class Loader:
    """Rows of `config.sources`, for ever.

    Every source is looked at when the loader is made: AUNetError, with one line, if one has no usable document, and
    where held-out text is among them. What is skipped later is in `problems`. Workers start with the first row;
    `close`, or a `with` block, stops them.

    `start_method`: how workers start ("fork", "spawn"), the system's best if not given. `share`: which of the rows to
    give, all if not given; the state is that of all.
    """

    def __init__(
        self,
        config: DataConfig,
        splitter: Splitter,
        start_method: str | None = None,
        vocabulary: Vocabulary = BYTES,
        share: Share = ALL,
    ) -> None:
        if not config.sources:
            raise ConfigError("data.sources: nothing to read; give at least one source with a path")
        self.config = config
        self.plans: list[SourcePlan] = []
        self._splitter, self.vocabulary = splitter, vocabulary
        self._start_method, self._share = start_method, share
        self._planning = Problems()
        self._skipped = Problems()
        for source in config.sources:
            self.plans.append(plan_source(source, config.lanes, self._planning))
        refuse_overlap(config, self.plans)
        self.shares = shares(config, [plan.size for plan in self.plans])
        """Share of the rows of each source."""
        self._specs = [
            LaneSpec(
                source=i,
                lane=j,
                blocks=blocks,
                text_field=plan.text_field,
                seed=config.seed,
                seq_len=config.seq_len,
                shuffle_documents=config.shuffle_documents,
                shuffle_bytes=config.shuffle_bytes,
            )
            for i, plan in enumerate(self.plans)
            for j, blocks in enumerate(plan.lanes)
        ]
        self._states = [LaneState() for _ in self._specs]
        self._schedule = self._new_schedule()
        self._lanes: list[Lane] = []
        self._workers: Workers | None = None
        self._owner: list[int] = []
        self._restarts: list[str] = []
        self._deaths = 0
        self.rows = 0
        """Rows taken so far, by all ranks."""

    @property
    def problems(self) -> Problems:
        """What was skipped, up to the last row taken, in the first epoch of each lane; print `problems.lines()`."""
        both = Problems()
        both.merge(self._planning)
        both.merge(self._skipped)
        return both

    @property
    def epochs(self) -> list[int]:
        """Complete epochs of each source: of the lane that is furthest behind."""
        states = zip(self._specs, self._states, strict=True)
        found = [(spec.source, state.epoch) for spec, state in states]
        return [min(epoch for source, epoch in found if source == i) for i in range(len(self.plans))]

    def __iter__(self) -> Iterator[tuple[Row, dict[str, Any]]]:
        """Pairs of a row and the state after it, for ever."""
        while True:
            row = self.next_row()
            yield row, self.state_dict()

    def next_rows(self, n: int) -> list[Row]:
        """What is in the share of the next n rows."""
        taken = [self._take() for _ in range(n)]
        return [row for row in taken if row is not None]

    def next_row(self) -> Row:
        """The next row of the share. AUNetError if a file has changed, RunFailed if workers are killed all the time."""
        row = self._take()
        while row is None:
            row = self._take()
        return row

    def _take(self) -> Row | None:
        """The next row of all, None where it is of another rank."""
        if not self._lanes and not self._workers:
            self._start()
        number = self._schedule.next()
        taken: LaneRow
        if self._workers:
            taken = self._take_from_worker(number)
        else:
            taken = self._lanes[number].next_row(self._share.holds(self.rows))
        self._states[number] = taken.state
        self._skipped.merge(taken.problems)
        self.rows += 1
        return taken.row

    def _take_from_worker(self, number: int) -> LaneRow:
        """The next row of a lane; where its worker was killed, all are started again after the last row taken."""
        while True:
            assert self._workers
            try:
                taken = self._workers.take(self._owner[number])
            except WorkerKilled as death:
                self._deaths += 1
                if self._deaths > DEATHS:
                    raise
                self.close()
                self._schedule = self._new_schedule(self._counts_before(number))
                self._start()
                self._schedule.next()
                self._restarts.append(f"{death}; started again after row {self.rows}")
            else:
                self._deaths = 0
                return taken

    def _counts_before(self, number: int) -> list[list[int]]:
        """Rows of each lane but for the last one, which the schedule has given to this lane and which did not come."""
        counts = self._schedule.counts()
        counts[self._specs[number].source][self._specs[number].lane] -= 1
        return counts

    def take_restarts(self) -> list[str]:
        """A line for each time that killed workers were started again since the last call."""
        taken, self._restarts = self._restarts, []
        return taken

    def state_dict(self) -> dict[str, Any]:
        """Where the next row starts, as JSON values; a few integers per lane."""
        lanes: list[list[list[int]]] = [[] for _ in self.plans]
        counts = self._schedule.counts()
        for spec, state in zip(self._specs, self._states, strict=True):
            lanes[spec.source].append([counts[spec.source][spec.lane], *state])
        return {
            "version": STATE_VERSION,
            "data": self._identity(),
            "rows": self.rows,
            "lanes": lanes,
            "problems": self._skipped.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the rows that `state` has seen; AUNetError that names the key if it belongs to other data."""
        if state.get("version") != STATE_VERSION:
            raise AUNetError(f"cannot resume: loader state has version {state.get('version')}, known: {STATE_VERSION}")
        for key, now in self._identity().items():
            then = state["data"].get(key)
            if then != now:
                raise AUNetError(
                    f"cannot resume: {key} is {json.dumps(now)}, in the checkpoint it is {json.dumps(then)}; "
                    "restore it or start a new run"
                )
        if len(state["data"]) != len(self._identity()):
            raise AUNetError("cannot resume: data.sources has fewer entries than in the checkpoint")
        self.close()
        self.rows = state["rows"]
        self._skipped = Problems.from_state(state["problems"])
        self._states = [LaneState(*lane[1:]) for source in state["lanes"] for lane in source]
        self._schedule = self._new_schedule([[lane[0] for lane in source] for source in state["lanes"]])

    def close(self) -> None:
        """Stop the workers. The next row starts them again where the last one ended."""
        if self._workers:
            self._workers.close()
        self._workers, self._lanes = None, []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _new_schedule(self, counts: list[list[int]] | None = None) -> Schedule:
        return Schedule(self.shares, [plan.lane_sizes for plan in self.plans], counts)

    def _start(self) -> None:
        workers = min(self.config.workers, len(self._specs))
        pairs = list(zip(self._specs, self._states, strict=True))
        if not workers:
            self._lanes = [Lane(spec, self._splitter, state, self.vocabulary) for spec, state in pairs]
            return
        weights = [
            self.shares[i] * size / sum(plan.lane_sizes)
            for i, plan in enumerate(self.plans)
            for size in plan.lane_sizes
        ]
        self._owner = assign(weights, workers)
        jobs = [
            Job(
                lanes={number: pair for number, pair in enumerate(pairs) if self._owner[number] == worker},
                schedule=self._new_schedule(self._schedule.counts()),
                first=self.rows,
                share=self._share,
                splitter=self._splitter,
                vocabulary=self.vocabulary,
                prefetch=self.config.prefetch * self._share.ranks,
            )
            for worker in range(workers)
        ]
        self._workers = Workers(jobs, self._start_method)

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a state to mean the same rows, by configuration key."""
        config = self.config
        identity: dict[str, Any] = {
            f"data.{key}": getattr(config, key)
            for key in ("seed", "seq_len", "lanes", "shuffle_documents", "shuffle_bytes", "temperature")
        }
        identity["model.splitter"] = self._splitter.rule
        if self.vocabulary.digest:
            identity["model.tokenizer"] = self.vocabulary.digest
        for i, (source, plan) in enumerate(zip(config.sources, self.plans, strict=True)):
            identity[f"data.sources.{i}.path"] = source.path
            identity[f"data.sources.{i}.weight"] = source.weight
            identity[f"data.sources.{i}.text_field"] = source.text_field
            identity[f"data.sources.{i}"] = (
                f"{plan.files} files of {plan.bytes} bytes in {len(plan.lanes)} lanes ({plan.digest})"
            )
            identity[f"data.sources.{i}"] += "" if math.isnan(plan.size) else f", {plan.size:.0f} bytes of text"
        return identity

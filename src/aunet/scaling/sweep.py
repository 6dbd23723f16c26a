"""A search over learning rate and batch size that several workers share and that survives their deaths.

The study is Optuna's, in SQLite or PostgreSQL. Point i of the Sobol sequence belongs to the i-th trial of the study
that is not a repetition: the database numbers trials one by one, so no point is given out twice. A worker tells the
database every few seconds that it lives. Trials of workers that have fallen silent are failed and put up again, once,
by whoever sees it first; the run goes on from its checkpoint where that is at hand.
"""

import json
import math
import re
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from aunet.config import RunConfig, SourceConfig
from aunet.errors import ConfigError, RunFailed
from aunet.files import make_directory
from aunet.mappings import validate
from aunet.scaling.child import run_in_child
from aunet.scaling.points import Point, Range, optuna, sobol_point
from aunet.scaling.records import Record, portable, read_record, setting
from aunet.scaling.rules import HalfwayRule
from aunet.scaling.run import Job, hashes
from aunet.scaling.study import DATA_HASH, SQLITE, open_study, storage_lost
from aunet.train.plan import make_plan
from aunet.train.stop import Stop, stop_on_signals

POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Sweep:
    """What is searched, and where it is kept."""

    config: RunConfig
    """Of every run, but for learning rate, batch size and directory."""
    family: str
    study: str
    """Name of the study; runs and records are called STUDY-000 and so on."""
    lr: Range
    batch: Range
    """Units per step: bytes, or tokens of a model over tokens."""
    points: int
    valid: dict[str, SourceConfig]
    records: Path
    storage: str = ""
    """URL of the database; SQLite in `train.out` if empty."""
    seed: int = 0
    """Of the points; the seed of the runs is `train.seed`."""
    prune_above: float | None = None
    """See `HalfwayRule`; None: every run is finished."""
    stale_after: int = 120
    """Seconds of silence after which a worker counts as dead."""
    remove_checkpoints: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.study):
            raise ConfigError(
                f"--study: {self.study!r} is to be a file name of letters, digits, . _ and -; by default it is --family"
            )
        for name, (low, high) in (("lr", self.lr), ("batch", self.batch)):
            if not 0 < low <= high < math.inf:
                raise ConfigError(f"--{name}: {low:g} to {high:g} is no range above 0; give the lower end first")
        if not self.family:
            raise ConfigError("--family: it is empty; say what the records are compared as")
        if not 0 <= self.seed < 1 << 32:
            raise ConfigError(f"--seed: {self.seed} is not from 0 to {(1 << 32) - 1}")
        if self.points < 1:
            raise ConfigError(f"--points: {self.points} is not at least 1")
        if self.stale_after < 4:
            raise ConfigError(f"--stale-after: {self.stale_after} seconds are too few; give 4 or more")
        if self.prune_above is not None and not self.prune_above >= 0:
            raise ConfigError(f"--prune-above: {self.prune_above:g} would end the best run too; give 0 or more")
        if self.remove_checkpoints and self.config.train.checkpoints:
            raise ConfigError(
                "--remove-checkpoints: removes what lies in the directories of the runs, and train.checkpoints is "
                "elsewhere; leave out one of the two"
            )
        if self.config.train.steps is not None:
            raise ConfigError(
                "train.steps: with a number of steps, larger batches would read more; set train.bytes, train.compute "
                "or train.gamma"
            )
        if not self.config.data.sources:
            raise ConfigError("data.sources: nothing to read; add the training text, as in '[{path: train.jsonl}]'")
        for value in self.batch:
            self.job(0, Point(self.lr[1], value))  # says what the plan refuses before anything runs

    def job(self, index: int, point: Point) -> Job:
        """The run of a point, its batch whole rows."""
        name = f"{self.study}-{index:03d}"
        rows = max(1, self.config.train.accumulate, round(point.batch / self.config.data.seq_len))
        values = self.config.model_dump(mode="json")
        values["train"].update(
            lr=point.lr, batch_bytes=rows * self.config.data.seq_len, out=str(Path(self.config.train.out) / name)
        )
        if self.config.train.checkpoints:
            values["train"]["checkpoints"] = f"{self.config.train.checkpoints.rstrip('/')}/{name}"
        config = validate(RunConfig, values, "sweep")
        make_plan(config)
        return Job(
            family=self.family,
            config=config,
            valid=self.valid,
            record=self.records / f"{name}.json",
            remove_checkpoints=self.remove_checkpoints,
        )

    def identity(self) -> dict[str, Any]:
        """What all workers on a study must agree on."""
        found = setting(portable(self.config))
        for key in ("lr", "batch_bytes"):
            del found["train"][key]
        own = {"--lr": self.lr, "--batch": self.batch, "--seed": self.seed, "--family": self.family}
        read = {DATA_HASH: hashes(self.config, self.valid)}
        same: dict[str, Any] = json.loads(json.dumps({**own, "--valid": list(self.valid), **found, **read}))
        return same


def run_sweep(sweep: Sweep, console: Console) -> int:
    """Work on the study until its points are taken; 0, or the exit code of a run that was stopped or cannot begin.

    The same call goes on, and several at once share the work. AUNetError if the study belongs to another search.
    """
    for directory, key in ((Path(sweep.config.train.out), "train.out"), (sweep.records, "--records")):
        make_directory(directory, key)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=optuna().exceptions.ExperimentalWarning)
        with stop_on_signals() as stop:
            worker = _Worker(sweep, console, stop)
            with storage_lost(worker.url):
                return worker.work()


class _Worker:
    """One process that takes trials."""

    def __init__(self, sweep: Sweep, console: Console, stop: Stop) -> None:
        self.sweep, self.console, self.stop = sweep, console, stop
        self.optuna = optuna()
        self.retry = self.optuna.storages.RetryHeartbeatStaleTrialCallback()
        self.url = sweep.storage or f"{SQLITE}{Path(sweep.config.train.out).resolve() / 'sweep.db'}"
        self.taken: int | None = None
        """Number of the trial that is this worker's."""
        self.study = open_study(self.url, sweep.study, sweep.identity(), sweep.stale_after, self.retry)

    def work(self) -> int:
        silent_since = time.monotonic()
        while not self.stop.requested:
            if self._open_trials():
                self.taken = None
                try:
                    self.study.optimize(self._objective, n_trials=1, catch=(RunFailed,))
                except self.optuna.exceptions.UpdateFinishedTrialError:
                    pass  # this worker had fallen silent, and another one has taken the point; the record stands
                except Exception as error:  # whatever it is, the point is put up again
                    if self.taken is not None:
                        self.retry(self.study, self.study.trials[self.taken])
                    if isinstance(error, _Interrupted):
                        return error.code
                    raise
                silent_since = time.monotonic()
                continue
            running = self._count("RUNNING")
            waited = time.monotonic() - silent_since
            if not running or waited > 1.25 * self.sweep.stale_after:
                break
            if waited < POLL_SECONDS:
                self._say(
                    f"{running} {_points(running)} running elsewhere; waiting {1.25 * self.sweep.stale_after:.0f} "
                    "seconds at most to see whether their workers live"
                )
            time.sleep(POLL_SECONDS)
            self.optuna.storages.fail_stale_trials(self.study)
        return self._end()

    def _objective(self, trial: Any) -> float:
        self.taken = trial.number
        index = self._index(trial.number)
        point = sobol_point(self.sweep.lr, self.sweep.batch, self.sweep.seed, index)
        given = point._asdict()
        self.study.sampler = self.optuna.samplers.PartialFixedSampler(given, self.optuna.samplers.RandomSampler())
        for name, (low, high) in (("lr", self.sweep.lr), ("batch", self.sweep.batch)):
            trial.suggest_float(name, low, high, log=True)
        job = self.sweep.job(index, point)
        units = make_plan(job.config).batch_bytes
        trial.set_user_attr("whole_batch", units)
        trial.set_user_attr("record", job.record.name)
        self._say(f"point {index}: lr {point.lr:.3g}, batch {units:,}")
        rule = HalfwayRule(job, self.sweep.prune_above, self._halves)
        code = run_in_child(job, self.stop, rule.look)
        if rule.half is not None:
            trial.report(rule.half, 50)
        if code:
            raise _Interrupted(code)
        return self._value(trial, index, read_record(job.record))

    def _value(self, trial: Any, index: int, record: Record) -> float:
        if record.status == "complete":
            found = next(iter(record.bits_per_byte.values()))
            self._say(f"point {index}: {found:.4f} bits per byte")
            return found
        trial.set_user_attr("reason", record.reason)
        self._say(f"point {index}: {record.status}: {record.reason}")
        if record.status == "pruned":
            raise self.optuna.TrialPruned
        raise RunFailed(record.reason)

    def _halves(self) -> list[float]:
        """Half-way losses of the other runs."""
        return [trial.intermediate_values[50] for trial in self._trials() if 50 in trial.intermediate_values]

    def _index(self, number: int) -> int:
        """The point of a trial: its place, or that of the trial it repeats, among those that repeat none."""
        trials = self._trials()
        (own,) = (trial for trial in trials if trial.number == number)
        first = self._repeats(own)
        number = number if first is None else first
        return sum(trial.number < number and self._repeats(trial) is None for trial in trials)

    def _repeats(self, trial: Any) -> int | None:
        found: int | None = self.retry.retried_trial_number(trial)
        return found

    def _open_trials(self) -> bool:
        """Whether there is a trial to take: one that was given back, or a point that nobody has had."""
        self.optuna.storages.fail_stale_trials(self.study)
        trials = self._trials()
        had = sum(self._repeats(trial) is None for trial in trials)
        return had < self.sweep.points or any(trial.state.name == "WAITING" for trial in trials)

    def _trials(self) -> list[Any]:
        found: list[Any] = self.study.get_trials(deepcopy=False)
        return found

    def _count(self, state: str) -> int:
        return sum(trial.state.name == state for trial in self._trials())

    def _say(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _end(self) -> int:
        if self.stop.requested:
            return self.stop.exit_code
        counts = {name: self._count(name) for name in ("COMPLETE", "FAIL", "PRUNED", "RUNNING")}
        failed = sum(trial.state.name == "FAIL" and "reason" in trial.user_attrs for trial in self._trials())
        told = [f"{counts['COMPLETE']} {_points(counts['COMPLETE'])} complete", f"{failed} failed"]
        told += [f"{counts['PRUNED']} pruned"] if counts["PRUNED"] else []
        told += [f"{counts['RUNNING']} running elsewhere"] if counts["RUNNING"] else []
        self._say(f"{self.sweep.study}: {', '.join(told)}")
        if counts["COMPLETE"]:
            best = self.study.best_trial
            self._say(
                f"best: {best.value:.4f} bits per byte at lr {best.params['lr']:.3g}, batch "
                f"{best.user_attrs['whole_batch']:,} ({best.user_attrs['record']})"
            )
        return 0


class _Interrupted(Exception):
    """A run ended without a record: it was stopped, or it cannot begin."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def _points(count: int) -> str:
    return "point" if count == 1 else "points"

"""Saving while training goes on: a copy of the tensors to memory stops it, writing the copy does not.

    begin -> copy in memory -> [thread] shards -> manifest -> those that the policy does not keep are deleted

One save at a time: the next one waits for it. The thread of a rank talks to those of the others through a process group
of its own, and what fails at any of them fails at all, after the same step.
"""

import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from aunet.config import TrainConfig
from aunet.errors import AUNetError
from aunet.train import checkpoint
from aunet.train.distributed import ALONE, Ranks
from aunet.train.storage import Storage


@dataclass(frozen=True)
class Policy:
    """Which checkpoints stay: the newest, those with the best score, and those of every so many steps."""

    newest: int
    best: int = 0
    every: int = 0

    def kept(self, steps: Collection[int], scores: Mapping[int, float]) -> set[int]:
        """Of these steps; `scores`: bits per byte on held-out text of the steps that have one.

        >>> sorted(Policy(newest=1, best=1, every=20).kept([10, 20, 30, 40, 50], {10: 1.3, 30: 1.1, 50: 1.2}))
        [20, 30, 40, 50]
        """
        ordered = sorted(steps)
        best = sorted((step for step in ordered if step in scores), key=lambda step: scores[step])
        regular = {step for step in ordered if self.every and step % self.every == 0}
        return {*ordered[-self.newest :], *best[: self.best], *regular}


def policy(config: TrainConfig) -> Policy:
    """The policy that a configuration states."""
    return Policy(config.keep, config.keep_best, config.keep_every)


class Saver:
    """Writes the checkpoints of a run. As a context it waits for the last of them, unless it is interrupted."""

    def __init__(
        self, storage: Storage, policy: Policy, ranks: Ranks = ALONE, note: Callable[[int], None] = lambda step: None
    ) -> None:
        """`note`: told by the first rank of each step whose checkpoint is complete."""
        self.storage, self._policy, self._note = storage, policy, note
        self._ranks, self._aside = ranks, ranks.aside()
        on_gpu = torch.cuda.is_available()
        self._stager = DefaultStager(
            StagingOptions(
                use_pinned_memory=on_gpu,
                use_shared_memory=False,
                use_async_staging=False,
                use_non_blocking_copy=on_gpu,
            )
        )
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def begin(
        self,
        step: int,
        tensors: Mapping[str, Tensor],
        state: Mapping[str, Any],
        attached: Mapping[str, bytes],
        scores: Mapping[int, float],
    ) -> None:
        """Copy the tensors, which may change after that, and start to write; see `checkpoint.save`.

        AUNetError where the save before failed. `scores`: bits per byte on held-out text by step, so far.
        """
        self.wait()
        copies: Any = self._stager.stage(dict(tensors))  # no future: staging is not asynchronous
        save = partial(
            checkpoint.save, self.storage, step, copies, dict(state), ranks=self._aside, attached=dict(attached)
        )
        arguments = save, step, dict(scores)
        # Not waited for when the program is interrupted: what it leaves has no manifest.
        self._thread = threading.Thread(target=self._write, args=arguments, name=f"save-{step}", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether this rank is writing."""
        return self._thread is not None and self._thread.is_alive()

    def check(self) -> None:
        """AUNetError where the save that runs has failed. All ranks ask after the same step and hear the same."""
        if self._thread and not any(self._ranks.sums([self.busy])):
            self.wait()

    def wait(self) -> None:
        """Until nothing is being written; AUNetError where that failed."""
        if not self._thread:
            return
        self._thread.join()
        self._thread, error, self._error = None, self._error, None
        if error:
            raise error

    def _write(self, save: Callable[[], None], step: int, scores: Mapping[int, float]) -> None:
        """Body of the thread."""
        try:
            save()
            if self._ranks.first:
                with suppress(AUNetError, OSError):  # the next save tries again
                    self._note(step)
                    self._tidy(step, scores)
        except BaseException as error:
            self._error = error

    def _tidy(self, saved: int, scores: Mapping[int, float]) -> None:
        """Delete what the policy does not keep, and what was left incomplete, up to the step that is complete now.

        Steps beyond it were passed over when this run resumed; they are written again.
        """
        complete = [step for step in checkpoint.complete_steps(self.storage) if step <= saved]
        kept = self._policy.kept(complete, scores)
        for step in self.storage.steps():
            if step <= saved and step not in kept:
                checkpoint.remove(self.storage, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None:
            self.wait()
        elif issubclass(kind, Exception):
            with suppress(AUNetError):  # what ended the run is told
                self.wait()

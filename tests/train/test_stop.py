"""What ends a run after its step: signals, and time."""

import math
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from aunet.presets import load_run
from aunet.train.loop import Trainer
from aunet.train.run import run_training
from aunet.train.stop import SIGNALS, stop_on_signals
from tests.runs import write_config


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_first_signal_asks_and_the_second_interrupts(
    number: signal.Signals, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aunet.train.stop.TOGETHER", math.inf)
    with stop_on_signals() as stop:
        assert (stop.requested, stop.exit_code) == (False, 0)
        os.kill(os.getpid(), number)
        assert (stop.requested, stop.exit_code) == (True, code)
        os.kill(os.getpid(), number)  # as `timeout` does
        monkeypatch.setattr("aunet.train.stop.TOGETHER", -1.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_launcher_may_signal_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aunet.train.stop.TOGETHER", -1.0)  # apart, however soon
    with stop_on_signals(patient=True) as stop:
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert stop.exit_code == 143


@pytest.mark.parametrize("launched", [True, False])
def test_a_run_that_was_started_by_another_process_saves_its_step_when_told_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launched: bool
) -> None:
    """Alone under a launcher (`--restarts`), or in a sweep."""
    steps = Trainer.train_step

    def told_twice(trainer: Trainer) -> dict[str, Any]:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        return steps(trainer)

    monkeypatch.setattr(Trainer, "train_step", told_twice)
    monkeypatch.setattr("aunet.train.stop.TOGETHER", -1.0)  # apart, however soon
    if launched:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    config = load_run(str(write_config(tmp_path)), ["data.workers=0", "data.valid=[]"])
    finished = run_training(config, lambda *_: None, Console(quiet=True), patient=not launched)
    assert (finished.outcome.step, finished.exit_code) == (1, 143)


def test_time_ends_it_without_a_signal() -> None:
    with stop_on_signals(seconds=0.01) as stop, stop_on_signals(seconds=math.inf) as endless:
        time.sleep(0.02)
        assert (stop.requested, stop.exit_code) == (True, 0)
        assert not endless.requested


def test_who_listened_before_listens_again() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with stop_on_signals():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before

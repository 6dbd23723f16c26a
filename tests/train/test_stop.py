"""What ends a run after its step: signals, and time."""

import math
import os
import signal
import time

import pytest

from aunet.train.stop import SIGNALS, stop_on_signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_first_signal_asks_and_the_second_interrupts(number: signal.Signals, code: int) -> None:
    with stop_on_signals() as stop:
        assert (stop.requested, stop.exit_code) == (False, 0)
        os.kill(os.getpid(), number)
        assert (stop.requested, stop.exit_code) == (True, code)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_launcher_may_signal_twice() -> None:
    with stop_on_signals(patient=True) as stop:
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert stop.exit_code == 143


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

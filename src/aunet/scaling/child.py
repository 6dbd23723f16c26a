"""A run in a process of its own: what it allocates is given back, and if it is killed somebody is left to say so.

The parent hands the job over as one line on a pipe and keeps the pipe open. When the pipe closes, because the parent
is gone however it went, the child finishes its step, saves and ends; so nothing trains on unwatched.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from rich.console import Console

from aunet.process import run
from aunet.scaling.run import Job, existing_record, record_run, write_unfinished
from aunet.train.stop import Stop

WATCH_SECONDS = 0.5
REFUSED, MISUSED = 1, 2
"""Exit codes of a child that says why it cannot make the run."""

Watch = Callable[[], str | None]
"""Looks at the run now and then; a reason ends it."""


def run_in_child(job: Job, stop: Stop, watch: Watch) -> int:
    """Make a run in a new process; 0 when its record is there, the exit code of a run that was stopped or never began.

    A child that is killed, and one that `watch` ends, leaves a record that says so. AUNetError where the record is
    there and belongs to another run.
    """
    if existing_record(job):
        return 0
    command = [sys.executable, "-m", "aunet.scaling.child"]
    # A session of its own: Ctrl-C reaches the parent only, which passes one signal on.
    child = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603
    assert child.stdin is not None
    reason, told = None, False
    try:
        child.stdin.write(job.model_dump_json().encode() + b"\n")
        child.stdin.flush()
        while (code := _wait(child)) is None:
            reason = reason or watch()
            if not told and (stop.requested or reason):
                child.send_signal(stop.signal or signal.SIGTERM)
                told = True
    except BrokenPipeError:
        code = child.wait()
    finally:
        child.stdin.close()
    if code not in (REFUSED, MISUSED) and job.record.exists():
        return 0
    if stop.requested:
        return stop.exit_code
    if reason:
        write_unfinished(job, "pruned", reason)
        return 0
    if code < 0:
        name = signal.Signals(-code).name
        hint = ", which the system sends when memory is short" if name == "SIGKILL" else ""
        write_unfinished(job, "failed", f"its process was killed by {name}{hint}")
        return 0
    return code or 1


def _wait(child: subprocess.Popen[bytes]) -> int | None:
    try:
        return child.wait(WATCH_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def main() -> NoReturn:
    """The child, to the end of its process; why it cannot make the run is one line, as of any command."""
    run(_work)


def _work() -> None:
    """Make the run whose job stands on standard input."""
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(0, 1 << 16)
        if not part:
            sys.exit(1)
        line += part
    threading.Thread(target=_stop_with_the_parent, daemon=True).start()
    # The parent passes on what it is told, which this process may have been told too.
    sys.exit(record_run(Job.model_validate_json(line), Console(), patient=True))


def _stop_with_the_parent() -> None:
    # Not through sys.stdin, whose lock would be held when the interpreter ends.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()

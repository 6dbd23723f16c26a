"""Several runs of the race side by side, from a list, in limited time.

    python experiments/several.py LIST TRAIN... --valid NAME=FILE... [--at-once 2] [--seconds 500] [--device cuda]

LIST is a file with a line for each: `tune BUDGET SYSTEM [POINTS]` or `run BUDGET SYSTEM [SEED...]`; `#` begins a
comment. The whole race is `cpu.txt` and `gpu.txt` beside this file. What `race.py` is not told here it is told by what
follows the list. The next line begins whenever one of the runs ends, a run not before its system is tuned at budgets up
to its own; what each says goes to `runs/LABEL/several/LINE.log`.

When the time is over, or on SIGTERM or Ctrl-C, all runs save and end, and the exit code is 75 (or 143, 130). The same
command goes on then, wherever `runs/` and `experiments/records/` are at hand: nothing here needs a network, and code,
text and state are small enough to be carried to a machine that is lent for minutes.
"""

import argparse
import difflib
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM

from rich.console import Console

from aunet.train.stop import Stop, stop_on_signals
from systems import SYSTEMS

POLL_SECONDS = 0.2
UNFINISHED = 75
"""Exit code where time was over, EX_TEMPFAIL of sysexits.h."""


class ListError(ValueError):
    """A line that is no run."""


@dataclass(frozen=True)
class Line:
    """One line of the list."""

    what: str
    compute: str
    system: str
    more: tuple[str, ...]
    """Points or seeds."""

    @classmethod
    def of(cls, text: str) -> "Line":
        """Read a line; ListError says what a line is."""
        words = text.split()
        if len(words) < 3 or words[0] not in ("tune", "run") or not _is_budget(words[1]):
            raise ListError(f"{text!r} is no run; write `tune BUDGET SYSTEM [POINTS]` or `run BUDGET SYSTEM [SEED...]`")
        what, compute, system, *more = words
        if system not in SYSTEMS:
            near = " or ".join(difflib.get_close_matches(system, SYSTEMS)) or "one of `race.py --help`"
            raise ListError(f"{text!r} is of no system that there is; name {near}")
        return cls(what, compute, system, tuple(more))

    def __str__(self) -> str:
        return " ".join((self.what, self.compute, self.system, *self.more))

    def log(self, logs: Path) -> Path:
        """The file of what it says."""
        return logs / f"{str(self).replace(' ', '-')}.log"

    def waits_for(self, other: "Line") -> bool:
        """Whether the other tunes the system whose settings this one takes, at a budget that it looks at."""
        if (self.what, other.what) != ("run", "tune") or float(other.compute) > float(self.compute):
            return False
        return other.system == (SYSTEMS[self.system].tuned_as or self.system)


def read_list(path: Path) -> list[Line]:
    """Its lines, each once."""
    texts = [line.partition("#")[0].strip() for line in path.read_text().splitlines()]
    return list(dict.fromkeys(Line.of(text) for text in texts if text))


def _is_budget(word: str) -> bool:
    try:
        return float(word) > 0
    except ValueError:
        return False


def main() -> None:
    """Work through the list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=Path)
    parser.add_argument("train", nargs="+")
    parser.add_argument("--valid", nargs="+", required=True, metavar="NAME=FILE")
    parser.add_argument("--at-once", type=int, default=1, help="processes side by side")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="then all save and end")
    parser.add_argument("--label", default="race")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    try:
        lines = read_list(arguments.list)
    except (OSError, ValueError) as error:
        sys.exit(f"{arguments.list}: {error.strerror if isinstance(error, OSError) else error}")
    if not lines:
        sys.exit(f"{arguments.list}: no run in it; write a line for each")
    if arguments.at_once < 1:
        parser.error("--at-once: give 1 or more")
    common = [*arguments.train, "--valid", *arguments.valid, "--label", arguments.label]
    common += ["--threads", str(arguments.threads), "--device", arguments.device]
    logs = Path("runs") / arguments.label / "several"
    logs.mkdir(parents=True, exist_ok=True)
    with stop_on_signals(arguments.seconds) as stop:
        sys.exit(work(lines, common, arguments.at_once, logs, stop, Console()))


def work(lines: list[Line], common: list[str], at_once: int, logs: Path, stop: Stop, console: Console) -> int:
    """Run all lines, `at_once` at a time; the exit code."""
    waiting, failed, told = list(lines), list[Line](), False
    running: dict[Line, subprocess.Popen[bytes]] = {}
    while running or (waiting and not stop.requested):
        while len(running) < at_once and not stop.requested and (line := _next(waiting, running)):
            waiting.remove(line)
            running[line] = begin(line, common, logs)
            console.print(f"began {line}", highlight=False)
        if stop.requested and not told:
            for process in running.values():
                process.send_signal(SIGTERM)
            told = True
        for line, process in list(running.items()):
            if (code := process.poll()) is None:
                continue
            del running[line]
            stopped = told and code in (128 + SIGTERM, -SIGTERM)  # the latter while it still begins
            if stopped:
                waiting.append(line)
            elif code:
                failed.append(line)
            console.print(f"{'stopped' if stopped else 'failed' if code else 'ended'} {line}", highlight=False)
        time.sleep(POLL_SECONDS)
    for line in failed:
        console.print(f"failed: {line}; see {line.log(logs)}", highlight=False, soft_wrap=True)
    if waiting:
        console.print(f"not finished: {len(waiting)} of {len(lines)}; run the same command again", highlight=False)
        return stop.exit_code or UNFINISHED
    return 1 if failed else 0


def _next(waiting: list[Line], running: Iterable[Line]) -> Line | None:
    """The first line that waits for no other."""
    unfinished = [*running, *waiting]
    return next((line for line in waiting if not any(line.waits_for(other) for other in unfinished)), None)


def begin(line: Line, common: list[str], logs: Path) -> subprocess.Popen[bytes]:
    """Start a run; it gets its signals from here alone."""
    command = [sys.executable, str(Path(__file__).with_name("race.py")), line.what, line.compute, *common]
    command += ["--systems", line.system]
    if line.more:
        command += ["--points" if line.what == "tune" else "--seeds", *line.more]
    with line.log(logs).open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


if __name__ == "__main__":
    main()

"""Several runs from a list: real processes, most of a script that stands in for the race, which takes minutes."""

import functools
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

import race
from several import Line, ListError, _next, read_list
from systems import SYSTEMS
from tests.forks import Forked, begin
from tests.runs import environment, write_text

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
STAND_IN = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
here, name = pathlib.Path("done"), "-".join(sys.argv[sys.argv.index("--systems") + 1:])
here.mkdir(exist_ok=True)
print(sys.argv[1:], flush=True)
(here / f"{name}.begun").touch()
if "fixed-6" in name:
    sys.exit(f"{name}: no such thing")
while "hash" in name and not pathlib.Path("quick").exists():
    time.sleep(0.05)
time.sleep(0.3)
(here / name).write_text(" ".join(sorted(path.name for path in here.iterdir())))
"""
"""Says what it is told; fixed-6 fails, and what has look-ups runs until a file `quick` is there."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The script beside the stand-in, where processes begin."""
    (tmp_path / "experiments").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "experiments")
    for name in ("several.py", "systems.py"):
        shutil.copy(EXPERIMENTS / name, tmp_path / "experiments")
    (tmp_path / "experiments" / "race.py").write_text(STAND_IN)
    return tmp_path


def start(place: Path, lines: str, *more: str) -> Forked | subprocess.Popen[str]:
    (place / "list").write_text(lines)
    arguments = ("list", "train.jsonl", "--valid", "novels=valid.jsonl", *more)
    return begin("several", *arguments, env={**environment(), "PYTHONPATH": str(place / "experiments")})


def done(place: Path) -> set[str]:
    return {path.name for path in (place / "done").iterdir() if path.suffix != ".begun"}


def test_a_list_is_worked_through_and_a_run_waits_for_its_settings(place: Path) -> None:
    lines = "# settings first\nrun 1e13 aunet-2-simple 0 1  # needs the next\n\ntune 1e13 aunet-2 3\nrun 1e13 bytes\n"
    process = start(place, lines, "--at-once", "2", "--device", "cuda", "--threads", "3")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert done(place) == {"aunet-2-simple---seeds-0-1", "aunet-2---points-3", "bytes"}
    assert "aunet-2-simple---seeds-0-1.begun" not in (place / "done" / "aunet-2---points-3").read_text()
    together = (place / "done" / "bytes").read_text()
    assert "aunet-2---points-3.begun" in together
    told = (place / "runs/race/several/tune-1e13-aunet-2-3.log").read_text()
    common = ["train.jsonl", "--valid", "novels=valid.jsonl", "--label", "race", "--threads", "3", "--device", "cuda"]
    assert told.strip() == str(["tune", "1e13", *common, "--systems", "aunet-2", "--points", "3"])


@pytest.mark.parametrize("how", ["signal", "time"])
def test_all_stop_and_the_same_command_goes_on(place: Path, how: str) -> None:
    lines = "run 1e13 bytes-hash\nrun 1e13 aunet-2-hash\nrun 1e13 fixed-4\n"
    process = start(place, lines, "--at-once", "2", *(("--seconds", "4") if how == "time" else ()))
    if how == "signal":
        while len(list(place.glob("done/*.begun"))) < 2:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
    output, errors = process.communicate()
    assert process.returncode == (143 if how == "signal" else 75), errors
    assert "stopped run 1e13 bytes-hash" in output
    assert "not finished: 3 of 3; run the same command again" in output
    assert not done(place)
    (place / "quick").touch()
    process = start(place, lines, "--at-once", "2")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert done(place) == {"bytes-hash", "aunet-2-hash", "fixed-4"}


def test_a_run_that_is_stopped_while_it_begins_has_not_failed(place: Path) -> None:
    """Before it listens to signals, one ends it."""
    deaf = STAND_IN.replace("signal.signal(", "(lambda *_: None)(")
    (place / "experiments" / "race.py").write_text(deaf)
    process = start(place, "run 1e13 bytes-hash\n")
    while not list(place.glob("done/*.begun")):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert "stopped run 1e13 bytes-hash" in process.communicate()[0]
    assert process.returncode == 143


def test_what_fails_is_named_and_the_rest_goes_on(place: Path) -> None:
    process = start(place, "run 1e13 fixed-6\nrun 1e13 bytes\nrun  1e13 bytes # twice\n", "--at-once", "3")
    output = process.communicate()[0]
    assert process.returncode == 1
    assert "failed: run 1e13 fixed-6; see runs/race/several/run-1e13-fixed-6.log" in output
    assert "fixed-6: no such thing" in (place / "runs/race/several/run-1e13-fixed-6.log").read_text()
    assert done(place) == {"bytes"}
    assert output.count("began run 1e13 bytes") == 1


def test_the_race_itself_is_told(place: Path) -> None:
    """And says in one line what is wrong: a system that was never tuned, a budget that is too small."""
    pytest.importorskip("optuna")
    shutil.copy(EXPERIMENTS / "race.py", place / "experiments")
    write_text(place / "train.jsonl", 10)
    (place / "list").write_text("run 1e13 bytes\ntune 1e10 fixed-4 1\n")
    command = [sys.executable, "experiments/several.py", "list", "train.jsonl", "--valid", "novels=valid.jsonl"]
    assert subprocess.run([*command, "--at-once", "2"], capture_output=True).returncode == 1
    logs = place / "runs/race/several"
    assert (
        logs / "run-1e13-bytes.log"
    ).read_text() == "bytes: nothing is tuned at 1e13 FLOPs or below; tune it first\n"
    refused = (logs / "tune-1e10-fixed-4-1.log").read_text().splitlines()
    assert len(refused) == 1
    assert refused[0].startswith("race.py: --compute: the smallest fixed-4 takes")


def test_a_line_that_is_no_run_is_refused(place: Path) -> None:
    process = start(place, "train 1e13 bytes\n")
    assert process.communicate()[1] == (
        "list: 'train 1e13 bytes' is no run; write `tune BUDGET SYSTEM [POINTS]` or `run BUDGET SYSTEM [SEED...]`\n"
    )
    assert process.returncode == 1
    empty = start(place, "# later\n")
    assert empty.communicate()[1] == "list: no run in it; write a line for each\n"
    none = start(place, "run 1e13 bytes\n", "--at-once", "0")
    assert none.communicate()[1].endswith("--at-once: give 1 or more\n")
    assert (empty.returncode, none.returncode) == (1, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run 1e13", "'run 1e13' is no run; write "),
        ("tune much bytes", "'tune much bytes' is no run; write "),
        ("run -1 bytes", "'run -1 bytes' is no run; write "),
        ("run 1e13 aunet-2-hsh", "'run 1e13 aunet-2-hsh' is of no system that there is; name aunet-2-hash or "),
    ],
)
def test_what_is_wrong_with_a_line_is_said(text: str, message: str) -> None:
    with pytest.raises(ListError) as caught:
        Line.of(text)
    assert str(caught.value).startswith(message)


def test_runs_wait_for_the_search_of_their_settings() -> None:
    texts = ["tune 1e13 aunet-2-hash", "run 1e13 aunet-2-hash-muon", "run 1e13 aunet-2", "run 1e13 bytes"]
    search, ablation, plain, other = (Line.of(text) for text in texts)
    assert _next([ablation, plain], [search]) == plain
    assert _next([ablation, other], [search, plain]) == other
    assert _next([ablation, search], []) == search
    assert _next([ablation], [search]) is None
    assert _next([ablation], []) == ablation
    assert _next([ablation], [Line.of("tune 1e13 aunet-2")]) == ablation
    larger = Line.of("tune 3e13 aunet-2-hash")
    assert _next([ablation], [larger]) == ablation
    assert _next([Line.of("run 1e14 aunet-2-hash")], [larger]) is None


def test_the_lists_name_runs_that_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "make_scale_plan", functools.cache(race.make_scale_plan))  # many change one plan
    lines = listed("cpu") + listed("gpu")
    assert all(word.isdecimal() for line in lines for word in line.more)
    for name, compute in sorted({(line.system, line.compute) for line in lines}):  # a search and a run plan the same
        if not SYSTEMS[name].vocabulary:
            assert race.plan_of(SYSTEMS[name], float(compute), [], Path("runs"), Console()).bytes > 1e6, (name, compute)


def test_every_record_of_the_race_is_of_a_run_of_the_lists() -> None:
    lines = listed("cpu") + listed("gpu")
    names = set()
    for line in lines:
        for number in range(int(line.more[0]) if line.what == "tune" else 0):
            names.add(f"{line.system}-tune-{line.compute}-{number:03d}")
        for seed in (line.more or ("0",)) if line.what == "run" else ():
            names.add(f"{line.system}-{line.compute}-seed{seed}")
    found = {path.stem for path in (EXPERIMENTS / "records" / "race").glob("*.json")}
    assert found
    assert found <= names


def listed(device: str) -> list[Line]:
    return read_list(EXPERIMENTS / f"{device}.txt")

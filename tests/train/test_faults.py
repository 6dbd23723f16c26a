"""Processes that are killed, stopped or told to stop while several train together, and data that vanishes."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from aunet.train.distributed import Ranks
from aunet.train.watch import PHASES, Place, _behind
from benchmarks.faults import kill, ranks_of
from tests.forks import Forked, begin
from tests.runs import aunet, environment, here, losses, start, wait_for_step, write_config


def wait_for_ranks(launcher: Forked | subprocess.Popen[str], count: int) -> dict[int, int]:
    while len(found := ranks_of(launcher.pid)) < count:
        assert launcher.poll() is None, launcher.communicate()
        time.sleep(0.02)
    return found


def step_of(count: int, config: Path, *settings: str) -> list[Forked | subprocess.Popen[str]]:
    """Processes as a step of SLURM has them."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    place = {"SLURM_STEP_NUM_TASKS": str(count), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    variables = {**environment(), **place}
    return [
        begin("aunet", "train", config, *settings, env={**variables, "SLURM_PROCID": rank, "SLURM_LOCALID": rank})
        for rank in map(str, range(count))
    ]


def same(found: Path, expected: Path) -> None:
    assert [step for step, _ in losses(found)] == [step for step, _ in losses(expected)]
    for (_, a), (_, b) in zip(losses(found), losses(expected), strict=True):
        assert a == pytest.approx(b, abs=1e-5)


def test_a_run_of_four_outlives_deaths_and_signals(tmp_path: Path) -> None:
    """kill -9 of one of four, SIGTERM to all, kill -9 of all; the losses are those of one undisturbed process."""
    config = write_config(tmp_path, steps=80, batch_bytes=2048, checkpoint_every=10)
    together = ("train", str(config), f"train.out={tmp_path / 'killed'}", "--processes", "4", "--restarts", "2")
    out = tmp_path / "killed"

    launcher = start(*together)
    wait_for_step(out, 13)
    before = ranks_of(launcher.pid)
    kill(before[2])
    after = before
    while set(after.values()) & set(before.values()) or len(after) < 4:
        after = wait_for_ranks(launcher, 4)
    reached = losses(out)[-1][0]
    wait_for_step(out, reached + 1)
    launcher.send_signal(signal.SIGTERM)
    stdout, stderr = launcher.communicate()
    assert launcher.returncode == 143, stderr
    assert "Traceback" not in stderr
    assert "another process has ended; what it says itself tells why; run the same command again" in stderr
    assert "resuming after step 10 from" in stdout
    stopped = losses(out)[-1][0]
    assert f"stopped after step {stopped} of 80" in stdout
    assert (out / "checkpoints" / f"step-{stopped}" / "manifest.json").is_file()

    four = step_of(4, config, f"train.out={out}")  # without a launcher: only the processes of a run are wanted here
    wait_for_step(out, stopped + 1)
    for process in four:
        kill(process.pid)
    for process in four:
        process.communicate()

    done = here("train", config, f"train.out={out}")
    assert done.returncode == 0, done.stderr
    assert "resuming after step" in done.stdout
    assert here("train", config).returncode == 0
    same(out, tmp_path / "out")


def test_a_process_that_hangs_is_named_with_its_last_step(tmp_path: Path) -> None:
    config = write_config(tmp_path, steps=5000, lr=1e-5, batch_bytes=2048)
    first, second = step_of(2, config, "train.stall_timeout=4")
    wait_for_step(tmp_path / "out", 3)
    os.kill(second.pid, signal.SIGSTOP)
    _, stderr = first.communicate()
    second.kill()
    second.communicate()
    reached = losses(tmp_path / "out")[-1][0]
    (line,) = stderr.splitlines()
    assert first.returncode == 1
    assert line.startswith(f"aunet: error: rank 1 hangs: {socket.gethostname()}, process {second.pid} does not answer")
    assert any(f"last seen in step {step}, " in line for step in range(max(reached - 100, 0), reached + 2))
    assert "nothing has moved for 4 s (train.stall_timeout)" in line


def test_data_that_vanish_end_all_processes_and_are_missed_by_no_step(tmp_path: Path) -> None:
    """Truncated, then gone, then back: the losses are those of one process that was never disturbed."""
    config = write_config(tmp_path, steps=400, batch_bytes=2048, checkpoint_every=5)
    text = (tmp_path / "train.jsonl").read_bytes()
    out = tmp_path / "two"
    processes = step_of(2, config, f"train.out={out}", "data.shuffle_documents=8")
    wait_for_step(out, 3)
    os.truncate(tmp_path / "train.jsonl", len(text) // 2)
    for process in processes:
        _, stderr = process.communicate()
        assert process.returncode == 1
        assert "Traceback" not in stderr
        assert "train.jsonl: changed while it was being read" in stderr or "another process has ended" in stderr
    (tmp_path / "train.jsonl").unlink()
    gone = aunet("train", config, f"train.out={out}", "data.shuffle_documents=8")
    assert gone.returncode != 0
    assert str(tmp_path / "train.jsonl") in gone.stderr
    (tmp_path / "train.jsonl").write_bytes(text)
    reached = losses(out)[-1][0]
    again = [f"train.out={out}", "data.shuffle_documents=8"]
    process = start("train", str(config), *again)
    wait_for_step(out, reached + 6)
    process.send_signal(signal.SIGTERM)
    assert "resuming after step" in process.communicate()[0]
    process = start("train", str(config), "data.shuffle_documents=8")
    wait_for_step(tmp_path / "out", reached + 6)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    for (step, a), (_, b) in zip(losses(out)[: reached + 6], losses(tmp_path / "out"), strict=False):
        assert a == pytest.approx(b, abs=1e-5), step


def test_who_is_behind() -> None:
    now = time.monotonic()
    reading, computing, saving = (PHASES.index(phase) for phase in ("reading", "computing", "saving"))

    def posts(*places: tuple[int, int, float]) -> dict[int, tuple[Place, float]]:
        return {i: (Place(step, phase, 9, f"host{i}"), now - age) for i, (step, phase, age) in enumerate(places)}

    ranks = Ranks(0, 3)
    assert _behind(posts((7, computing, 0), (7, reading, 0), (7, computing, 0)), ranks, 60) == {
        1: "host1 answers, last seen in step 7, reading"
    }
    assert _behind(posts((7, computing, 0), (7, computing, 0), (7, computing, 59)), ranks, 60) == {
        2: "host2 does not answer, last seen in step 7, computing"
    }
    assert _behind(posts((7, saving, 0), (7, computing, 0), (7, computing, 0)), ranks, 60) is None
    (line,) = (_behind({}, ranks, 60) or {}).values()
    assert "does not answer" in line

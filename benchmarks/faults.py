"""Kills processes of a training run, again and again, and looks whether anything of it shows in the losses.

    python benchmarks/faults.py --text train.jsonl --kills 100 --out faults

A small model is trained twice on the text with four processes: undisturbed, and with `kill -9` of one process chosen at
random at random moments, now and then of all of them with their launcher. Reported are the restarts, the steps that had
to be done again, and the seconds until the run was where it had been. Exits with 1 if the losses of the two runs, or
their weights, are not the same bit for bit.
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from aunet.errors import AUNetError
from aunet.files import make_directory, write_json
from aunet.train.metrics import read

CHECKPOINT_EVERY = 10
ALL = 0.1
"""Share of the kills that take everything, launcher included."""


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; 1 if a death has changed the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True, help="real text: txt, jsonl, parquet or a directory of them")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--steps", type=int, default=0, help="of the run; 0: enough for the kills")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no kills after so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("faults"))
    given = parser.parse_args(arguments)
    try:
        make_directory(given.out, "--out")
    except AUNetError as error:
        sys.exit(f"faults.py: {error}")
    if (given.out / "killed").exists():
        sys.exit(f"faults.py: --out: {given.out} holds an earlier run; name another directory")
    # Kills are on average a checkpoint apart, and every one throws the run back by half of that.
    config = write_config(given.out, given.text, given.steps or max(60, (given.kills + 2) * CHECKPOINT_EVERY))
    undisturbed = subprocess.run(command(config, given, "undisturbed"), stdout=subprocess.DEVNULL, check=False)
    if undisturbed.returncode:
        sys.exit(f"faults.py: the undisturbed run ended with {undisturbed.returncode}; see above")
    report = disturb(config, given)
    differing = differences(given.out / "undisturbed", given.out / "killed")
    report["differing_steps"] = differing
    write_json(given.out / "faults.json", report)
    print(json.dumps(report, indent=2))
    return 1 if differing or report["exit_code"] else 0


def write_config(out: Path, text: str, steps: int) -> Path:
    """Two stages, a hundred thousand parameters."""
    stages = [{"dim": 64, "layers": 1, "head_dim": 16, "window": 64}, {"dim": 96, "layers": 2, "head_dim": 16}]
    train = {"steps": steps, "batch_bytes": 4096, "lr": 3e-3, "checkpoint_every": CHECKPOINT_EVERY, "device": "cpu"}
    config = {
        "model": {"splitter": "word1", "stages": stages},
        "data": {"sources": [{"path": text}], "seq_len": 256, "workers": 1},
        "train": {**train, "threads": 1, "spike": 4.0, "max_skips": 64},
    }
    path = out / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def command(config: Path, given: argparse.Namespace, name: str) -> list[str]:
    """The training command, with more restarts than there will be kills."""
    arguments = ["train", str(config), f"train.out={given.out / name}", "--processes", str(given.processes)]
    return [sys.executable, "-m", "aunet", *arguments, "--restarts", str(2 * given.kills + 10)]


def disturb(config: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Train to the end with kills in between; what they cost."""
    draw = random.Random(given.seed)
    out = given.out / "killed"
    lost: list[int] = []
    seconds: list[float] = []
    kills, kills_of_all, starts = 0, 0, 1
    began = time.monotonic()
    with (given.out / "killed.log").open("w") as log:

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(command(config, given, "killed"), stdout=log, stderr=log)

        process = start()
        while kills < given.kills and time.monotonic() - began < 60 * given.minutes:
            before = step_of(out)
            # Anywhere: while steps are made, while a checkpoint is written, now and then while the processes start.
            target = before + draw.randint(0, 2 * CHECKPOINT_EVERY - 2)
            while process.poll() is None and (step_of(out) < target or len(ranks_of(process.pid)) < given.processes):
                time.sleep(0.02)
            time.sleep(draw.random() * 0.3)
            if process.poll() is not None:
                break
            ranks = ranks_of(process.pid)
            if not ranks:
                continue
            at = time.monotonic()
            of_all = draw.random() < ALL
            # The ranks have process groups of their own and would outlive their launcher.
            for victim in (process.pid, *ranks.values()) if of_all else [draw.choice(list(ranks.values()))]:
                kill(victim)
            kills += 1
            if of_all:
                process.wait()
                process = start()
                kills_of_all += 1
                starts += 1
            # Those that are left may still finish a step or a checkpoint; when all are new, all of that is over.
            while process.poll() is None and set(ranks_of(process.pid).values()) & set(ranks.values()):
                time.sleep(0.02)
            reached = step_of(out)
            lost.append(reached - newest_checkpoint(out))
            while process.poll() is None and step_of(out) <= reached:  # cut back to the checkpoint, then growing
                time.sleep(0.02)
            seconds.append(time.monotonic() - at)
            what = "all" if of_all else "one"
            print(f"kill {kills}, of {what}: at step {reached}, {lost[-1]} lost, {seconds[-1]:.1f} s", flush=True)
        code = process.wait()
    return {
        "processes": given.processes,
        "kills": kills,
        "of_all_processes": kills_of_all,
        "starts_of_the_command": starts,
        "steps_lost_mean": round(statistics.mean(lost), 2) if lost else 0,
        "steps_lost_most": max(lost, default=0),
        "seconds_to_be_back_median": round(statistics.median(seconds), 1) if seconds else None,
        "steps": step_of(out),
        "exit_code": code,
    }


def kill(process: int) -> None:
    """At once, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def ranks_of(launcher: int) -> dict[int, int]:
    """Process ids of the ranks that a launcher has started, as Linux shows them."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent != launcher:
                continue
            environment = (entry / "environ").read_bytes().split(b"\0")
        except (OSError, IndexError):
            continue
        for variable in environment:
            if variable.startswith(b"RANK="):
                found[int(variable.removeprefix(b"RANK="))] = int(entry.name)
    return found


def step_of(out: Path) -> int:
    """The last step in the metrics of a run."""
    try:
        return max((line["step"] for line in read(out / "metrics.jsonl")), default=0)
    except OSError:
        return 0


def newest_checkpoint(out: Path) -> int:
    """The step of the newest complete checkpoint."""
    found = (out / "checkpoints").glob("step-*/manifest.json")
    return max((int(path.parent.name.removeprefix("step-")) for path in found), default=0)


def differences(expected: Path, found: Path) -> list[int]:
    """Steps whose loss, gradient norm or number of bytes differ; -1 stands for the weights at the end."""
    keys = ("loss", "grad_norm", "bytes", "skipped")
    curves = [
        {line["step"]: [line.get(key) for key in keys] for line in read(run / "metrics.jsonl") if "lr" in line}
        for run in (expected, found)
    ]
    differing = sorted(step for step in curves[0] | curves[1] if curves[0].get(step) != curves[1].get(step))
    weights = [(run / "model.safetensors") for run in (expected, found)]
    same = all(path.is_file() for path in weights) and weights[0].read_bytes() == weights[1].read_bytes()
    return differing if same else [*differing, -1]


if __name__ == "__main__":
    sys.exit(main())

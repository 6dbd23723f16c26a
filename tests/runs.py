"""Small training runs in real processes, for the tests of the command line and of interruptions."""

import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import yaml

from aunet.cli import main
from aunet.train.metrics import read
from tests.forks import Forked, begin

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "house",
    "river",
    "and",
    "or",
    "walks",
    "runs",
    "under",
    "12",
    "7,",
    "then.",
    "She",
    "was\n",
]


def write_text(path: Path, documents: int, seed: int = 0) -> Path:
    """JSON lines of pseudo-English, deterministic."""
    draw = random.Random(seed)
    with path.open("w") as file:
        for i in range(documents):
            text = " ".join(draw.choices(WORDS, k=draw.randint(5, 120)))
            file.write(json.dumps({"id": i, "text": text}) + "\n")
    return path


def write_config(directory: Path, **train: Any) -> Path:
    """A two-stage model that trains in seconds; keywords replace keys of the section `train`."""
    data = write_text(directory / "train.jsonl", 300)
    valid = write_text(directory / "valid.jsonl", 5, seed=1)
    config = {
        "model": {
            "splitter": "word1",
            "stages": [
                {"dim": 16, "layers": 1, "head_dim": 8, "window": 32},
                {"dim": 32, "layers": 1, "head_dim": 8},
            ],
        },
        "data": {"sources": [{"path": str(data)}], "valid": [{"path": str(valid)}], "seq_len": 256, "workers": 1},
        "train": {
            "out": str(directory / "out"),
            "steps": 12,
            "batch_bytes": 1024,
            "lr": 3e-3,
            "checkpoint_every": 4,
            "threads": 1,
            **train,
        },
    }
    path = directory / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def aunet(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `aunet` in a process of its own to its end; nothing is checked. Keywords are of its environment."""
    process = begin("aunet", *arguments, env={**environment(), **variables})
    out, err = process.communicate()
    return subprocess.CompletedProcess(list(arguments), process.returncode, out, err)


def here(*arguments: str | Path, given: bytes = b"") -> subprocess.CompletedProcess[str]:
    """Run the entry point in this process; any exception but SystemExit is one that a user would see."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["aunet", *map(str, arguments)])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return subprocess.CompletedProcess([], code, out.getvalue(), err.getvalue())


def done(*arguments: str | Path, run: Callable[..., Any] = here, **options: Any) -> str:
    """What a command that must work printed."""
    result = run(*arguments, **options)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout


def refused(*arguments: str | Path, code: int = 2, run: Callable[..., Any] = here, **options: Any) -> str:
    """The one line of a command that must fail."""
    result = run(*arguments, **options)
    assert result.returncode == code, (result.stdout, result.stderr)
    (line,) = result.stderr.splitlines()
    assert line.startswith("aunet: error: ")
    assert result.stdout == ""
    return line.removeprefix("aunet: error: ")


def start(*arguments: str | Path) -> Forked | subprocess.Popen[str]:
    """Start `aunet` in a process group of its own, as a shell does."""
    return begin("aunet", *arguments, env=environment(), start_new_session=True)


def wait_for_step(out: Path, step: int) -> None:
    """Until the metrics of a run that was started show this step."""
    while not any(line.get("step", 0) >= step for line in _written(out / "metrics.jsonl")):
        time.sleep(0.01)


def _written(path: Path) -> list[dict[str, Any]]:
    """Metrics so far; the last line may be cut."""
    return read(path) if path.exists() else []


def command(*arguments: str | Path) -> list[str]:
    """The command line of a process that starts as a user's does."""
    return [sys.executable, "-m", "aunet", *map(str, arguments)]


def environment() -> dict[str, str]:
    """No colours and no terminal, whatever the caller has, and one thread, as the tests themselves have."""
    return {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "TERM": "dumb", "OMP_NUM_THREADS": "1"}


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """What is longer cannot be written, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def metrics(out: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def losses(out: Path) -> list[tuple[int, float]]:
    """Step and loss of every step, as they stand in metrics.jsonl."""
    return [(line["step"], line["loss"]) for line in metrics(out) if "loss" in line]

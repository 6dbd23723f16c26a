"""Several ranks for tests: real processes on the CPU that know each other, each running `python -m tests.ranks`.

To start them is what takes long in a small run, so they run several commands one after the other.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.runs import done, environment


def together(ranks: int, *commands: Sequence[str | Path]) -> None:
    """Run commands of `aunet` one after the other, each by all ranks; every one must work."""
    pairs = [(_free_port(), list(map(str, command))) for command in commands]
    start_together(ranks, "tests.ranks", json.dumps(pairs))


def start_together(ranks: int, module: str, *arguments: str) -> None:
    """Run a module in so many processes, in the environment that `torchrun` makes; all must work."""
    place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(ranks)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**environment(), **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(ranks)
    ]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * ranks, "\n".join(outputs)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])


if __name__ == "__main__":
    for port, command in json.loads(sys.argv[1]):
        os.environ["MASTER_PORT"] = str(port)  # two groups of processes do not share a store
        done(*command)

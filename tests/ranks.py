"""Several ranks for tests: real processes on the CPU that know each other, each running `python -m tests.ranks`.

To start them is what takes long in a small run, so they run several commands one after the other.
"""

import json
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.forks import begin
from tests.runs import done, environment


def together(ranks: int, *commands: Sequence[str | Path]) -> str:
    """Run commands of `aunet` one after the other, each by all ranks; every one must work. What they printed."""
    pairs = [(_free_port(), list(map(str, command))) for command in commands]
    return start_together(ranks, "tests.ranks", json.dumps(pairs))


def start_together(ranks: int, module: str, *arguments: str) -> str:
    """Run a module in so many processes, in the environment that `torchrun` makes; all must work. What they printed."""
    place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(ranks)}
    variables = {**environment(), **place}
    processes = [
        begin(module, *arguments, env={**variables, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(ranks)
    ]
    output = "\n".join("".join(process.communicate()) for process in processes)
    assert [process.returncode for process in processes] == [0] * ranks, output
    return output


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])


if __name__ == "__main__":
    for port, command in json.loads(sys.argv[1]):
        os.environ["MASTER_PORT"] = str(port)  # two groups of processes do not share a store
        print(done(*command), end="")

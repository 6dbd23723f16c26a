"""Servers in real processes, for the tests of everything that a client sees."""

import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx
import openai

from tests.forks import Forked, begin
from tests.runs import environment


@dataclass
class Server:
    """A running `aunet serve`."""

    process: Forked | subprocess.Popen[str]
    url: str
    name: str
    log: IO[str]

    def client(self, key: str = "none", **options: object) -> openai.OpenAI:
        """OpenAI's client; it does not try again what was refused."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, **options)  # type: ignore[arg-type]

    def async_client(self, key: str = "none") -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)

    def metrics(self) -> dict[str, float]:
        """Every sample by its name and labels."""
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return {name: float(value) for name, value in (x.rsplit(" ", 1) for x in lines if not x.startswith("#"))}

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; the exit status."""
        self.process.send_signal(number)
        return self.process.wait()

    def errors(self) -> str:
        """What it has written to stderr."""
        self.log.seek(0)
        return self.log.read()


@contextmanager
def serving(model: Path, *options: str, **variables: str) -> Iterator[Server]:
    """A server of a model directory on a free port, killed at the end if it still runs."""
    with tempfile.TemporaryFile("w+") as log:
        process = begin(
            "aunet", "serve", model, "--port", "0", *options, env={**environment(), **variables}, stderr=log
        )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            server = Server(process, line.rpartition(" ")[2].strip(), line.split(" ")[1] if line else "", log)
            assert line.startswith("serving "), server.errors()
            yield server
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

"""The process: what it says, how it ends, what it refuses to serve."""

import json
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

import aunet
from tests.runs import aunet as command_line
from tests.serve.processes import serving

ENDLESS = {"prompt": "on and on ", "temperature": 0, "max_tokens": 1_000_000, "stream": True}
LONG = ("--max-new-bytes", "1000000")


def events(response: httpx.Response) -> Iterator[str]:
    """The data of each event."""
    return (line.removeprefix("data: ") for line in response.iter_lines() if line)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_streams_cleanly(directory: Path, number: int) -> None:
    """All of them get a last piece that says so, and the end mark; the exit is 0."""
    with serving(directory, "--drain-seconds", "0.5", *LONG) as server, httpx.Client(timeout=None) as client:
        body = {**ENDLESS, "n": 2}
        with client.stream("POST", f"{server.url}/v1/completions", json=body) as response:
            found = events(response)
            first = next(found)
            server.process.send_signal(number)
            *_, before, last, end = [first, *found]
        assert end == "[DONE]"
        choices = [json.loads(event)["choices"][0] for event in (before, last)]
        assert [(choice["index"], choice["finish_reason"]) for choice in choices] == [(0, "length"), (1, "length")]
        assert server.process.wait() == 0
        assert server.errors() == ""


def test_what_is_nearly_done_is_finished(directory: Path, model: aunet.LanguageModel) -> None:
    with serving(directory, "--drain-seconds", "60", *LONG) as server:
        stream = server.client().completions.create(
            model="tiny", prompt="not yet ", temperature=0, max_tokens=1000, stream=True
        )
        data = bytes(next(stream).choices[0].aunet["bytes"])  # type: ignore[attr-defined]
        server.process.send_signal(signal.SIGTERM)
        for chunk in stream:
            data += bytes(chunk.choices[0].aunet["bytes"])  # type: ignore[attr-defined]
        assert data == model.generate("not yet ", max_bytes=1000, temperature=0, as_bytes=True)
        assert server.process.wait() == 0


def test_an_answer_that_is_not_streamed_is_given_up_with_an_error(directory: Path) -> None:
    """Another replica may do it; half an answer that looks like a whole one would be worse."""
    with serving(directory, "--drain-seconds", "0.5", *LONG) as server, ThreadPoolExecutor(1) as pool:
        body = {**ENDLESS, "stream": False}
        answer = pool.submit(httpx.post, f"{server.url}/v1/completions", json=body, timeout=None)
        while not server.metrics()["aunet_sequences_running"]:
            pass
        server.process.send_signal(signal.SIGTERM)
        assert answer.result().status_code == 503
        assert answer.result().json()["error"]["code"] == "stopping"
        assert server.process.wait() == 0
        with pytest.raises(openai.APIConnectionError):
            server.client().models.list()


def test_a_client_that_does_not_read_cannot_prevent_the_end(directory: Path) -> None:
    with serving(directory, "--drain-seconds", "0.5", "--max-scored-bytes", "1000000", *LONG) as server:
        body = json.dumps({**ENDLESS, "logprobs": 20, "max_tokens": 20_000}).encode()
        head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
            slow.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            while server.metrics()["aunet_generated_bytes_total"] < 10_000:
                time.sleep(0.1)
            assert server.stop() == 0


def test_an_idle_server_ends_at_once(directory: Path) -> None:
    with serving(directory) as server:
        assert server.client().models.list().data
        assert server.stop() == 0
        assert server.errors() == ""


def test_its_name_and_address(directory: Path) -> None:
    with serving(directory, "--name", "my/model", "--host", "localhost") as server:
        assert server.name == "my/model"
        assert server.url.startswith("http://localhost:")
        assert server.client().completions.create(model="my/model", prompt="a", max_tokens=1).model == "my/model"
        assert server.client().models.retrieve("my/model").id == "my/model"


class TestRefused:
    @staticmethod
    def line(*arguments: str | Path, code: int) -> str:
        result = command_line("serve", *arguments)
        assert result.returncode == code, result.stderr
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        return line.removeprefix("aunet: error: ")

    def test_a_model_that_is_none(self, tmp_path: Path) -> None:
        assert "name a model directory" in self.line(tmp_path, code=1)

    def test_a_model_of_another_version(self, directory: Path, tmp_path: Path) -> None:
        values: dict[str, Any] = json.loads((directory / "config.json").read_text())
        values["aunet"]["memory_layers"] = 3
        (tmp_path / "config.json").write_text(json.dumps(values))
        line = self.line(tmp_path, code=2)
        assert "config.json" in line
        assert "memory_layers" in line

    def test_an_address_that_is_taken(self, directory: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            assert port in self.line(directory, "--port", port, code=1)

    def test_an_address_of_another_machine(self, directory: Path) -> None:
        assert "--host" in self.line(directory, "--host", "192.0.2.1", code=1)
        assert "--host" in self.line(directory, "--host", "no such host", code=1)

    @pytest.mark.parametrize(("option", "value"), [("--port", "70000"), ("--max-seconds", "nan"), ("--api-key", "")])
    def test_bad_values(self, directory: Path, option: str, value: str) -> None:
        assert self.line(directory, option, value, code=2).startswith(option)

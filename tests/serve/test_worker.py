"""Many clients at once, in one real server process."""

import asyncio
import json
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

import aunet
from tests.serve.processes import Server, serving

ENDLESS = {"prompt": "on and on ", "temperature": 0, "max_tokens": 1_000_000}
"""A text that does not end by itself while a test looks at it."""
LONG = ("--max-new-bytes", "1000000")


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that must come."""
    while not condition():
        time.sleep(0.05)


def running(server: Server) -> tuple[float, float]:
    found = server.metrics()
    return found["aunet_sequences_running"], found["aunet_sequences_waiting"]


def streamed(server: Server, stack: ExitStack, **body: Any) -> httpx.Response:
    """An open stream whose first byte has come."""
    client = stack.enter_context(httpx.Client(timeout=None))
    sent = client.stream("POST", f"{server.url}/v1/completions", json={**ENDLESS, "stream": True, **body})
    return stack.enter_context(sent)


def test_64_streams_are_not_mixed_up_and_go_on_together(directory: Path, model: aunet.LanguageModel) -> None:
    """Each is what it would be alone, and when the first one ends, no other is far behind."""
    length = 150
    prompts = [f"stream {i} of the {'old' if i % 2 else 'new'} river: " for i in range(64)]
    order: list[int] = []

    async def one(client: openai.AsyncOpenAI, i: int) -> bytes:
        data = b""
        options: dict[str, Any] = {"temperature": 0} if i % 16 == 0 else {"seed": i, "temperature": 0.8}
        stream = await client.completions.create(
            model="tiny", prompt=prompts[i], max_tokens=length, stream=True, **options
        )
        async for chunk in stream:
            new = bytes(chunk.choices[0].aunet["bytes"])  # type: ignore[attr-defined]
            data += new
            order.extend([i] * len(new))
        return data

    async def everybody(server: Server) -> list[bytes]:
        async with server.async_client() as client:
            return await asyncio.gather(*(one(client, i) for i in range(64)))

    with serving(directory) as server:
        found = asyncio.run(everybody(server))
        assert running(server) == (0, 0)
    for i, data in enumerate(found):
        options = {"temperature": 0.0} if i % 16 == 0 else {"seed": i, "temperature": 0.8}
        assert data == model.generate(prompts[i], max_bytes=length, as_bytes=True, **options), i
    whole = [i for i, data in enumerate(found) if len(data) == length]
    first_end = min(max(at for at, i in enumerate(order) if i == one) for one in whole)
    behind = {i: order[:first_end].count(i) for i in whole}
    assert min(behind.values()) > length / 4, behind


class TestPlaces:
    @pytest.fixture(scope="class")
    def small(self, directory: Path) -> Any:
        """Two slots, one may wait, and no prompt is kept."""
        with serving(directory, "--slots", "2", "--queue", "1", "--prompt-cache-mib", "0", *LONG) as server:
            yield server

    def test_the_queue_is_bounded_and_who_leaves_makes_room(self, small: Server) -> None:
        with ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(1))
            first = stack.enter_context(ExitStack())
            streamed(small, first)
            streamed(small, stack)
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{small.url}/v1/completions", json=ENDLESS, timeout=1)
            until(lambda: running(small) == (2, 0))  # it left again while it waited
            answer = pool.submit(
                httpx.post, f"{small.url}/v1/completions", json={**ENDLESS, "max_tokens": 5}, timeout=None
            )
            until(lambda: running(small) == (2, 1))
            full = httpx.post(f"{small.url}/v1/completions", json=ENDLESS)
            assert full.status_code == 429
            assert int(full.headers["retry-after"]) >= 1
            assert full.json()["error"]["type"] == "rate_limit_error"
            with pytest.raises(openai.RateLimitError):
                small.client().completions.create(model="tiny", prompt="a")
            assert httpx.post(f"{small.url}/v1/inspect", json={"text": "a"}).status_code == 429
            first.close()
            assert answer.result().status_code == 200
            until(lambda: running(small) == (1, 0))
        until(lambda: running(small) == (0, 0))
        outcomes = small.metrics()
        assert outcomes['aunet_requests_total{endpoint="/v1/completions",outcome="rejected"}'] == 2
        assert outcomes['aunet_requests_total{endpoint="/v1/completions",outcome="disconnected"}'] == 3
        assert outcomes["aunet_cached_prompt_bytes_total"] == 0

    def test_more_choices_than_places(self, small: Server) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            small.client().completions.create(model="tiny", prompt="a", n=4)
        assert caught.value.param == "n"
        assert len(small.client().completions.create(model="tiny", prompt="a", n=3, max_tokens=3).choices) == 3

    def test_a_client_that_leaves_before_an_answer_that_is_not_streamed(self, small: Server) -> None:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{small.url}/v1/completions", json=ENDLESS, timeout=2)
        until(lambda: running(small) == (0, 0))


def test_a_client_that_does_not_read_holds_up_nobody(directory: Path, model: aunet.LanguageModel) -> None:
    """Its text is finished behind its back, and it gets all of it when it reads at last."""
    length = 3000
    body = {"prompt": "x", "temperature": 0, "max_tokens": length, "logprobs": 20, "stream": True}
    with serving(directory, "--slots", "2", *LONG) as server, socket.socket() as slow:
        host, port = server.url.removeprefix("http://").split(":")
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((host, int(port)))
        content = json.dumps(body).encode()
        slow.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
            + f"Content-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        until(lambda: server.metrics()["aunet_generated_bytes_total"] > 10)
        quick = server.client().completions.create(model="tiny", prompt="y", max_tokens=20, temperature=0)
        assert len(quick.choices[0].aunet["bytes"]) == 20  # type: ignore[attr-defined]
        until(lambda: running(server) == (0, 0))
        received = b""
        while piece := slow.recv(1 << 20):
            received += piece
    lines = [line for line in received.split(b"\n") if line.startswith(b"data: ")]
    assert lines[-1].strip() == b"data: [DONE]"
    data = b"".join(bytes(json.loads(line[6:])["choices"][0]["aunet"]["bytes"]) for line in lines[:-1])
    assert data == model.generate("x", max_bytes=length, temperature=0, as_bytes=True)


class TestTime:
    @pytest.fixture(scope="class")
    def hasty(self, directory: Path) -> Any:
        with serving(directory, "--max-seconds", "1.5", *LONG) as server:
            yield server

    def test_an_answer_that_takes_too_long(self, hasty: Server) -> None:
        """OpenAI's client is told not to send it again."""
        client = hasty.client().with_options(max_retries=3)
        with pytest.raises(openai.InternalServerError) as caught:
            client.completions.create(model="tiny", **ENDLESS)  # type: ignore[arg-type]
        assert caught.value.status_code == 504
        assert caught.value.code == "time_limit"
        assert "1.5 s" in caught.value.message
        until(lambda: running(hasty) == (0, 0))
        assert hasty.metrics()['aunet_requests_total{endpoint="/v1/completions",outcome="timeout"}'] == 1

    def test_a_stream_that_takes_too_long(self, hasty: Server) -> None:
        before = hasty.metrics()['aunet_requests_total{endpoint="/v1/completions",outcome="timeout"}']
        stream = hasty.client().completions.create(model="tiny", stream=True, **ENDLESS)  # type: ignore[arg-type]
        assert next(stream).choices[0].aunet["bytes"]
        with pytest.raises(openai.APIError) as caught:
            list(stream)
        assert "1.5 s" in caught.value.message
        until(lambda: running(hasty) == (0, 0))
        assert hasty.metrics()['aunet_requests_total{endpoint="/v1/completions",outcome="timeout"}'] == before + 1

    def test_a_body_that_does_not_come(self, hasty: Server) -> None:
        host, port = hasty.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as slow:
            slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            assert b" 504 " in slow.recv(1000)


def test_texts_go_on_while_one_is_inspected(directory: Path) -> None:
    with serving(directory, "--max-scored-bytes", "100000", *LONG) as server, ExitStack() as stack:
        lines = streamed(server, stack).iter_lines()
        next(lines)
        before = server.metrics()["aunet_generated_bytes_total"]
        body = {"text": "some words " * 2000, "alternatives": 0}
        assert httpx.post(f"{server.url}/v1/inspect", json=body, timeout=None).status_code == 200
        assert server.metrics()["aunet_generated_bytes_total"] - before >= 20

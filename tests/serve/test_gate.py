"""What has to be passed before a request is understood, without a process or a socket."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount

from aunet.infer.engine import Engine
from aunet.language_model import LanguageModel
from aunet.serve.app import create_app
from aunet.serve.patience import Patience
from aunet.serve.settings import Settings
from tests.model.packs import small_config, small_model


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(LanguageModel(small_model(small_config(2)), native=False).session())


def ask(app: Starlette, method: str, path: str, **options: Any) -> httpx.Response:
    async def sent() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport) as client:
            return await client.request(method, f"http://here{path}", **options)

    return asyncio.run(sent())


class TestInsideAnotherApplication:
    SETTINGS = Settings(api_key="a secret", max_prompt_bytes=1, max_scored_bytes=1)

    @pytest.fixture
    def outer(self, engine: Engine) -> Starlette:
        return Starlette(routes=[Mount("/lm", create_app(engine, "tiny", self.SETTINGS))])

    @pytest.mark.parametrize(("method", "path"), [("GET", "models"), ("POST", "completions"), ("POST", "inspect")])
    def test_the_key_is_asked_for(self, outer: Starlette, method: str, path: str) -> None:
        assert ask(outer, method, f"/lm/v1/{path}").status_code == 401
        assert ask(outer, "GET", "/lm/metrics").status_code == 200

    def test_the_scheme_is_read_in_any_case(self, outer: Starlette) -> None:
        for given, status in (("bearer a secret", 200), ("Basic a secret", 401), ("bearer", 401), ("", 401)):
            assert ask(outer, "GET", "/lm/v1/models", headers={"Authorization": given}).status_code == status

    def test_bodies_are_bounded_and_requests_counted(self, outer: Starlette) -> None:
        header = {"Authorization": "Bearer a secret"}
        body = b"a" * (self.SETTINGS.max_body_bytes + 1)
        assert ask(outer, "GET", "/lm/v1/models", headers=header).status_code == 200
        assert ask(outer, "POST", "/lm/v1/completions", headers=header, content=body).status_code == 413
        counted = 'aunet_requests_total{endpoint="/v1/completions",outcome="invalid"} 1.0'
        assert counted in ask(outer, "GET", "/lm/metrics").text

    def test_one_that_does_not_start_the_engine_is_told(self, outer: Starlette) -> None:
        header = {"Authorization": "Bearer a secret"}
        for path, body in (("completions", {"prompt": "a"}), ("inspect", {"text": "a"})):
            sent = ask(outer, "POST", f"/lm/v1/{path}", headers=header, json=body)
            assert (sent.status_code, sent.json()["error"]["code"]) == (503, "not_started")
        health = ask(outer, "GET", "/lm/health")
        assert (health.status_code, health.json()) == (503, {"status": "not_started"})


@pytest.mark.parametrize("path", ["completions", "chat/completions", "inspect"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"prompt": "a\xed\xa0\x80"}',  # half a character, as bytes
        b'{"prompt": "\xff"}',
        r'{"prompt": "\ud800"}'.encode("utf-16"),  # the same escaped, in another encoding
        r'{"prompt": "\ud800"}'.encode("utf-16-le"),
        r'{"prompt": "\ud800"}'.encode("utf-32"),
    ],
)
def test_a_body_is_utf8(engine: Engine, path: str, body: bytes) -> None:
    app = create_app(engine, "tiny", Settings())
    sent = ask(app, "POST", f"/v1/{path}", content=body, headers={"Content-Type": "application/json"})
    assert sent.status_code == 400
    assert sent.json()["error"] == {
        "message": "the body is not JSON: it is not UTF-8",
        "type": "invalid_request_error",
        "param": None,
        "code": "not_json",
    }


def test_the_time_of_a_request_begins_before_its_body_is_read(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """One limit for both: a body that comes slowly leaves less for the answer."""
    begun: dict[str, float] = {}

    async def answer(order: Any, shape: Any, worker: Any, patience: Patience, *others: Any) -> Response:
        begun["time"] = patience.started
        return Response()

    async def body() -> AsyncIterator[bytes]:
        begun["body"] = time.monotonic()
        yield b'{"prompt": "a"}'

    monkeypatch.setattr("aunet.serve.app.answer", answer)
    header = {"Content-Type": "application/json"}
    app = create_app(engine, "tiny", Settings())
    assert ask(app, "POST", "/v1/completions", content=body(), headers=header).status_code == 200
    assert begun["time"] <= begun["body"]

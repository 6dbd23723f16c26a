"""What has to be passed before a request is understood, without a process or a socket."""

import asyncio
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp

from aunet.infer.engine import Engine
from aunet.language_model import LanguageModel
from aunet.serve.app import create_app
from aunet.serve.settings import Settings
from tests.model.packs import small_config, small_model


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(LanguageModel(small_model(small_config(2)), native=False).session())


def ask(app: ASGIApp, method: str, path: str, **options: Any) -> httpx.Response:
    async def sent() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
            return await client.request(method, path, **options)

    return asyncio.run(sent())


class TestInsideAnotherApplication:
    SETTINGS = Settings(api_key="a secret", max_prompt_bytes=1, max_scored_bytes=1)

    @pytest.fixture
    def outer(self, engine: Engine) -> Starlette:
        return Starlette(routes=[Mount("/lm", create_app(engine, "tiny", self.SETTINGS))])

    @pytest.mark.parametrize(("method", "path"), [("GET", "models"), ("POST", "completions"), ("POST", "inspect")])
    def test_the_key_is_asked_for(self, outer: Starlette, method: str, path: str) -> None:
        assert ask(outer, method, f"/lm/v1/{path}").status_code == 401
        assert ask(outer, "GET", "/lm/health").status_code == 200

    def test_bodies_are_bounded_and_requests_counted(self, outer: Starlette) -> None:
        header = {"Authorization": "Bearer a secret"}
        body = b"a" * (self.SETTINGS.max_body_bytes + 1)
        assert ask(outer, "GET", "/lm/v1/models", headers=header).status_code == 200
        assert ask(outer, "POST", "/lm/v1/completions", headers=header, content=body).status_code == 413
        counted = 'aunet_requests_total{endpoint="/v1/completions",outcome="invalid"} 1.0'
        assert counted in ask(outer, "GET", "/lm/metrics").text

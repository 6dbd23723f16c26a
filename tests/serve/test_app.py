"""Everything around the completions: models, errors, health, metrics, the page, the description."""

import http.client
import json
import re
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch

from aunet.model.directory import save_model
from tests.model.packs import small_config, small_model
from tests.serve.processes import Server, serving

HEADERS = {"Content-Type": "application/json"}


def refused(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error of a response: one line in OpenAI's shape."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert "\n" not in error["message"]
    assert "Traceback" not in error["message"]
    return error


class TestModels:
    def test_the_one_model(self, server: Server) -> None:
        (model,) = server.client().models.list().data
        assert model.id == server.name == "tiny"
        assert server.client().models.retrieve("tiny") == model
        assert model.aunet["splitter"] == "word1"  # type: ignore[attr-defined]

    def test_another_name(self, server: Server) -> None:
        for name in ("gpt-4", "some/other"):
            with pytest.raises(openai.NotFoundError) as caught:
                server.client().models.retrieve(name)
            assert caught.value.code == "model_not_found"


class TestBadBodies:
    @pytest.mark.parametrize("path", ["completions", "chat/completions", "inspect"])
    @pytest.mark.parametrize(
        "body",
        [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe{}", b"{}{}", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"],
    )
    def test_what_is_no_json_object(self, server: Server, path: str, body: bytes) -> None:
        error = refused(httpx.post(f"{server.url}/v1/{path}", content=body, headers=HEADERS), 400)
        assert error["code"] == "not_json"

    def test_json_that_is_sent_as_something_else(self, server: Server) -> None:
        """As a page of another origin could without asking."""
        sent = httpx.post(
            f"{server.url}/v1/completions", content=b'{"prompt": "a"}', headers={"Content-Type": "text/plain"}
        )
        assert "application/json" in refused(sent, 400)["message"]

    @pytest.mark.parametrize(
        ("path", "body", "half"),
        [
            ("completions", r'{"prompt": "a\ud800"}', r"\ud800"),
            ("completions", r'{"prompt": ["b", "a\uDFFF"]}', r"\udfff"),
            ("completions", r'{"prompt": "a", "stop": "\ud83d"}', r"\ud83d"),
            ("completions", r'{"prompt": "a", "\ud800": 1}', r"\ud800"),
            ("completions", r'{"prompt": "a", "model": "\ud800"}', r"\ud800"),
            ("chat/completions", r'{"messages": [{"role": "user", "content": "\ud800\ud800"}]}', r"\ud800"),
            ("inspect", r'{"text": "\ud800x"}', r"\ud800"),
        ],
    )
    def test_half_a_character_in_json_escapes(self, server: Server, path: str, body: str, half: str) -> None:
        error = refused(httpx.post(f"{server.url}/v1/{path}", content=body, headers=HEADERS), 400)
        assert half in error["message"]
        assert "surrogate" in error["message"]

    @pytest.mark.parametrize(("text", "expected"), [(r"\ud83d\ude00", "😀"), (r"\\ud800", r"\ud800")])
    def test_escapes_that_are_whole(self, server: Server, text: str, expected: str) -> None:
        body = f'{{"text": "{text}", "score": false}}'
        found = httpx.post(f"{server.url}/v1/inspect", content=body, headers=HEADERS).json()
        assert bytes(found["bytes"]).decode() == expected

    @pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
    def test_numbers_that_are_none(self, server: Server, value: str) -> None:
        body = f'{{"prompt": "a", "temperature": {value}}}'
        error = refused(httpx.post(f"{server.url}/v1/completions", content=body, headers=HEADERS), 400)
        assert error["param"] == "temperature"

    def test_ten_megabytes(self, server: Server) -> None:
        """The client has sent everything before it reads the answer, and it gets one."""
        with pytest.raises(openai.APIStatusError) as caught:
            server.client().completions.create(model="tiny", prompt="a" * 10_000_000)
        assert caught.value.status_code == 413
        assert caught.value.code == "too_large"

    def test_ten_megabytes_of_unknown_length(self, server: Server) -> None:
        pieces = (b"a" * 100_000 for _ in range(100))
        assert refused(httpx.post(f"{server.url}/v1/completions", content=pieces), 413)["code"] == "too_large"

    def test_paths_and_methods_that_are_none(self, server: Server) -> None:
        refused(httpx.get(f"{server.url}/v1/nothing"), 404)
        refused(httpx.get(f"{server.url}/nothing"), 404)
        refused(httpx.get(f"{server.url}/v1/completions"), 405)
        refused(httpx.get(f"{server.url}/page/..%2fapp.py"), 404)


@pytest.mark.parametrize("path", ["/", "/health"])
def test_monitors_ask_for_the_head_alone(server: Server, path: str) -> None:
    head, whole = httpx.head(f"{server.url}{path}"), httpx.get(f"{server.url}{path}")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]


class TestKey:
    KEY = "a secret"

    @pytest.fixture(scope="class")
    def locked(self, directory: Path) -> Any:
        with serving(directory, AUNET_API_KEY=self.KEY) as running:
            yield running

    def test_everything_under_v1_asks_for_it(self, locked: Server) -> None:
        for given in (None, "Bearer a secret!", b"Bearer \xe9", self.KEY):
            header = {} if given is None else {"Authorization": given}
            for method, path in (
                ("GET", "models"),
                ("GET", "models/tiny"),
                ("GET", "nothing"),
                ("POST", "completions"),
                ("POST", "chat/completions"),
                ("POST", "inspect"),
            ):
                sent = httpx.request(method, f"{locked.url}/v1/{path}", headers=header)
                assert refused(sent, 401)["type"] == "authentication_error"
                assert sent.headers["www-authenticate"] == "Bearer"
        with pytest.raises(openai.AuthenticationError):
            locked.client("wrong").models.list()

    def test_with_it(self, locked: Server) -> None:
        assert locked.client(self.KEY).completions.create(model="tiny", prompt="a", max_tokens=2).choices
        assert locked.metrics()['aunet_requests_total{endpoint="/v1/completions",outcome="ok"}'] == 1

    def test_it_is_not_asked_for_elsewhere_nor_told(self, locked: Server) -> None:
        for path in ("health", "metrics", "openapi.json", "docs", ""):
            answer = httpx.get(f"{locked.url}/{path}")
            assert answer.status_code == 200
            assert self.KEY not in answer.text
        assert "HTTPBearer" in httpx.get(f"{locked.url}/openapi.json").text


class TestInspect:
    def test_a_text(self, server: Server, model: Any) -> None:
        text = "The house é, 12 漢"
        found = httpx.post(f"{server.url}/v1/inspect", json={"text": text, "alternatives": 2}).json()
        assert bytes(found["bytes"]).decode() == text
        assert found["levels"] == model.splitter.levels(text.encode()).tolist()
        assert found["bits"] == pytest.approx(model.bits(text).tolist(), abs=1e-4)
        assert (found["splitter"], found["stages"]) == ("word1", 2)
        probabilities = model.logits([[256, *text.encode()]])[0].softmax(-1)
        for row, pairs in zip(probabilities, found["alternatives"], strict=True):
            assert [p for _, p in pairs] == pytest.approx([float(row[i]) for i, _ in pairs], abs=1e-4)
            best = row.topk(3).indices.tolist()
            assert [i for i, _ in pairs] == [i for i in best if i != 256][:2]

    def test_a_long_text_is_read_in_pieces(self, server: Server, model: Any) -> None:
        text = "word and word, " * 100
        found = httpx.post(f"{server.url}/v1/inspect", json={"text": text, "alternatives": 0}).json()
        assert found["bits"] == pytest.approx(model.bits(text).tolist(), abs=1e-4)
        assert found["alternatives"] == [[]] * (len(text) + 1)

    def test_another_splitter_and_no_score(self, server: Server) -> None:
        found = httpx.post(
            f"{server.url}/v1/inspect", json={"text": "abcd", "splitter": "fixed-2", "score": False}
        ).json()
        assert found == {
            "splitter": "fixed-2",
            "stages": 2,
            "bytes": [97, 98, 99, 100],
            "levels": [0, 1, 0, 1],
            "bits": None,
            "alternatives": None,
        }

    def test_an_empty_text(self, server: Server) -> None:
        found = httpx.post(f"{server.url}/v1/inspect", json={"text": ""}).json()
        assert (found["bytes"], found["levels"], len(found["bits"]), len(found["alternatives"])) == ([], [], 1, 1)

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ({"text": "a", "splitter": "wrod1"}, "did you mean word1"),
            ({"text": "a", "alternatives": 21}, "alternatives"),
            ({"text": "a" * 20_000}, "at most 16384"),
            ({"text": 5}, "text"),
            ({}, "text: field required"),
        ],
    )
    def test_what_is_refused(self, server: Server, body: dict[str, Any], words: str) -> None:
        assert words in refused(httpx.post(f"{server.url}/v1/inspect", json=body), 400)["message"]


class TestOperations:
    def test_health(self, server: Server) -> None:
        answer = httpx.get(f"{server.url}/health")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})

    def test_metrics_count_requests_and_bytes(self, server: Server) -> None:
        before = server.metrics()
        client, prompt = server.client(), "count these bytes, " * 3
        for _ in range(2):
            client.completions.create(model="tiny", prompt=prompt, max_tokens=7, temperature=0)
        with pytest.raises(openai.BadRequestError):
            client.completions.create(model="tiny", prompt=prompt, n=0)
        after = server.metrics()

        def more(name: str) -> float:
            return after[name] - before.get(name, 0)

        assert more('aunet_requests_total{endpoint="/v1/completions",outcome="ok"}') == 2
        assert more('aunet_requests_total{endpoint="/v1/completions",outcome="invalid"}') == 1
        assert more('aunet_request_seconds_count{endpoint="/v1/completions"}') == 3
        assert more("aunet_time_to_first_byte_seconds_count") == 2
        assert more("aunet_generated_bytes_total") == 14
        assert more("aunet_prompt_bytes_total") == 2 * len(prompt)
        assert more("aunet_cached_prompt_bytes_total") >= len(prompt)
        assert after["aunet_sequences_running"] == after["aunet_sequences_waiting"] == 0
        assert after["process_resident_memory_bytes"] > 0

    def test_a_broken_engine_is_said_and_nothing_hangs(self, tmp_path: Path) -> None:
        network = small_model(small_config(2))
        with torch.no_grad():
            network.head.weight.fill_(float("nan"))
        save_model(network, tmp_path / "broken")
        with serving(tmp_path / "broken") as broken:
            assert httpx.get(f"{broken.url}/health").status_code == 200
            for stream in (False, True, False):
                sent = httpx.post(f"{broken.url}/v1/completions", json={"prompt": "a", "stream": stream}, timeout=None)
                assert refused(sent, 500)["code"] == "engine_failed"
            answer = httpx.get(f"{broken.url}/health")
            assert (answer.status_code, answer.json()) == (503, {"status": "failed"})
            outcome = 'aunet_requests_total{endpoint="/v1/completions",outcome="failed"}'
            assert broken.metrics()[outcome] == 3
            assert broken.stop() == 1
            assert "the model is broken" in broken.errors()


class TestBrowser:
    def test_the_playground_and_its_files(self, server: Server) -> None:
        page = httpx.get(server.url)
        assert page.headers["content-type"].startswith("text/html")
        asked = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert asked
        for path in asked:
            answer = httpx.get(f"{server.url}/{path}")
            assert answer.status_code == 200
            assert "default-src 'self'" in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"

    def test_the_description_has_a_page_that_needs_nobody_else(self, server: Server) -> None:
        page = httpx.get(f"{server.url}/docs").text
        assert "/v1/chat/completions" in page
        assert "CompletionRequest" in page
        assert "http" not in "".join(re.findall(r'(?:src|href)="([^"]*)"', page))
        assert "<script" not in page

    def test_the_description_states_the_limits_of_this_server(self, server: Server) -> None:
        schemas = httpx.get(f"{server.url}/openapi.json").json()["components"]["schemas"]
        properties = schemas["CompletionRequest"]["properties"]
        assert {"type": "integer", "minimum": 0, "maximum": 4096} in properties["max_tokens"]["anyOf"]
        assert {"const": "tiny"} in properties["model"]["anyOf"]


def test_a_connection_serves_several_requests(server: Server) -> None:
    """Also after an error, and after a body that was too large."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    for body, status in (("{}", 400), ("{", 400), ("a" * 1_000_000, 413), ('{"prompt": "", "max_tokens": 1}', 200)):
        connection.request("POST", "/v1/completions", body, HEADERS)
        response = connection.getresponse()
        assert response.status == status
        json.loads(response.read())
    connection.close()

"""Two replicas behind Ray Serve on this machine."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from socket import create_server

import httpx
import openai
import pytest

import aunet
from aunet.errors import AUNetError, ConfigError
from aunet.serve.replicas import Replicas, application
from tests.runs import environment

pytest.importorskip("ray", reason="needs Ray Serve: pip install 'ray[serve]'")

PROGRAM = """
import json, sys
import ray
from ray import serve
from aunet.serve.replicas import Replicas, application

options, port = json.loads(sys.argv[1]), int(sys.argv[2])
ray.init(num_cpus=1, include_dashboard=False, object_store_memory=80_000_000, log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": port})
serve.run(application(Replicas(**options)))
print("ready", flush=True)
sys.stdin.read()
serve.shutdown()
ray.shutdown()
"""


@pytest.fixture(scope="module")
def cluster(directory: Path) -> Iterator[str]:
    """The address of two replicas, which are shut down cleanly."""
    with closing(create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    options = {"model": str(directory), "replicas": 2, "cpus": 0.1, "slots": 4, "queue": 4}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(options), str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment(), "RAY_USAGE_STATS_ENABLED": "0", "AUNET_API_KEY": "two"},
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    try:
        line = ""
        while line != "ready\n":
            line = process.stdout.readline()
            assert line, process.communicate()[1]
        yield f"http://127.0.0.1:{port}"
        _, errors = process.communicate("")
        assert process.returncode == 0, errors
    finally:
        process.kill()
        process.wait()


def test_both_answer_as_one_server_would(cluster: str, model: aunet.LanguageModel) -> None:
    client = openai.OpenAI(base_url=f"{cluster}/v1", api_key="two", max_retries=0)
    expected = model.generate("some words ", max_bytes=30, seed=3, temperature=1, as_bytes=True)
    asked = 0
    by_replica: dict[float, float] = {}
    while len(by_replica) < 2:
        assert asked < 100, "one replica gets everything"
        whole = client.completions.create(model="tiny", prompt="some words ", max_tokens=30, seed=3)
        assert bytes(whole.choices[0].aunet["bytes"]) == expected  # type: ignore[attr-defined]
        stream = client.completions.create(model="tiny", prompt="some words ", max_tokens=30, seed=3, stream=True)
        assert b"".join(bytes(chunk.choices[0].aunet["bytes"]) for chunk in stream) == expected  # type: ignore[attr-defined]
        asked += 2
        by_replica.update(_answered(cluster) for _ in range(4))
        by_replica = {replica: count for replica, count in by_replica.items() if count}


def _answered(cluster: str) -> tuple[float, float]:
    """Which replica has been asked, by the time at which its process began, and how many completions it has done."""
    lines = httpx.get(f"{cluster}/metrics").text.splitlines()
    samples = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    done = samples.get('aunet_requests_total{endpoint="/v1/completions",outcome="ok"}', "0")
    return float(samples["process_start_time_seconds"]), float(done)


def test_errors_and_the_key_pass_through(cluster: str) -> None:
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{cluster}/v1", api_key="one", max_retries=0).models.list()
    client = openai.OpenAI(base_url=f"{cluster}/v1", api_key="two", max_retries=0)
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="tiny", prompt="a", n=0)
    assert caught.value.param == "n"


def test_what_is_refused_before_anything_starts(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(AUNetError, match="name a model directory"):
        application(Replicas(model=tmp_path))
    with pytest.raises(ConfigError, match="--slots"):
        application(Replicas(model=directory, slots=0))

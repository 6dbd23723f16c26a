"""Checkpoints on an S3 server that listens, answers and fails like a real one."""

import json
import shutil
import sys
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch

from aunet.config import TrainConfig
from aunet.errors import AUNetError, ConfigError, MissingExtra
from aunet.train import checkpoint, storage
from aunet.train.saving import Policy, Saver
from aunet.train.storage import Directory, Remote, open_storage, storage_at
from tests.ranks import together
from tests.runs import aunet, done, here, losses, refused, write_config


class Server:
    """Answers as S3 does, but for the next `failing` requests of one method: these get 503."""

    def __init__(self, answers: Callable[..., Iterable[bytes]]) -> None:
        self.failing, self.method, self.refused = 0, "PUT", 0
        self.log: list[str] = []
        self._answers = answers
        from werkzeug.serving import make_server

        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def _answer(self, request: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method = request["REQUEST_METHOD"]
        if method == self.method and self.failing:
            self.failing, self.refused = self.failing - 1, self.refused + 1
            start("503 Service Unavailable", [("Content-Type", "application/xml")])
            return [b"<Error><Code>ServiceUnavailable</Code></Error>"]
        self.log.append(f"{method} {request['PATH_INFO']}")
        return self._answers(request, start)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """With an empty bucket; this process and its children find it by the environment."""
    s3fs = pytest.importorskip("s3fs", reason="needs the extra remote")
    moto = pytest.importorskip("moto.server", reason="needs moto's server")
    made = Server(moto.DomainDispatcherApplication(moto.create_backend_app))
    place = {"AWS_ENDPOINT_URL": made.url, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}
    # One try of the client for each of ours, so that these can be counted.
    for name, value in {**place, "AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(storage, "PAUSES", (0.0, 0.0, 0.0))
    urllib.request.urlopen(urllib.request.Request(f"{made.url}/moto-api/reset", method="POST")).close()
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir("bucket")
    made.log.clear()
    yield made
    made.close()


@pytest.fixture
def remote(server: Server, tmp_path: Path) -> Remote:
    found = storage_at("s3://bucket/run", tmp_path / "scratch")
    assert isinstance(found, Remote)
    return found


def save(place: storage.Storage, step: int) -> None:
    checkpoint.save(place, step, {"model.x": torch.full((50,), float(step))}, {"note": step})


def value(found: checkpoint.Checkpoint | None) -> float:
    assert found is not None
    loaded = {"model.x": torch.zeros(50)}
    checkpoint.load_tensors(found, loaded)
    return float(loaded["model.x"].mean())


def test_what_was_uploaded_comes_back_and_the_manifest_came_last(
    server: Server, remote: Remote, tmp_path: Path
) -> None:
    save(remote, 4)
    sent = [line.rpartition("/")[2] for line in server.log if line.startswith("PUT")]
    assert sent == ["shard-00001-model-00001-of-00001.safetensors", "state.json", "manifest.json"]
    assert value(checkpoint.newest(remote, pytest.fail)) == 4
    assert [path for path in (tmp_path / "scratch").rglob("*") if path.is_file()] == [], "nothing is left here"


def test_the_policy_deletes_there_too_the_manifest_first(server: Server, remote: Remote) -> None:
    with Saver(remote, Policy(newest=1, every=8)) as saver:
        for step in (4, 8, 12):
            saver.begin(step, {"model.x": torch.ones(50)}, {}, {}, {})
    assert checkpoint.complete_steps(remote) == [8, 12]
    gone = [line for line in server.log if line.startswith("DELETE")]
    assert gone[0] == "DELETE /bucket/run/step-4/manifest.json"
    assert all("/step-4/" in line for line in gone)


@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_what_fails_now_and_then_is_tried_again(server: Server, remote: Remote, method: str) -> None:
    server.method, server.failing = method, 3
    save(remote, 4)
    assert value(checkpoint.newest(remote, pytest.fail)) == 4
    assert server.refused == 3


def test_a_server_that_fails_for_good_is_one_line(server: Server, remote: Remote) -> None:
    save(remote, 4)
    server.failing = 1000
    with pytest.raises(AUNetError) as caught:
        save(remote, 8)
    assert str(caught.value).startswith("s3://bucket/run/step-8: cannot be written (s3://bucket/run/step-8/shard-00001")
    assert str(caught.value).endswith("the newest complete checkpoint is s3://bucket/run/step-4")
    assert "\n" not in str(caught.value)
    assert server.refused == len(storage.PAUSES) + 1, "the tries are bounded"
    assert list(remote.steps()) == [4]
    # Not to see what is there must not look like a run that has not begun.
    server.method = "GET"
    with pytest.raises(AUNetError, match="s3://bucket/run: "):
        checkpoint.newest(remote, pytest.fail)
    server.close()
    with pytest.raises(AUNetError, match="s3://bucket/run/step-9: cannot be written"):
        save(remote, 9)


def test_a_bucket_that_is_not_there_is_one_line(server: Server, tmp_path: Path) -> None:
    with pytest.raises(AUNetError, match=r"s3://other/step-1: cannot be written .*there is no such place") as caught:
        save(storage_at("s3://other", tmp_path), 1)
    assert "\n" not in str(caught.value)
    (tmp_path / "run").mkdir()
    line = refused("train", write_config(tmp_path / "run"), "train.checkpoints=s3://other/run", code=1)
    assert line.startswith("train.checkpoints: s3://other/run cannot be written to (")
    assert line.endswith("; name another place")
    assert not (tmp_path / "run" / "out" / "metrics.jsonl").exists(), "before the first step"


@pytest.mark.parametrize("harm", ["one bit", "cut off", "no shard", "no manifest", "manifest cut off"])
def test_what_is_damaged_there_is_named_and_the_one_before_is_used(remote: Remote, harm: str) -> None:
    save(remote, 4)
    save(remote, 8)
    shard = next(name for name in remote.steps()[8] if name.endswith(".safetensors"))
    name = "manifest.json" if "manifest" in harm else shard
    content = bytearray(remote.read(8, name))
    content[-8] ^= 1
    if harm.startswith("no "):
        remote.remove(8, [name])
    else:
        remote.write(8, name, bytes(content[: len(content) // 2] if "cut off" in harm else content))
    told: list[str] = []
    assert value(checkpoint.newest(remote, told.append)) == 4
    (line,) = told
    assert line.startswith("s3://bucket/run/step-8: passed over, ")
    assert name in line
    assert "\n" not in line


def test_a_manifest_cannot_name_files_elsewhere(remote: Remote) -> None:
    save(remote, 4)
    manifest = json.loads(remote.read(4, "manifest.json"))
    manifest["files"]["../../evil"] = manifest["files"]["state.json"]
    remote.write(4, "manifest.json", json.dumps(manifest).encode())
    told: list[str] = []
    assert checkpoint.newest(remote, told.append) is None
    assert told == ["s3://bucket/run/step-4: passed over, manifest.json does not name its files"]


def test_a_run_goes_on_from_there_with_two_processes_on_an_empty_machine(server: Server, tmp_path: Path) -> None:
    for name in ("whole", "first"):
        (tmp_path / name).mkdir()
    there = "train.checkpoints=s3://bucket/run"
    constant = ("train.warmup=0", "train.lr_floor=1")  # so that the learning rate is that of a longer run
    assert here("train", write_config(tmp_path / "whole"), *constant).returncode == 0
    config = write_config(tmp_path / "first")
    first = aunet("train", config, there, "train.steps=8", *constant)
    assert first.returncode == 0, first.stderr
    one = tmp_path / "first" / "out"
    assert not (one / "checkpoints").exists()
    done("export", "s3://bucket/run/step-8", "--out", tmp_path / "exported")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "exported" / name).read_bytes() == (one / name).read_bytes()
    assert "complete ones: 4, 8" in refused("export", "s3://bucket/run", "--step", "5", "--out", tmp_path / "x", code=1)
    before = losses(one)
    shutil.rmtree(one)
    again = together(2, ("train", config, there, *constant))
    assert again.count("resuming after step 8 from s3://bucket/run/step-8") == 1
    whole = losses(tmp_path / "whole" / "out")
    assert before == whole[:8]
    assert [step for step, _ in losses(one)] == [9, 10, 11, 12]
    assert [loss for _, loss in losses(one)] == pytest.approx([loss for _, loss in whole[8:]], abs=1e-5)
    done("export", one, "--out", tmp_path / "last")  # where its checkpoints are, run.json says
    assert (tmp_path / "last" / "model.safetensors").read_bytes() == (one / "model.safetensors").read_bytes()


# Which storage it is


def test_a_path_is_a_directory() -> None:
    assert isinstance(open_storage(TrainConfig(out="runs/x")), Directory)
    assert str(open_storage(TrainConfig(out="runs/x"))) == "runs/x/checkpoints"
    assert str(open_storage(TrainConfig(out="runs/x", checkpoints="/data/c/"))) == "/data/c"
    assert str(storage_at("file:///data/c", Path("unused"))) == "/data/c"


def test_names_that_are_no_steps_are_left_alone(tmp_path: Path) -> None:
    for name in ("step-4", "step-²", "step-", "step-4b", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-8").write_text("a file")
    assert Directory(str(tmp_path)).steps() == {4: set()}


def test_what_cannot_be_a_place_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.checkpoints: memory:// ends with the process"):
        storage_at("memory://x", tmp_path)
    with pytest.raises(ConfigError, match=r"train\.checkpoints: nowhere://x: "):
        storage_at("nowhere://x", tmp_path)
    pytest.importorskip("fsspec")
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(MissingExtra, match=r"s3fs.*aunet\[remote\]"):
        storage_at("s3://bucket/run", tmp_path)


def test_a_place_is_tried_before_the_first_step(tmp_path: Path, server: Server, remote: Remote) -> None:
    for place in (tmp_path / "train.jsonl", tmp_path / "train.jsonl" / "below"):
        line = refused("train", write_config(tmp_path), f"train.checkpoints={place}", code=1)
        assert line.startswith(f"train.checkpoints: {place} cannot be written to (")
    assert not (tmp_path / "out" / "metrics.jsonl").exists()
    remote.try_out()
    assert server.log[-2:] == ["PUT /bucket/run/.writable", "DELETE /bucket/run/.writable"]
    assert remote.steps() == {}

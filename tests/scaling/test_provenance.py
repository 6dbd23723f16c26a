"""Where a result comes from."""

import subprocess
from pathlib import Path

import pytest
import torch

from aunet.config import SourceConfig
from aunet.scaling import provenance
from aunet.scaling.provenance import code, epochs, hardware, hash_of, size_of
from tests.runs import write_text


def sources(*paths: Path) -> list[SourceConfig]:
    return [SourceConfig(path=str(path)) for path in paths]


def test_the_hash_is_of_the_contents_and_not_of_names(tmp_path: Path) -> None:
    one = write_text(tmp_path / "one.jsonl", 5)
    same, other = write_text(tmp_path / "two.jsonl", 5), write_text(tmp_path / "three.jsonl", 5, seed=1)
    assert hash_of(sources(one)) == hash_of(sources(same)) != hash_of(sources(other))
    assert size_of(sources(one, other)) == size_of(sources(one)) + size_of(sources(other))


def test_large_texts_are_told_by_their_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "READ_WHOLE", 10)
    monkeypatch.setattr(provenance, "END", 20)
    path = write_text(tmp_path / "text.jsonl", 50)
    before = hash_of(sources(path))
    path.write_bytes(path.read_bytes()[:-30] + b"x" * 30)
    assert hash_of(sources(path)) != before


def test_epochs_are_bytes_read_over_bytes_there(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("0123456789")
    assert epochs(25, size_of(sources(tmp_path / "a.txt"))) == 2.5
    assert epochs(25, float("nan")) is None


def test_the_commit_is_of_the_repository_that_tracks_the_package(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        settings = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", "-C", str(tmp_path), *settings, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q")
    inside = tmp_path / "package"
    inside.mkdir()
    (inside / "__init__.py").write_text("")
    assert provenance._commit(inside) is None  # a repository around it that does not hold it says nothing
    git("add", ".")
    git("commit", "-q", "-m", "one")
    assert provenance._commit(inside) == git("rev-parse", "HEAD")
    assert provenance._commit(tmp_path / "absent") is None


def test_a_change_of_any_code_is_told(tmp_path: Path) -> None:
    found = set()
    for name in ("a.py", "native/kernels.cpp", "native/wide.h", "page.html"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
        found.add(provenance._sources(tmp_path))
    assert len(found) == 3  # a page changes no result


def test_code_and_hardware_say_something() -> None:
    assert len(code().sources) == 64
    assert torch.__version__ in hardware(torch.device("cpu"))

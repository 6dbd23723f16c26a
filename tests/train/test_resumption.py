"""What a run goes on from: never from its beginning while there may be a checkpoint."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from aunet.train.resumption import forget_checkpoints
from aunet.train.storage import Directory
from tests.ranks import start_together
from tests.runs import done, here, losses, refused, write_config


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run of 12 steps, checkpoints of 8 and 12."""
    directory = tmp_path_factory.mktemp("whole")
    done("train", write_config(directory))
    return directory / "out"


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "out")


def again(whole: Path, out: Path, *settings: str) -> tuple[str | Path, ...]:
    """The same command for a copy of the run, for more steps."""
    return ("train", whole.parent / "config.yaml", f"train.out={out}", "train.steps=14", *settings)


def failing(_: Directory, *__: object) -> bytes:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def content(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_a_disk_that_fails_while_looking_ends_the_run(whole: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(out)
    with monkeypatch.context() as patch:
        patch.setattr(Directory, "read", failing)
        line = refused(*again(whole, out), code=1)
    manifest = out / "checkpoints" / "step-12" / "manifest.json"
    assert line == f"{manifest}: cannot be read (Input/output error); see to its disk and run the command again"
    with monkeypatch.context() as patch:
        patch.setattr("aunet.train.checkpoint._fingerprint", failing)
        line = refused(*again(whole, out), code=1)
    assert line.startswith(f"{manifest.parent}{os.sep}")
    assert "cannot be read (Input/output error)" in line
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", failing)
        assert "Input/output error" in refused(*again(whole, out), code=1)
    assert content(out) == before
    assert "resuming after step 12" in done(*again(whole, out))
    assert [step for step, _ in losses(out)] == list(range(1, 15))


def test_a_run_whose_checkpoints_are_away_does_not_begin_anew(whole: Path, out: Path) -> None:
    before = {name: data for name, data in content(out).items() if not name.startswith("checkpoints")}
    (out / "checkpoints").rename(out.parent / "away")
    line = refused(*again(whole, out), code=1)
    assert line == (
        f"{whole / 'checkpoints' / 'step-12'}: this run was saved there, and {out / 'checkpoints'} has no complete "
        "checkpoint; put it back (is its disk mounted?), or name another train.out"
    )
    assert content(out) == before
    assert "resuming after step 12" in done(*again(whole, out, f"train.checkpoints={out.parent / 'away'}"))


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_anew(whole: Path, out: Path) -> None:
    for shard in (out / "checkpoints").rglob("*.safetensors"):
        shard.write_bytes(b"")
    (out / "saved.json").unlink()  # of a version that wrote none
    before = content(out)
    line = refused(*again(whole, out), code=1)
    assert line.startswith(f"{out / 'checkpoints' / 'step-12'}: passed over, shard-")
    assert line.endswith("and there is no other; put one back that is whole, or name another train.out")
    assert content(out) == before


def test_all_ranks_refuse_to_begin_anew(whole: Path, out: Path) -> None:
    shutil.rmtree(out / "checkpoints")
    shown = start_together(2, "tests.train.beginning", str(out))
    assert shown.count("this run was saved there") == 2


def test_a_run_that_was_never_saved_begins_again(tmp_path: Path) -> None:
    """Killed before its first checkpoint was complete: what is there has no manifest."""
    config = write_config(tmp_path)
    done("train", config)
    expected = losses(tmp_path / "out")
    forget_checkpoints(tmp_path / "out")
    (tmp_path / "out" / "checkpoints" / "step-4").mkdir(parents=True)
    result = here("train", config)
    assert "step-4: passed over, it is incomplete (no manifest.json)" in result.stdout
    assert losses(tmp_path / "out") == expected

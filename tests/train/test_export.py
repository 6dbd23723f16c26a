"""The model of a checkpoint: the bytes that the run itself wrote, or one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from aunet.errors import AUNetError
from aunet.train import checkpoint
from aunet.train.export import export
from tests.runs import done, here, refused, write_config

FILES = ("config.json", "model.safetensors", "README.md")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run with checkpoints of the steps 4, 8 and 12."""
    directory = tmp_path_factory.mktemp("exported")
    config = write_config(directory, keep=3, checkpoint_every=4)
    assert here("train", config).returncode == 0
    return directory / "out"


def test_the_last_checkpoint_gives_the_model_of_the_run(run: Path, tmp_path: Path) -> None:
    for number, place in enumerate((run, run / "checkpoints", run / "checkpoints" / "step-12")):
        out = tmp_path / str(number)
        assert "the model after step 12" in done("export", place, "--out", out)
        assert {path.name for path in out.iterdir()} == set(FILES)
        for name in FILES:
            assert (out / name).read_bytes() == (run / name).read_bytes(), name


def test_an_earlier_step_gives_another_model_that_runs(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = json.loads(done("export", run, "--step", "8", "--json"))
    assert told == {"source": str(run / "checkpoints" / "step-8"), "step": 8, "out": "model-step-8"}
    assert (tmp_path / "model-step-8" / "model.safetensors").read_bytes() != (run / "model.safetensors").read_bytes()
    assert "- steps: 8\n" in (tmp_path / "model-step-8" / "README.md").read_text()
    assert done("generate", "model-step-8", "--prompt", "the", "--max-bytes", "4").startswith("the")


def test_what_is_missing_or_damaged_is_one_line(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    checkpoints, out = tmp_path / "run" / "checkpoints", ("--out", tmp_path / "model")
    assert "no complete checkpoint there" in refused("export", checkpoints / "step-²", *out, code=1)
    assert "complete ones: 4, 8, 12" in refused("export", tmp_path / "run", "--step", "9", *out, code=1)
    assert "leave one of them out" in refused("export", checkpoints / "step-8", "--step", "4", *out, code=1)
    assert "no complete checkpoint there" in refused("export", tmp_path / "nowhere", *out, code=1)
    assert "has a model already" in refused("export", run, "--out", run, code=1)
    (checkpoints / "step-8" / "manifest.json").unlink()
    assert "step-8: it is incomplete" in refused("export", tmp_path / "run", "--step", "8", *out, code=1)
    shard = next((checkpoints / "step-12").glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    line = refused("export", checkpoints / "step-12", *out, code=1)
    assert line.endswith(f"step-12: {shard.name} is damaged (size or checksum differ from manifest.json)")
    assert not (tmp_path / "model").exists()
    assert "the model after step 4" in done("export", tmp_path / "run", *out), "the newest one that is whole"


def test_a_checkpoint_that_is_deleted_meanwhile_is_not_missed(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on deletes what it does not keep, here while its newest checkpoint is being loaded."""
    shutil.copytree(run, tmp_path / "run")
    load, loaded = checkpoint.load_tensors, []

    def deleted_at_first(found: checkpoint.Checkpoint, *more: Any) -> None:
        if not loaded:
            shutil.rmtree(found.directory)
        loaded.append(found.step)
        load(found, *more)

    monkeypatch.setattr(checkpoint, "load_tensors", deleted_at_first)
    assert export(str(tmp_path / "run"), None, tmp_path / "model", pytest.fail).step == 8
    assert loaded == [12, 8]
    loaded.clear()
    with pytest.raises(AUNetError, match="step-8: there is no such checkpoint; complete ones: 4"):
        export(str(tmp_path / "run"), 8, tmp_path / "other", pytest.fail)

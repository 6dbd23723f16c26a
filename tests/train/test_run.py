"""Whole runs: complete, killed, stopped, resumed, refused; what is killed and what goes on then are real processes."""

import copy
import hashlib
import json
import os
import re
import shutil
import signal
import weakref
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from aunet.compiler import CPP_COMPILERS
from aunet.model.aunet import AUNet
from aunet.presets import load_run
from aunet.train import loop
from aunet.train.run import run_training
from tests.runs import aunet, done, here, losses, metrics, start, wait_for_step, write_config, write_text


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("whole")
    result = aunet("train", write_config(directory))
    assert result.returncode == 0, result.stderr
    return directory / "out"


def test_a_complete_run_leaves_model_metrics_and_checkpoints(uninterrupted: Path) -> None:
    names = {path.name for path in uninterrupted.iterdir()}
    assert {"config.json", "model.safetensors", "README.md", "metrics.jsonl", "run.json", "checkpoints"} <= names
    assert [step for step, _ in losses(uninterrupted)] == list(range(1, 13))
    assert {path.name for path in (uninterrupted / "checkpoints").iterdir()} == {"step-8", "step-12"}
    first, last = losses(uninterrupted)[0][1], losses(uninterrupted)[-1][1]
    assert last < first - 0.3
    valid = [line for line in metrics(uninterrupted) if "valid_bits_per_byte" in line]
    assert [line["step"] for line in valid] == [12]
    assert 0 < valid[0]["valid_bits_per_byte"] < 8


def test_a_run_says_how_much_of_its_length_it_has_read(tmp_path: Path) -> None:
    """Rows end where documents do, so the length by bytes is that of full rows."""
    told = done("train", write_config(tmp_path, steps=None), "train.bytes=4096", "data.workers=0")
    read = next(line["units"] for line in reversed(metrics(tmp_path / "out")) if "units" in line)
    assert 2000 < read < 4096
    assert f"read {read:,} bytes, {read / 4096:.0%} of the 4,096 that its rows have room for" in told


@pytest.mark.parametrize("step", [2, 5, 9])
def test_a_killed_run_resumes_bit_for_bit(uninterrupted: Path, tmp_path: Path, step: int) -> None:
    config = write_config(tmp_path)
    process = start("train", config)
    wait_for_step(tmp_path / "out", step)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    result = aunet("train", config)
    assert result.returncode == 0, result.stderr
    assert losses(tmp_path / "out") == losses(uninterrupted)


def test_a_killed_run_with_lookups_resumes_bit_for_bit(tmp_path: Path) -> None:
    """Those of the deeper stage know their n-grams, which are counted in the first of the two runs alone."""
    kinds = ("ngrams: [2, 3], buckets: 500", "ngrams: [1], buckets: 500, known: true")
    lookups = [*(f"model.stages.{s}.lookup={{{kind}}}" for s, kind in enumerate(kinds)), "train.lookup_sample=3e5"]
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    assert here("train", write_config(tmp_path / "whole"), *lookups, "train.accumulate=2").returncode == 0
    arguments = ("train", write_config(tmp_path / "killed"), *lookups, "train.accumulate=2")
    process = start(*arguments)
    wait_for_step(tmp_path / "killed" / "out", 5)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    result = aunet(*arguments)
    assert result.returncode == 0, result.stderr
    whole, killed = (tmp_path / name / "out" for name in ("whole", "killed"))
    assert losses(killed) == losses(whole)
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    refused = here(*arguments, "train.lookup_lr=2", "train.steps=20")
    assert refused.returncode == 1
    assert "train.lookup_lr is 2.0, the checkpoint has 3.0" in refused.stderr


def test_a_killed_run_with_muon_resumes_bit_for_bit(tmp_path: Path) -> None:
    muon = (
        "train.optimizer=muon",
        "train.stage_lr=[0.5,1]",
        "train.init=fixed",
        "model.stages.0.lookup={ngrams: [2], buckets: 500}",
    )
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    result = here("train", write_config(tmp_path / "whole"), *muon)
    assert result.returncode == 0, result.stderr
    arguments = ("train", write_config(tmp_path / "killed"), *muon)
    process = start(*arguments)
    wait_for_step(tmp_path / "killed" / "out", 5)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert aunet(*arguments).returncode == 0
    whole, killed = (tmp_path / name / "out" for name in ("whole", "killed"))
    assert losses(killed) == losses(whole)
    assert losses(whole)[-1][1] < losses(whole)[0][1] - 0.3
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    for change, message in (
        ("train.optimizer=adamw", 'train.optimizer is "adamw", the checkpoint has "muon"'),
        ("train.init=fan_in", 'train.init is "fan_in", the checkpoint has "fixed"'),
        ("train.stage_lr=[2,1]", "train.stage_lr.0 is 2.0, the checkpoint has 0.5"),
    ):
        refused = here(*arguments, change, "train.steps=20")
        assert refused.returncode == 1
        assert message in refused.stderr


def test_a_checkpoint_that_lacks_settings_with_a_default_is_resumed(uninterrupted: Path, tmp_path: Path) -> None:
    shutil.copytree(uninterrupted, tmp_path / "out")
    directory = tmp_path / "out" / "checkpoints" / "step-12"
    state = json.loads((directory / "state.json").read_text())
    for section, key in ((state["config"]["train"], "lookup_lr"), (state["config"]["model"]["stages"][0], "lookup")):
        del section[key]
    for key in ("optimizer", "stage_lr", "init", "head_eps", "lookup_sample"):
        del state["config"]["train"][key]
    for key in ("qk_norm", "layers_up"):
        del state["config"]["model"]["stages"][0][key]
    text = json.dumps(state).encode()
    (directory / "state.json").write_bytes(text)
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["files"]["state.json"] = {"size": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    (directory / "manifest.json").write_text(json.dumps(manifest))
    config = uninterrupted.parent / "config.yaml"
    result = here("train", config, "train.steps=13", f"train.out={tmp_path / 'out'}")
    assert result.returncode == 0, result.stderr
    assert "resuming after step 12" in result.stdout


def test_loader_workers_do_not_change_the_losses(uninterrupted: Path, tmp_path: Path) -> None:
    assert here("train", write_config(tmp_path), "data.workers=0").returncode == 0
    assert losses(tmp_path / "out") == losses(uninterrupted)


def test_held_out_text_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    with (tmp_path / "valid.jsonl").open("a") as file:
        file.write("not JSON\n")
    result = here("train", config, "data.workers=0", "train.steps=1")
    assert result.returncode == 0, result.stderr
    assert f"held-out text: skipped 1 x malformed JSON, first {tmp_path}/valid.jsonl:6" in result.stdout


def test_validations_without_held_out_text_are_told_not_to_be(tmp_path: Path) -> None:
    settings = ("data.valid=[]", "train.valid_every=2", "data.workers=0", "train.steps=2")
    told = done("train", write_config(tmp_path), *settings)
    assert "train.valid_every: nothing is validated, for there is no data.valid" in told


def test_a_source_with_less_than_a_row_of_the_run_is_told(tmp_path: Path) -> None:
    texts = [write_text(tmp_path / name, 50).name for name in ("a.jsonl", "b.jsonl")]
    sources = [{"path": str(tmp_path / name), "weight": weight} for name, weight in zip(texts, (1, 1e-3), strict=True)]
    settings = (f"data.sources={json.dumps(sources)}", "data.workers=0", "train.steps=2")
    told = done("train", write_config(tmp_path), *settings)
    assert f"data.sources.1: {tmp_path}/b.jsonl may never be read, its share of the 8 rows of this run is 0.008" in told
    assert "data.sources.0" not in told


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_says_how_to_resume_and_exits(
    uninterrupted: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    config = write_config(tmp_path, checkpoint_every=1000, steps=5000, lr=1e-5)
    process = start("train", config)
    wait_for_step(tmp_path / "out", 2)
    os.killpg(process.pid, number)  # the whole group, as Ctrl-C in a terminal does
    stdout, stderr = process.communicate()
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    last = losses(tmp_path / "out")[-1][0]
    assert f"stopped after step {last} of 5000, saved in" in stdout
    assert "run the same command again" in stdout
    assert (tmp_path / "out" / "checkpoints" / f"step-{last}" / "manifest.json").is_file()
    again = aunet("train", config, f"train.steps={last + 2}")
    assert again.returncode == 0, again.stderr
    assert f"resuming after step {last}" in again.stdout
    assert [step for step, _ in losses(tmp_path / "out")] == list(range(1, last + 3))


def test_accumulation_gives_the_same_losses_within_rounding(uninterrupted: Path, tmp_path: Path) -> None:
    assert here("train", write_config(tmp_path, accumulate=3)).returncode == 0
    for (_, a), (_, b) in zip(losses(tmp_path / "out"), losses(uninterrupted), strict=True):
        assert a == pytest.approx(b, abs=1e-4)


def test_a_changed_model_is_refused_by_key(uninterrupted: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    shutil.copytree(uninterrupted, tmp_path / "out")
    result = here("train", config, "model.stages.1.layers=2")
    assert result.returncode == 1
    assert "model.stages.1.layers is 2, the checkpoint has 1; restore it or name another train.out" in result.stderr
    assert "Traceback" not in result.stderr


def test_changed_data_are_refused(uninterrupted: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    shutil.copytree(uninterrupted, tmp_path / "out")
    result = here("train", config, "train.steps=20", "data.seed=7")
    assert result.returncode == 1
    assert "data.seed is 7, the checkpoint has 0" in result.stderr


def test_a_second_run_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    config = write_config(tmp_path, steps=5000)
    process = start("train", config)
    try:
        wait_for_step(tmp_path / "out", 1)
        result = aunet("train", config)
        assert result.returncode == 1
        assert "train.out: another run is writing to" in result.stderr
    finally:
        process.kill()
        process.communicate()


def test_a_corrupt_newest_checkpoint_is_named_and_the_previous_used(uninterrupted: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    assert here("train", config, "train.keep=3").returncode == 0
    shard = next((tmp_path / "out" / "checkpoints" / "step-12").glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-7])
    result = here("train", config)
    assert result.returncode == 0, result.stderr
    assert "step-12: passed over" in result.stdout
    assert "resuming after step 8" in result.stdout
    assert losses(tmp_path / "out") == losses(uninterrupted)


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = here("train", write_config(tmp_path), f"train.out={tmp_path / 'file' / 'below'}")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("aunet: error: train.out: ")
    assert "name another directory" in result.stderr


def test_a_loss_that_is_not_finite_ends_the_run_in_one_line(tmp_path: Path) -> None:
    result = here("train", write_config(tmp_path, lr=1e30, warmup=0))
    assert result.returncode == 1
    assert "the loss is" in result.stderr
    assert "lower train.lr" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("skips", [0, 5])
def test_a_broken_step_is_not_saved_even_where_it_is_not_logged(tmp_path: Path, skips: int) -> None:
    config = write_config(tmp_path, lr=1e30, warmup=0, log_every=12, checkpoint_every=1, max_skips=skips)
    result = here("train", config)
    assert result.returncode == 1
    found = re.search(r"step (\d+): the loss is", result.stderr)
    assert found
    assert 1 < int(found[1]) < 12
    saved = [int(path.name.removeprefix("step-")) for path in (tmp_path / "out" / "checkpoints").iterdir()]
    assert max(saved) == int(found[1]) - 1 - skips


def test_a_complete_run_is_not_validated_again(uninterrupted: Path, tmp_path: Path) -> None:
    shutil.copytree(uninterrupted, tmp_path / "out")
    result = here("train", uninterrupted.parent / "config.yaml", f"train.out={tmp_path / 'out'}")
    assert result.returncode == 0, result.stderr
    assert "step-12 is after step 12 of 12" in result.stdout
    assert metrics(tmp_path / "out") == metrics(uninterrupted)
    assert "bits per byte on held-out text" in (tmp_path / "out" / "README.md").read_text()


def test_another_held_out_text_is_scored_anew(uninterrupted: Path, tmp_path: Path) -> None:
    """A complete run, and one that keeps its best: the scores of the text before say nothing of this one."""
    shutil.copytree(uninterrupted, tmp_path / "out")
    other = write_text(tmp_path / "other.jsonl", 5, seed=9)
    settings = (
        uninterrupted.parent / "config.yaml",
        f"train.out={tmp_path / 'out'}",
        f"data.valid=[{{path: {other}}}]",
    )
    assert here("train", *settings).returncode == 0
    before, now = (line["valid_bits_per_byte"] for line in metrics(tmp_path / "out") if "valid_bits_per_byte" in line)
    assert before != now
    assert f"bits per byte on held-out text: {now:.4f}" in (tmp_path / "out" / "README.md").read_text()
    best = ("train.valid_every=1", "train.keep_best=3", "train.steps=13")
    result = here("train", *settings, *best)
    assert result.returncode == 0, result.stderr
    state = json.loads((tmp_path / "out" / "checkpoints" / "step-13" / "state.json").read_text())
    assert state["valid"] == {"12": now, "13": metrics(tmp_path / "out")[-1]["valid_bits_per_byte"]}
    assert here("train", *settings, *best, "train.steps=14", "data.valid_bytes=9").returncode == 0
    state = json.loads((tmp_path / "out" / "checkpoints" / "step-14" / "state.json").read_text())
    assert list(state["valid"]) == ["14"]


@pytest.mark.skipif(not any(shutil.which(name) for name in CPP_COMPILERS), reason="torch.compile needs a C++ compiler")
def test_compiled_blocks_train_alike(uninterrupted: Path, tmp_path: Path) -> None:
    result = aunet("train", write_config(tmp_path, compile=True))
    assert result.returncode == 0, result.stderr
    for (_, a), (_, b) in zip(losses(tmp_path / "out"), losses(uninterrupted), strict=True):
        assert a == pytest.approx(b, abs=1e-3)


def fine_tune(directory: Path, source: Path, **train: object) -> Path:
    """A configuration without a model, which starts from the weights of `source`."""
    path = write_config(directory, init_from=str(source), lr=1e-6, clip=1e-6, **train)
    values = yaml.safe_load(path.read_text())
    del values["model"]
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_run_starts_from_the_weights_of_a_model(uninterrupted: Path, tmp_path: Path) -> None:
    shutil.copytree(uninterrupted, tmp_path / "source")
    config = fine_tune(tmp_path, tmp_path / "source")
    result = here("train", config, "train.steps=3")
    assert result.returncode == 0, result.stderr
    first, trained = losses(tmp_path / "out")[0][1], losses(uninterrupted)
    # The same first rows, but read by the trained model.
    assert first < trained[0][1] - 0.3
    source, ours = (read_valid(out) for out in (uninterrupted, tmp_path / "out"))
    assert ours == pytest.approx(source, abs=1e-2)
    # A complete run needs its source no longer: it resumes from its own checkpoint.
    shutil.rmtree(tmp_path / "source")
    again = here("train", write_config(tmp_path, init_from="gone", lr=1e-6, clip=1e-6), "train.steps=3")
    assert again.returncode == 0, again.stderr


def read_valid(out: Path) -> float:
    (found,) = [line["valid_bits_per_byte"] for line in metrics(out) if "valid_bits_per_byte" in line]
    return float(found)


def test_weights_that_do_not_fit_are_refused_in_one_line(uninterrupted: Path, tmp_path: Path) -> None:
    other = here("train", write_config(tmp_path, init_from=str(uninterrupted)), "model.stages.0.window=16")
    assert other.returncode == 1
    assert other.stderr.count("\n") == 1
    assert "train.init_from: model.stages.0.window is 16" in other.stderr
    missing = here("train", fine_tune(tmp_path, tmp_path / "nowhere"))
    assert missing.returncode == 2
    assert missing.stderr.count("\n") == 1
    assert "nowhere has no config.json" in missing.stderr
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.json").write_text('{"model_type": "llama"}')
    foreign = here("train", fine_tune(tmp_path, tmp_path / "foreign"))
    assert foreign.returncode == 2
    assert foreign.stderr.count("\n") == 1
    assert "config.json is not the configuration of an aunet model" in foreign.stderr


def test_a_copy_that_was_validated_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several ranks the first gathers a whole model, which goes onto its device."""
    copies: list[weakref.ref[AUNet]] = []
    alive: list[int] = []
    steps = loop.Trainer.train_step

    def observed(trainer: loop.Trainer) -> dict[str, Any]:
        alive.append(sum(one() is not None for one in copies))
        return steps(trainer)

    def validate(model: AUNet) -> dict[str, float]:
        copies.append(weakref.ref(model))
        return {"bits_per_byte": 1.0}

    monkeypatch.setattr(loop, "whole", lambda model, _: copy.deepcopy(model))
    monkeypatch.setattr(loop.Trainer, "train_step", observed)
    overrides = ["data.workers=0", "train.steps=3", "train.valid_every=1"]
    run_training(load_run(str(write_config(tmp_path)), overrides), lambda *_: validate, Console(quiet=True))
    assert (alive, len(copies)) == ([0, 0, 0], 3)

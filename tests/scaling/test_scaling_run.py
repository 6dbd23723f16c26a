"""One run, one record: in this process, without a sweep."""

import errno
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import aunet
from aunet.config import SourceConfig
from aunet.errors import AUNetError, ConfigError
from aunet.evals.bpb import Score
from aunet.presets import load_run
from aunet.scaling import child, run
from aunet.scaling.records import read_record
from aunet.scaling.run import Job, existing_record, record_run, validation_sets
from tests.runs import metrics, write_config


def job(place: Path, *overrides: str, valid: str = "valid.jsonl", **more: Any) -> Job:
    """Twelve steps of a tiny model, read in this process."""
    config = load_run(str(write_config(place)), ["data.workers=0", *overrides])
    sets = {"held-out": SourceConfig(path=str(place / valid))}
    return Job(family="tiny", config=config, valid=sets, record=place / "records" / "one.json", **more)


def test_a_record_agrees_with_the_run_and_with_the_model(tmp_path: Path) -> None:
    made = job(tmp_path, remove_checkpoints=True)
    assert record_run(made, Console(quiet=True)) == 0
    record = read_record(made.record)
    last = [line for line in metrics(made.out) if "loss" in line][-1]
    assert (record.steps, record.bytes_read, record.compute_flops) == (12, last["bytes"], last["useful_flops"])
    assert record.status == "complete"
    assert record.batch == 1024
    assert record.batch_bytes == pytest.approx(last["bytes"] / 12)
    assert record.curve[-1][:2] == (12, last["bytes"])
    model = aunet.load(made.out)
    documents = [line for _, line in run.files_documents([tmp_path / "valid.jsonl"])]
    assert record.bits_per_byte["held-out"] == pytest.approx(model.bits_per_byte(documents), abs=1e-4)
    assert [size for _, size in record.documents["held-out"]] == [len(data) for data in documents]
    assert record.epochs == pytest.approx(last["bytes"] / sum(len(d) for _, d in _documents(tmp_path)))
    assert str(tmp_path) not in made.record.read_text()
    assert not (made.out / "checkpoints").exists()


def _documents(place: Path) -> list[tuple[str, bytes]]:
    return list(run.files_documents([place / "train.jsonl"]))


def test_lines_of_a_validation_set_that_are_skipped_are_told(tmp_path: Path) -> None:
    made = job(tmp_path)
    with (tmp_path / "valid.jsonl").open("a") as file:
        file.write("no JSON\n")
    shown = io.StringIO()
    assert record_run(made, Console(file=shown)) == 0
    assert f"\nskipped 1 x malformed JSON, first {tmp_path}/valid.jsonl:6: " in shown.getvalue()


def test_a_record_that_is_there_is_not_repeated_and_another_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert record_run(job(tmp_path), Console(quiet=True)) == 0
    monkeypatch.setattr(run, "run_training", None)
    assert record_run(job(tmp_path, "train.threads=2", "train.log_every=3"), Console(quiet=True)) == 0
    with pytest.raises(AUNetError, match=r"one\.json: is the record of another run: train\.lr is 0\.01, there"):
        record_run(job(tmp_path, "train.lr=0.01"), Console(quiet=True))


@pytest.mark.parametrize("changed", ["train", "held-out"])
def test_a_record_of_another_text_of_the_same_name_is_of_another_run(tmp_path: Path, changed: str) -> None:
    made = job(tmp_path)
    assert record_run(made, Console(quiet=True)) == 0
    with (tmp_path / {"train": "train.jsonl", "held-out": "valid.jsonl"}[changed]).open("a") as file:
        file.write('{"text": "Other words."}\n')
    with pytest.raises(AUNetError, match=rf"one\.json: is the record of another run: data_hash\.{changed} is "):
        existing_record(made)


def test_a_record_says_nothing_of_sets_on_which_it_was_not_scored(tmp_path: Path) -> None:
    made = job(tmp_path)
    assert record_run(made, Console(quiet=True)) == 0
    more = made.model_copy(update={"valid": {**made.valid, "more": made.valid["held-out"]}})
    with pytest.raises(AUNetError, match=r"data_hash\.more is .*, there it is null"):
        existing_record(more)


@pytest.mark.parametrize("name", ["train", "tokenizer"])
def test_the_names_of_other_texts_are_taken(name: str) -> None:
    with pytest.raises(ConfigError, match=f"--valid: {name} is what a record calls another text; write for instance"):
        validation_sets([f"{name}=a.jsonl"])


def raising(error: Exception) -> Callable[..., Any]:
    def stand_in(*_: Any, **__: Any) -> Any:
        raise error

    return stand_in


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried\nto"),
        RuntimeError("can't allocate memory"),
    ],
)
def test_too_little_memory_is_a_failed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(run, "run_training", raising(error))
    assert record_run(job(tmp_path), Console(quiet=True)) == 0
    record = read_record(tmp_path / "records" / "one.json")
    assert record.status == "failed"
    assert record.reason.startswith("out of memory (")
    assert "\n" not in record.reason
    assert (record.steps, record.bits_per_byte) == (0, {})


def test_bits_that_are_not_finite_are_a_failed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search goes on, as after a loss that is not finite."""
    scores = [Score(bits=bits, bytes=3, characters=3, documents=1) for bits in (2.0, math.nan)]
    monkeypatch.setattr(run, "score_documents", lambda *_: scores)
    assert record_run(job(tmp_path), Console(quiet=True)) == 0
    record = read_record(tmp_path / "records" / "one.json")
    assert (record.status, record.steps, record.bits_per_byte) == ("failed", 12, {})
    assert record.reason == "the bits of valid.jsonl are not finite; lower train.lr (now 0.003)"


def test_why_a_run_failed_names_no_path(tmp_path: Path) -> None:
    """It may say where its checkpoints are, and records are published; they go as those of a complete run do."""
    diverging = ("train.lr=1e30", "train.warmup=0", "train.max_skips=0", "train.checkpoint_every=1")
    assert record_run(job(tmp_path, *diverging, remove_checkpoints=True), Console(quiet=True)) == 0
    text = (tmp_path / "records" / "one.json").read_text()
    assert "and resume from its checkpoints" in text
    assert str(tmp_path) not in text
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_a_full_disk_is_one_line_of_the_process_that_makes_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: Job, __: Console, patient: bool) -> int:
        assert patient, "its parent passes signals on"
        raise OSError(errno.ENOSPC, "No space left on device", "one.json")

    given = job(tmp_path).model_dump_json().encode() + b"\n"
    monkeypatch.setattr("os.read", lambda *_: given)
    monkeypatch.setattr(child, "_stop_with_the_parent", lambda: None)
    monkeypatch.setattr(child, "record_run", full)
    with pytest.raises(SystemExit) as ended:
        child.main()
    assert ended.value.code == child.REFUSED
    assert capsys.readouterr().err == "aunet: error: one.json: No space left on device\n"


def test_a_mistake_is_not_a_failed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (RuntimeError("shapes differ"), AUNetError("no such file")):
        monkeypatch.setattr(run, "run_training", raising(error))
        with pytest.raises(type(error)):
            record_run(job(tmp_path), Console(quiet=True))
    with pytest.raises(AUNetError, match=r"absent\.jsonl: no such file"):
        record_run(job(tmp_path, valid="absent.jsonl"), Console(quiet=True))
    with pytest.raises(ConfigError, match=r"^--valid held-out: .*train\.jsonl is read by data\.sources\.0 too "):
        record_run(job(tmp_path, valid="train.jsonl"), Console(quiet=True))
    assert not (tmp_path / "records" / "one.json").exists()


def test_useful_flops_are_the_same_after_an_interruption(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for place in (whole, parts):
        place.mkdir()
    record_run(job(whole), Console(quiet=True))
    for steps in (5, 12):
        record_run(job(parts, f"train.steps={steps}", "train.lr_floor=1", "train.warmup=0"), Console(quiet=True))
        if steps == 5:
            (parts / "records" / "one.json").unlink()
    found = [read_record(place / "records" / "one.json").compute_flops for place in (whole, parts)]
    assert found[0] == pytest.approx(found[1], rel=1e-12)

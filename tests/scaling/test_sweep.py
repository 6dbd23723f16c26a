"""Sweeps in real processes: shared, killed, stopped, refused."""

import json
import math
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from aunet.config import DataConfig, SourceConfig
from aunet.errors import ConfigError
from aunet.scaling.points import Point
from aunet.scaling.records import Record, portable, read_records, write_record
from aunet.scaling.study import DATA_HASH, open_study
from aunet.scaling.sweep import Sweep, run_sweep
from tests.runs import aunet, here, start, write_config
from tests.scaling.made_records import config
from tests.scaling.made_records import record as made_record

LONGER = "train.bytes=96000"
"""So that a run does not end before the signal comes."""
RANGES = ("--lr", "1e-3", "3e-2", "--batch", "512", "2048")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_config(tmp_path, checkpoint_every=2)
    return tmp_path


def command(place: Path, *more: str, ranges: tuple[str, ...] = RANGES, points: int = 3) -> list[str]:
    """A sweep in `place` of runs of a few seconds; an option given again wins."""
    return [
        *("scale", "sweep", str(place / "config.yaml"), "train.bytes=16000", *ranges, "--points", str(points)),
        *("--family", "tiny", "--valid", f"held-out={place / 'valid.jsonl'}", "--records", str(place / "records")),
        *("--stale-after", "6", *more),
    ]


def sweep(place: Path, *more: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """In this process; its runs are processes of their own, as always, and what they say is not in the result."""
    return here(*command(place, *more, **options))


def found(place: Path) -> dict[str, Record]:
    return {record.name: record for record in read_records([place / "records"]).records}


def trials(place: Path) -> list[str]:
    """States of the trials in the database."""
    with sqlite3.connect(place / "out" / "sweep.db") as database:
        return [state for (state,) in database.execute("select state from trials order by number")]


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.02)


def metrics_lines(place: Path, name: str) -> int:
    path = place / "out" / name / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def test_two_workers_share_a_study_and_no_point_is_run_twice(place: Path) -> None:
    workers = [start(*command(place)) for _ in range(2)]
    outputs = [worker.communicate() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    records = found(place)
    assert sorted(records)[:3] == [f"tiny-{i:03d}" for i in range(3)]
    begun = re.findall(r"^point (\d+): lr", "".join(out for out, _ in outputs), re.MULTILINE)
    assert len(begun) == len(set(begun)) == len(records)
    assert len({(record.lr, record.batch) for record in records.values()}) == len(records)
    for record in records.values():
        assert record.status == "complete"
        assert record.batch % 256 == 0
        assert 0.8 < record.compute_flops / record.planned_flops < 1.1
        assert record.bits_per_byte["held-out"] == pytest.approx(
            sum(bits for bits, _ in record.documents["held-out"]) / sum(n for _, n in record.documents["held-out"])
        )
    before = {path: path.read_bytes() for path in (place / "records").iterdir()}
    again = sweep(place)
    assert again.returncode == 0, again.stderr
    assert "best: " in again.stdout
    assert not re.search(r"point \d+: lr", again.stdout)
    assert {path: path.read_bytes() for path in (place / "records").iterdir()} == before


def test_a_killed_worker_is_noticed_and_its_run_goes_on_from_its_checkpoint(place: Path) -> None:
    worker = start(*command(place, points=2))
    until(lambda: metrics_lines(place, "tiny-000") >= 3)
    os.killpg(worker.pid, signal.SIGKILL)
    worker.communicate()
    assert not (place / "records").exists() or not list((place / "records").iterdir())
    rerun = aunet(*command(place, points=2))
    assert rerun.returncode == 0, rerun.stderr
    assert sorted(found(place)) == ["tiny-000", "tiny-001"]
    assert "resuming after step" in rerun.stdout
    assert sorted(trials(place)) == ["COMPLETE", "COMPLETE", "FAIL"]
    assert "2 points complete, 0 failed" in rerun.stdout
    steps = [json.loads(line)["step"] for line in (place / "out/tiny-000/metrics.jsonl").read_text().splitlines()]
    assert [step for i, step in enumerate(steps) if step not in steps[:i]] == list(range(1, max(steps) + 1))


def test_a_signal_saves_gives_the_point_back_and_the_same_command_resumes(place: Path) -> None:
    worker = start(*command(place, LONGER, points=1))
    until(lambda: metrics_lines(place, "tiny-000") >= 2)
    os.killpg(worker.pid, signal.SIGTERM)
    _, stderr = worker.communicate()
    assert worker.returncode == 143, stderr
    assert "Traceback" not in stderr
    assert trials(place) == ["FAIL", "WAITING"]
    rerun = aunet(*command(place, LONGER, "--remove-checkpoints", points=1))
    assert rerun.returncode == 0, rerun.stderr
    assert "resuming after step" in rerun.stdout
    assert found(place)["tiny-000"].complete
    assert not (place / "out" / "tiny-000" / "checkpoints").exists()
    assert (place / "out" / "tiny-000" / "model.safetensors").exists()


def test_a_killed_run_leaves_a_record_that_says_so(place: Path) -> None:
    worker = start(*command(place, points=1))
    until(lambda: metrics_lines(place, "tiny-000") >= 2)
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
    if not children.exists():
        worker.kill()
        pytest.skip("the system does not list the children of a process")
    for pid in children.read_text().split():
        os.kill(int(pid), signal.SIGKILL)
    stdout, stderr = worker.communicate()
    assert worker.returncode == 0, stderr
    record = found(place)["tiny-000"]
    assert record.status == "failed"
    assert "killed by SIGKILL" in record.reason
    assert record.steps >= 1
    assert 0 < record.compute_flops < record.planned_flops
    assert "0 points complete, 1 failed" in stdout
    assert trials(place) == ["FAIL"]
    assert "point 0: lr" not in sweep(place, points=1).stdout


def test_a_run_that_diverges_leaves_a_record_and_the_sweep_goes_on(place: Path) -> None:
    result = sweep(place, "train.warmup=0", points=2, ranges=("--lr", "1e30", "1e31", "--batch", "512", "2048"))
    assert result.returncode == 0, result.stderr
    records = found(place)
    assert [record.status for record in records.values()] == ["failed", "failed"]
    assert all("lower train.lr" in record.reason for record in records.values())
    assert "0 points complete, 2 failed" in result.stdout


def test_the_rule_of_the_half_ends_runs_where_it_is_asked_for(place: Path) -> None:
    # Long enough that the sweep, which looks twice a second, sees the half before the end on a busy machine as well.
    result = sweep(place, "--prune-above", "0", "train.bytes=160000", points=2)
    assert result.returncode == 0, result.stderr
    records = found(place)
    assert records["tiny-000"].complete
    assert records["tiny-001"].status == "pruned"
    assert "at half of its steps" in records["tiny-001"].reason
    assert records["tiny-001"].compute_flops < 0.95 * records["tiny-001"].planned_flops
    assert trials(place) == ["COMPLETE", "PRUNED"]


def test_a_record_of_another_run_is_no_result_and_no_point_is_lost(place: Path) -> None:
    """Nor is one by a record that cannot be read: the same command has its point again when the record is gone."""
    again = ("train.out=" + str(place / "other"),)
    record = place / "records" / "tiny-000.json"
    write_record(record, made_record(family="tiny"))
    foreign = here(*command(place, *again, points=1))
    assert foreign.returncode == 1
    (line,) = foreign.stderr.splitlines()
    assert "tiny-000.json: is the record of another run: model." in line
    record.write_text('{"version": 1')
    broken = here(*command(place, *again, points=1))
    assert broken.returncode == 1
    assert "not valid JSON" in broken.stderr
    record.unlink()
    mended = sweep(place, *again, points=1)
    assert mended.returncode == 0, mended.stderr
    assert "tiny: 1 point complete, 0 failed" in mended.stdout


def test_another_text_of_the_same_name_is_another_search(place: Path) -> None:
    assert sweep(place, points=1).returncode == 0
    with (place / "train.jsonl").open("a") as file:
        file.write('{"text": "Other words."}\n')
    again = sweep(place, points=1)
    assert again.returncode == 2
    assert again.stderr.startswith("aunet: error: --study: tiny is another search: data_hash.train is ")
    elsewhere = sweep(place, f"train.out={place / 'other'}", points=1)
    assert elsewhere.returncode == 1
    assert "tiny-000.json: is the record of another run: data_hash.train is " in elsewhere.stderr


def test_a_study_of_an_earlier_version_without_hashes_goes_on(tmp_path: Path) -> None:
    identity = {"--seed": 0, DATA_HASH: {"train": "a"}, "train": {"lr": 1.0}}
    url = f"sqlite:///{tmp_path / 'sweep.db'}"
    open_study(url, "old", {k: v for k, v in identity.items() if k != DATA_HASH}, 120, None)
    open_study(url, "old", identity, 120, None)
    with pytest.raises(ConfigError, match=r'another search: data_hash\.train is "b", there it is "a"'):
        open_study(url, "old", {**identity, DATA_HASH: {"train": "b"}}, 120, None)


def test_every_point_has_checkpoints_of_its_own(tmp_path: Path) -> None:
    made = search(config=config(checkpoints="s3://bucket/run/"))
    jobs = [made.job(i, Point(1e-3, 8192.0)) for i in range(2)]
    assert [job.config.train.checkpoints_at for job in jobs] == ["s3://bucket/run/made-000", "s3://bucket/run/made-001"]
    assert portable(jobs[0].config)["train"]["checkpoints"] == "made-000", "no path is published"
    with pytest.raises(ConfigError, match="--remove-checkpoints: removes what lies in the directories of the runs"):
        search(config=config(checkpoints="elsewhere"), remove_checkpoints=True)


def test_a_database_that_is_lost_is_one_line_and_no_run_is(place: Path) -> None:
    process = start(*command(place, LONGER, points=1))
    until(lambda: metrics_lines(place, "tiny-000") >= 1)
    database = place / "out" / "sweep.db"
    with sqlite3.connect(database) as live, sqlite3.connect(place / "kept.db") as kept:
        live.backup(kept)
    database.write_bytes(b"no database" * 1000)
    _, stderr = process.communicate()
    assert process.returncode == 1
    (line,) = stderr.splitlines()
    assert "sweep.db was lost: (sqlite3.DatabaseError) file is not a database; runs and records are kept" in line
    shutil.copy(place / "kept.db", database)
    again = here(*command(place, LONGER, points=1))
    assert again.returncode == 0, again.stderr
    assert "step" not in again.stdout, "the record is taken, nothing is trained"
    assert "tiny: 1 point complete, 0 failed" in again.stdout


def search(**more: Any) -> Sweep:
    """A sweep that can be made; keywords replace its settings."""
    values: dict[str, Any] = {
        "config": config(),
        "family": "made",
        "study": "made",
        "lr": (1e-3, 1e-2),
        "batch": (8192.0, 65536.0),
        "points": 4,
        "valid": {"valid": SourceConfig(path="valid.jsonl")},
        "records": Path("records"),
    }
    return Sweep(**{**values, **more})


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (
            {"config": config(bytes=None, steps=10)},
            "train.steps: with a number of steps, larger",
        ),
        ({"points": 0}, "--points: 0 is not at least 1"),
        ({"config": config().model_copy(update={"data": DataConfig()})}, "data.sources: nothing to read; add the"),
        ({"lr": (1e-2, 1e-3)}, "--lr: 0.01 to 0.001 is no range above 0"),
        ({"batch": (0.0, 9.0)}, "--batch: 0 to 9 is no range above 0"),
        (
            {"study": "a/b"},
            "--study: 'a/b' is to be a file name of letters, digits, . _ and -; by default it is --family",
        ),
        ({"prune_above": -0.1}, "--prune-above: -0.1 would end the best run too"),
        ({"prune_above": math.nan}, "--prune-above: nan would end"),
        ({"stale_after": 1}, "--stale-after: 1 seconds are too few"),
        ({"batch": (512.0, math.inf)}, "--batch: 512 to inf is no range"),
        ({"family": ""}, "--family: it is empty"),
        ({"seed": -1}, "--seed: -1 is not from 0 to"),
        ({"config": config(warmup=5000)}, "train.warmup: 5000 steps do not fit"),
    ],
)
def test_what_cannot_be_searched_is_one_line(more: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        search(**more)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("complete", [0, 1])
def test_where_no_point_could_be_taken_none_is_put_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complete: int
) -> None:
    monkeypatch.setattr("aunet.scaling.sweep.hashes", lambda *_: {})  # there are no files
    place = {"storage": f"sqlite:///{tmp_path / 'sweep.db'}", "records": tmp_path / "records"}
    made = search(config=config(out=str(tmp_path)), **place)
    study = open_study(made.storage, made.study, made.identity(), made.stale_after, None)
    for _ in range(complete):
        study.tell(study.ask(), 2.0)

    def broken(*_: object) -> None:
        raise OSError("the database is gone")

    monkeypatch.setattr(type(study), "ask", broken)
    with pytest.raises(OSError, match="the database is gone"):
        run_sweep(made, Console(quiet=True))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * complete


def test_batches_are_whole_rows_and_hold_a_row_for_each_micro_batch() -> None:
    jobs = [search(config=config(accumulate=3)).job(7, Point(1e-3, batch)) for batch in (100.0, 40_000.0)]
    assert [job.config.train.batch_bytes for job in jobs] == [3 * 8192, 5 * 8192]
    assert jobs[0].record == Path("records/made-007.json")
    assert jobs[0].out.name == "made-007"


def test_a_set_without_a_path_is_refused(place: Path) -> None:
    result = sweep(place, "--valid", "valid.jsonl")
    assert result.returncode == 2
    assert result.stderr.startswith("aunet: error: --valid: 'valid.jsonl' is not NAME=PATH; write for instance ")
    assert len(result.stderr.splitlines()) == 1


def test_sets_have_names_of_their_own(place: Path) -> None:
    result = sweep(place, "--valid", "held-out=other.jsonl")
    assert result.returncode == 2
    assert result.stderr == "aunet: error: --valid: two sets have the name held-out; name each of them otherwise\n"


def test_a_set_that_is_not_there_is_named_before_anything_trains(place: Path) -> None:
    result = aunet(*command(place, "--valid", "other=absent.jsonl"))
    assert result.returncode == 1
    assert "absent.jsonl: no such file or directory" in result.stderr
    assert not (place / "out" / "tiny-000" / "metrics.jsonl").exists()

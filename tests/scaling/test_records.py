"""Records: what is written is read, what is wrong is named, nothing of a machine stays in one."""

import json
from pathlib import Path
from typing import Any

import pytest

from aunet.config import RunConfig, SourceConfig
from aunet.errors import AUNetError
from aunet.mappings import validate
from aunet.scaling.records import Record, difference, portable, read_record, read_records, setting, write_record
from aunet.scaling.run import Job, existing_record
from tests.scaling.made_records import config, record

RACE = Path(__file__).parents[2] / "experiments" / "records" / "race"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "below" / "made-000.json"
    write_record(path, record())
    assert read_record(path) == record()
    assert [line.split(":")[0].strip(' "') for line in path.read_text().splitlines()[1:-1]] == list(Record.model_fields)


def test_directories_are_read_in_order_with_what_is_below(tmp_path: Path) -> None:
    for name in ("b/z", "a", "b/c"):
        write_record(tmp_path / f"{name}.json", record(Path(name).name))
    found = read_records([tmp_path, tmp_path / "a.json"])
    assert [one.name for one in found.records] == ["a", "c", "z"]
    assert found.skipped == ()


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"family": "old"}, "no version"),
        ({"version": 2}, "version 2"),
        ([], "no"),
        ({"version": 1, "step": 2, "files": {}}, "no family"),  # the manifest of a checkpoint
    ],
)
def test_other_versions_are_named_and_skipped(tmp_path: Path, values: object, what: str) -> None:
    write_record(tmp_path / "new.json", record())
    (tmp_path / "old.json").write_text(json.dumps(values))
    found = read_records([tmp_path])
    assert len(found.records) == 1
    (line,) = found.skipped
    assert line.startswith(f"{tmp_path / 'old.json'}: skipped: it has {what}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seconds": "long"}, "seconds: "),
        ({"seconds": -1}, "seconds: "),
        ({"luck": 1}, "luck: "),
        ({"lr": float("nan")}, "lr: "),
        ({"bits_per_byte": {"valid": 1.9}}, "bits_per_byte.valid is not the ratio of its documents"),
        ({"documents": {"other": [[3.0, 1]]}}, "different validation sets"),
        ({"bits_per_byte": {}, "documents": {}}, "at least one validation set"),
        *(({key: 0}, "compute_flops above 0") for key in ("compute_flops", "paper_flops", "bytes_read")),
        ({"config": {}}, "the sections model, data, train"),
        ({"status": "failed"}, "has a reason"),
        ({"reason": "why"}, "has a reason"),
    ],
)
def test_a_record_that_is_not_valid_is_refused_by_file_and_key(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({**record().model_dump(mode="json"), **change}))
    with pytest.raises(AUNetError, match=message) as caught:
        read_records([tmp_path])
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_what_is_not_json_or_not_there_is_one_line(tmp_path: Path) -> None:
    for text in ('{"version": 1,\n', 100_000 * "["):
        (tmp_path / "cut.json").write_text(text)
        with pytest.raises(AUNetError, match=r"cut\.json: not valid JSON"):
            read_records([tmp_path])
    with pytest.raises(AUNetError, match="absent: no such file or directory"):
        read_records([tmp_path / "absent"])


def test_no_path_of_a_machine_is_kept() -> None:
    values = portable(config(out="/home/me/runs/one", init_from="/home/me/base"))
    assert "/" not in json.dumps(values)
    assert values["data"]["sources"][0]["path"] == "train-*.jsonl"
    assert values["train"]["out"] == "one"


def test_repetitions_share_their_setting() -> None:
    one, other = (portable(config(seed=seed, out=f"runs/{seed}", threads=seed + 1)) for seed in (0, 1))
    assert setting(one, seeds=False) == setting(other, seeds=False)
    assert difference(setting(one), setting(other)) == "train.seed is 1, there it is 0"
    assert setting(one) != setting(portable(config(lr=2e-3)))


def without(values: Any, *keys: str) -> Any:
    """The same JSON values as a version without these settings wrote them."""
    if isinstance(values, dict):
        return {key: without(value, *keys) for key, value in values.items() if key not in keys}
    return [without(value, *keys) for value in values] if isinstance(values, list) else values


def test_a_setting_that_did_not_exist_had_its_default() -> None:
    new = portable(config())
    old = without(new, "optimizer", "stage_lr", "init", "qk_norm", "layers_up")
    assert old != new
    assert setting(old) == setting(new)
    changed = setting(portable(config(optimizer="muon")))
    assert difference(setting(old), changed) == 'train.optimizer is "muon", there it is "adamw"'
    # What this version cannot read is compared as it stands.
    foreign = {**new, "train": {**new["train"], "luck": 1}}
    assert difference(setting(new), setting(foreign)) == "train.luck is 1, there it is null"


@pytest.mark.parametrize("path", sorted(RACE.glob("*.json")), ids=lambda path: path.stem)
def test_published_records_are_those_of_the_same_runs_today(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = read_record(path)
    monkeypatch.setattr("aunet.scaling.run.hashes", lambda *_: published.data_hash)  # their texts are not here
    values = validate(RunConfig, published.config, path.name)
    valid = {name: SourceConfig(path=f"{name}.txt") for name in published.bits_per_byte}
    job = Job(family=published.family, config=values, valid=valid, record=path)
    assert existing_record(job) == published
    train = values.train.model_copy(update={"clip": 0.5})
    with pytest.raises(AUNetError, match=r"is the record of another run: train\.clip is 0\.5"):
        existing_record(job.model_copy(update={"config": values.model_copy(update={"train": train})}))


def test_the_first_difference_is_named() -> None:
    assert difference({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}) == "a.1.b is 3, there it is 2"
    assert difference({"a": 1}, {}) == "a is null, there it is 1"
    assert difference({"a": [1]}, {"a": [1]}) is None
    shown = "[" + "0, " * 19 + "0,"
    assert difference({"a": [0] * 9}, {"a": [0] * 50}) == f"a is {shown[:60]}..., there it is {[0] * 9}"


def test_a_key_that_is_missing_is_null() -> None:
    """As an optional setting of another version, which must not hide what differs behind it."""
    assert difference({"a": {"new": None}}, {"a": {}}) is None
    assert difference({"a": {}}, {"a": {"new": None}}) is None
    assert difference({"a": {"new": None}, "b": [{"c": 1}]}, {"a": {}, "b": [{"c": 2}]}) == "b.0.c is 2, there it is 1"

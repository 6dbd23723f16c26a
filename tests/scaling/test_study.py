"""The database of a study: whom it belongs to, and what is said when it cannot be used."""

import threading
from pathlib import Path
from typing import Any

import pytest

from aunet.errors import ConfigError
from aunet.scaling.records import portable, setting
from aunet.scaling.study import open_study
from tests.scaling.made_records import config

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def opened(place: Path, **identity: Any) -> Any:
    return open_study(f"sqlite:///{place / 'sweep.db'}", "made", identity, 60, lambda study, trial: None)


def test_a_study_belongs_to_one_search(tmp_path: Path) -> None:
    opened(tmp_path, lr=[1e-3, 1e-2], data={"seed": 0})
    opened(tmp_path, lr=[1e-3, 1e-2], data={"seed": 0})
    with pytest.raises(ConfigError, match=r"--study: made is another search: data\.seed is 3, there it is 0"):
        opened(tmp_path, lr=[1e-3, 1e-2], data={"seed": 3})


def test_a_study_goes_on_where_settings_have_been_added(tmp_path: Path) -> None:
    now = setting(portable(config()))
    del now["train"]["lr"], now["train"]["batch_bytes"]
    then = {**now, "train": {key: value for key, value in now["train"].items() if key != "optimizer"}}
    opened(tmp_path, **then, **{"--lr": [1, 2]})
    other = {**now, "train": {**now["train"], "optimizer": "muon"}}
    with pytest.raises(ConfigError, match=r'another search: train\.optimizer is "muon", there it is "adamw"'):
        opened(tmp_path, **other, **{"--lr": [1, 2]})
    opened(tmp_path, **now, **{"--lr": [1, 2]})


def test_a_trial_that_was_put_up_again_is_taken_once(tmp_path: Path) -> None:
    """Several connections ask at the same moment, again and again."""
    study = opened(tmp_path)
    for i in range(6):
        study.enqueue_trial({"x": float(i)})
    workers, numbers = 3, []
    ready = threading.Barrier(workers)

    def ask() -> None:
        own = opened(tmp_path)
        for _ in range(2):
            ready.wait()
            numbers.append(own.ask().number)

    threads = [threading.Thread(target=ask) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(6))


@pytest.mark.parametrize(
    "url",
    [
        *("nothing://user:secret@host/db", "postgresql://user:its@secret:here@host:1/db"),
        *("sqlite:////absent/directory/x.db", "no url"),
    ],
)
def test_a_database_that_cannot_be_used_is_one_line_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^--storage: .* cannot be used: ") as caught:
        open_study(url, "made", {}, 60, None)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite+pysqlite:///"])
def test_a_database_that_nobody_else_can_open_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_study(url, "made", {}, 60, None)
    assert str(caught.value) == f"--storage: {url} is kept nowhere; write sqlite:///FILE"

"""One small trained model for all commands."""

from pathlib import Path

import pytest

from tests.runs import aunet, environment, write_config


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a trained model in `out`, its configuration and its texts."""
    directory = tmp_path_factory.mktemp("work")
    result = aunet("train", write_config(directory))
    assert result.returncode == 0, result.stderr
    return directory


@pytest.fixture(scope="session")
def model(work: Path) -> Path:
    return work / "out"


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)

"""A model that `aunet train` has trained, for all tests of this folder."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.runs import aunet, write_config

os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory that has learned words and the ends of documents."""
    directory = tmp_path_factory.mktemp("trained")
    config = write_config(directory, steps=200, checkpoint_every=1000, lr=1e-2)
    result = aunet("train", config)
    assert result.returncode == 0, result.stderr
    return directory / "out"


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Models that are built in a test are the same in every run."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield

"""Fixtures for all tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

collect_ignore_glob = ["conftest.py", "*/conftest.py"]
"""They have no doctests, and several modules of one name cannot be collected together."""

LONGEST = (
    "train/test_distributed.py",
    "scaling/test_sweep.py",
    "train/test_faults.py",
    "test_distributed_docs.py",
    "train/test_run.py",
    "serve/test_replicas.py",
    "test_several.py",
)
"""Modules that take a minute and more, the longest first."""

settings.register_profile("no time limits", deadline=None)
settings.load_profile("no time limits")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long goes first, so that no worker is left alone with it at the end."""
    rank = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    for path in rank:
        if not path.exists():
            raise pytest.UsageError(f"tests/conftest.py: LONGEST names {path}, which is not there")
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Path of reference material that lies beside the checkout; a test that asks for absent material is skipped."""

    def find(name: str) -> Path:
        path = Path(__file__).parents[1].parent / "shared" / name
        if not path.exists():
            pytest.skip(f"needs ../shared/{name}, which is not part of the repository")
        return path

    return find


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tensors here are tiny: threads that wait for each other make the tests ten times slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

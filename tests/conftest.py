"""Fixtures for all tests."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Path of reference material that lies beside the checkout; a test that asks for absent material is skipped."""

    def find(name: str) -> Path:
        path = Path(__file__).parents[1].parent / "shared" / name
        if not path.exists():
            pytest.skip(f"needs ../shared/{name}, which is not part of the repository")
        return path

    return find

"""One small model and one server of it for all tests that only ask, and a browser."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import aunet
from aunet.model.directory import save_model
from tests.browser import BROWSER
from tests.model.packs import small_config, small_model
from tests.serve.processes import Server, serving


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("serve") / "tiny"
    save_model(small_model(small_config(2)), path)
    return path


@pytest.fixture(scope="session")
def model(directory: Path) -> aunet.LanguageModel:
    """The same model here, to compare with."""
    return aunet.load(directory)


@pytest.fixture(scope="session")
def server(directory: Path) -> Iterator[Server]:
    with serving(directory) as running:
        yield running


@pytest.fixture(scope="session")
def tireless(directory: Path) -> Iterator[Server]:
    """A server whose texts last until they are stopped, however slow this machine is just now."""
    with serving(directory, "--max-new-bytes", "1000000", "--max-scored-bytes", "2000000") as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens pages, each a Visit."""
    from tests.serve.visits import visiting

    with visiting(browser) as open_page:
        yield open_page

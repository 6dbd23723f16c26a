"""Pages of a server in a real browser, for the tests of the playground."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from aunet.report.passage import Passage
from aunet.splitting import splitter
from tests.serve.processes import Server

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect


@dataclass
class Visit:
    """A page, and what went wrong on it."""

    page: Any
    origin: str
    problems: list[str] = field(default_factory=list)

    def write(self, prompt: str, seed: int = 1, max_bytes: int = 60, temperature: float = 1.0) -> None:
        """Let the model continue a prompt, to its end."""
        self.settings(seed, max_bytes, temperature)
        self.page.fill("#prompt", prompt)
        self.page.press("#prompt", "Control+Enter")
        self.written(seed)

    def settings(self, seed: int, max_bytes: int, temperature: float = 1.0) -> None:
        for name, value in (("seed", seed), ("max-bytes", max_bytes), ("temperature", temperature)):
            self.page.fill(f"#{name}", str(value))

    def written(self, seed: int) -> None:
        """Wait until the model has stopped by itself and the text was read once more."""
        expect(self.page.locator("#status")).to_contain_text(f"bytes/s, seed {seed}")
        expect(self.page.locator("#reading")).to_have_attribute("aria-busy", "false")

    def read(self, text: str) -> None:
        """Only look at a text."""
        self.page.fill("#prompt", text)
        self.page.click("#read")
        expect(self.page.locator("#status")).to_have_text(re.compile("bytes? read"))
        expect(self.page.locator("#reading")).to_have_attribute("aria-busy", "false")

    def cells(self) -> list[str]:
        """The characters as they are shown."""
        found: list[str] = self.page.locator("#text i").all_text_contents()
        return found

    def cell(self, n: int) -> Any:
        return self.page.locator("#text i").nth(n)

    def label(self) -> str:
        """What is said of the character that has the focus."""
        return str(self.page.locator("#text :focus").get_attribute("aria-label"))


@contextmanager
def visiting(browser: Any) -> Iterator[Callable[..., Visit]]:
    """Opens pages; none may report a problem or ask anybody but its own server."""
    visits: list[tuple[Any, Visit]] = []

    def open_page(server: Server, width: int = 1100, height: int = 800, key: str = "", **options: Any) -> Visit:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        page = context.new_page()
        page.set_default_timeout(60_000)
        found = Visit(page, server.url)
        page.on("console", lambda message: found.problems.append(message.text))
        page.on("pageerror", lambda error: found.problems.append(str(error)))
        page.on("request", lambda request: request.url.startswith(server.url) or found.problems.append(request.url))
        visits.append((context, found))
        page.goto(server.url)
        if key:
            expect(page.locator("#error")).to_contain_text("key")
            page.fill("#key", key)
            page.press("#key", "Tab")
            assert [problem.split("status of ")[-1] for problem in found.problems] == ["401 (Unauthorized)"]
            found.problems.clear()
        expect(page.locator("#stages")).to_have_text("2 stages: bytes, then word1")
        return found

    expect.set_options(timeout=60_000)
    yield open_page
    for context, found in visits:
        context.close()
        assert not found.problems


def shown(data: bytes) -> list[str]:
    """How a passage writes the characters of bytes."""
    return [character.shown for character in passage(data, "").characters()]


def passage(data: bytes, rule: str) -> Passage:
    found = splitter(rule)
    return Passage(data, found.levels(data), stages=found.depth + 1)


def completion(server: Server, prompt: str | Sequence[int], seed: int, max_bytes: int = 60) -> bytes:
    """What the server writes, asked without the page."""
    body = {"prompt": prompt, "seed": seed, "max_tokens": max_bytes, "temperature": 1.0}
    answer = httpx.post(f"{server.url}/v1/completions", json=body).json()
    return bytes(answer["choices"][0]["aunet"]["bytes"])

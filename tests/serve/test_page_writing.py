"""The playground in a real browser: it writes, stops, refuses, and asks for a key."""

import re
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser import needs_browser
from tests.report.passages import NASTY
from tests.serve.processes import Server, serving
from tests.serve.visits import Visit, completion, expect, passage, shown

ENDLESS = 1_000_000
"""More bytes than are written before somebody stops."""


@needs_browser
@pytest.mark.parametrize("prompt", ["One naïve two", "", "a\x00\t\x1b[31m\n\n "], ids=["text", "empty", "controls"])
def test_a_prompt_is_continued_and_every_byte_can_be_seen(
    visit: Callable[..., Visit], server: Server, prompt: str
) -> None:
    found = visit(server)
    found.write(prompt, seed=3)
    written = completion(server, prompt, 3)
    assert found.cells() == shown(prompt.encode() + written)
    assert len(written) == 60 or "then the end" in found.page.inner_text("#status")
    size = len(prompt.encode())
    mark = found.page.locator("#text .from")
    assert mark.count() == 1
    assert mark.evaluate("(element) => element.cell.start") <= size < mark.evaluate("(element) => element.cell.end")


SECONDS = (0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xE2, 0xFF)
BYTES = {
    "nasty": NASTY,
    "heads": bytes(x for lead in range(0x80, 0x100) for second in SECONDS for x in (lead, second, 0x80, 0xBF, 0x41)),
    "cut off": "é日👩".encode()[:-1],
    "characters": "".join(c for c in map(chr, range(0x3100)) if unicodedata.category(c) != "Cn").encode(),
}


@needs_browser
@pytest.mark.parametrize("name", BYTES)
def test_the_script_decodes_bytes_as_pages_and_terminals_do(
    visit: Callable[..., Visit], server: Server, name: str
) -> None:
    """The script decodes and writes characters as pages and terminals do."""
    script = """async (bytes) => {
        const { characters } = await import("/page/characters.js");
        return [...characters(bytes, 0, false)].map(({ start, end, shown }) => [start, end, shown]);
    }"""
    found = visit(server).page.evaluate(script, list(BYTES[name]))
    expected = passage(BYTES[name], "").characters()
    assert found == [[character.start, character.end, character.shown] for character in expected]


@needs_browser
def test_markup_is_text(visit: Callable[..., Visit], server: Server) -> None:
    nasty = NASTY.decode(errors="ignore")
    found = visit(server)
    found.read(nasty)
    # A text field of a browser knows one kind of line end.
    assert found.cells() == shown(nasty.replace("\r\n", "\n").replace("\r", "\n").encode())
    assert set(found.page.locator("#text *").evaluate_all("(all) => all.map((one) => one.localName)")) == set("biu") | {
        "div"
    }


@needs_browser
def test_escape_stops_and_what_was_written_stays(visit: Callable[..., Visit], tireless: Server) -> None:
    found = visit(tireless)
    found.settings(seed=1, max_bytes=ENDLESS, temperature=0.0)
    found.page.fill("#prompt", "Never ending ")
    found.page.click("#write")
    expect(found.page.locator("#stop")).to_be_visible()
    expect(found.cell(40)).to_be_visible()
    # Units and bits come with the bytes: two units are of the prompt.
    expect(found.page.locator("#text.writing u:not(.open)").nth(5)).to_be_visible()
    expect(found.page.locator("#text.writing .from")).to_have_class(re.compile("h[0-7]"))
    found.page.keyboard.press("Escape")
    expect(found.page.locator("#status")).to_have_text("stopped")
    expect(found.page.locator("#write")).to_be_visible()
    count = len(found.cells())
    assert 40 < count < ENDLESS
    expect(found.page.locator("#text b")).to_be_visible()
    assert len(found.cells()) == count


@needs_browser
def test_the_stop_button_and_a_new_prompt_while_it_writes(visit: Callable[..., Visit], tireless: Server) -> None:
    found = visit(tireless)
    before = tireless.metrics()["aunet_generated_bytes_total"]
    found.settings(seed=1, max_bytes=ENDLESS, temperature=0.0)
    found.page.fill("#prompt", "Never ending ")
    found.page.click("#write")
    expect(found.cell(20)).to_be_visible()
    found.page.click("#stop")
    expect(found.page.locator("#status")).to_have_text("stopped")
    found.page.click("#write")
    expect(found.cell(20)).to_be_visible()
    found.write("Another", seed=2, max_bytes=20)
    assert found.cells()[:7] == list("Another")
    assert len(found.cells()) <= 27
    while tireless.metrics()["aunet_sequences_running"]:
        time.sleep(0.05)
    written = tireless.metrics()["aunet_generated_bytes_total"] - before
    assert written < 2 * ENDLESS, "what was left goes on in the server"


@needs_browser
def test_going_back_while_it_writes_says_no_more_of_it(visit: Callable[..., Visit], tireless: Server) -> None:
    found = visit(tireless)
    found.read("one two")
    found.settings(seed=1, max_bytes=ENDLESS, temperature=0.0)
    found.page.fill("#prompt", "Never ending ")
    for _ in range(2):  # the second begins with two texts before it
        found.page.press("#prompt", "Control+Enter")
        expect(found.cell(20)).to_be_visible()
    expect(found.page.locator("#status")).to_have_text("writing ...")
    found.page.click("#back")
    expect(found.page.locator("#stop")).to_be_hidden()
    expect(found.page.locator("#status")).to_have_text("")


@needs_browser
def test_a_prompt_beyond_the_limit_is_one_line(visit: Callable[..., Visit], server: Server) -> None:
    found = visit(server)
    found.page.fill("#prompt", "a" * 70_000)
    for action, most in (("write", "65,536"), ("read", "16,384")):
        found.page.click(f"#{action}")
        expect(found.page.locator("#error")).to_have_text(f"the text has 70,000 bytes; at most {most} are possible")
    assert found.cells() == []
    found.write("short", seed=1, max_bytes=5)
    expect(found.page.locator("#error")).to_have_text("")


# The server


@needs_browser
def test_an_answer_that_breaks_off_is_one_line(visit: Callable[..., Visit], server: Server) -> None:
    found = visit(server)
    found.page.route("**/v1/inspect", lambda route: route.fulfill(body='{"bits":', content_type="application/json"))
    found.page.fill("#prompt", "one two")
    found.page.click("#read")
    line = "the answer broke off: the connection to the server is closed"
    expect(found.page.locator("#error")).to_have_text(line)


@needs_browser
def test_a_key_is_asked_for_and_kept_nowhere(visit: Callable[..., Visit], directory: Path) -> None:
    with serving(directory, "--api-key", "a-secret") as guarded:
        found = visit(guarded, key="a-secret")
        found.write("One", seed=1, max_bytes=5)
        stored = found.page.evaluate(
            "() => [{ ...localStorage }, { ...sessionStorage }, document.cookie, location.href]"
        )
        assert "a-secret" not in str(stored)
        guarded.process.kill()
        guarded.process.wait()
        found.page.click("#read")
        expect(found.page.locator("#error")).to_have_text("the server cannot be reached")
        found.problems.clear()


@needs_browser
def test_the_focus_goes_on_from_a_button_that_goes(visit: Callable[..., Visit], tireless: Server) -> None:
    found = visit(tireless)
    page = found.page
    found.settings(seed=1, max_bytes=ENDLESS, temperature=0.0)
    page.fill("#prompt", "Never ending ")
    page.press("#write", "Enter")
    expect(page.locator("#stop")).to_be_focused()
    page.press("#stop", "Enter")
    expect(page.locator("#status")).to_have_text("stopped")
    expect(page.locator("#write")).to_be_focused()
    page.press("#read", "Enter")
    expect(page.locator("#status")).to_contain_text("bytes read")
    expect(page.locator("#read")).to_be_focused()
    page.press("#back", "Enter")
    expect(page.locator("#back")).to_be_hidden()
    expect(page.locator("#write")).to_be_focused()


@needs_browser
def test_a_completion_that_fails_ends_the_reading_of_its_prompt(visit: Callable[..., Visit], server: Server) -> None:
    found = visit(server)
    found.page.route("**/v1/inspect", lambda route: None)  # never answered
    found.page.route("**/v1/completions", lambda route: route.fulfill(body=""))
    found.page.fill("#prompt", "one two")
    with found.page.expect_event("requestfailed") as ended:
        found.page.click("#write")
    assert ended.value.url.endswith("/v1/inspect")
    assert ended.value.failure == "net::ERR_ABORTED"
    expect(found.page.locator("#error")).to_have_text("the answer broke off: the connection to the server is closed")


@needs_browser
@pytest.mark.parametrize("key", ["schlüssel", "ключ"])
def test_a_key_that_no_header_can_hold_is_one_line(visit: Callable[..., Visit], server: Server, key: str) -> None:
    found = visit(server)
    error = found.page.locator("#error")
    found.page.fill("#key", key)
    found.page.press("#key", "Tab")
    expect(error).to_have_text("API key: only printable ASCII characters fit into a header")
    found.page.fill("#key", " a-key ")
    found.page.press("#key", "Tab")
    expect(error).to_have_text("")

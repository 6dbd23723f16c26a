"""The playground in a real browser, on a real server of a small model with random weights: it writes any bytes."""

import re
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from aunet.bytes import EOS
from aunet.language_model import LanguageModel
from aunet.report.passage import Passage
from aunet.serve.page import POLICY, files
from aunet.splitting import splitter
from tests.browser import BROWSER, needs_browser
from tests.report.passages import NASTY
from tests.serve.processes import Server, serving

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = api.expect

Scheme = Literal["light", "dark"]
ENDLESS = 1_000_000
"""More bytes than are written before somebody stops."""


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Visit]]:
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


# Files


class Elements(HTMLParser):
    """Every element with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_refers_to_its_own_files_only() -> None:
    found = files()
    page = Elements(found["/"].content.decode())
    for tag, attributes in page.found:
        assert "style" not in attributes, tag
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href"):
            if name in attributes:
                assert f"/{attributes[name]}" in {"/docs", *found}
    for path, file in found.items():
        text = file.content.decode().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|innerHTML|insertAdjacentHTML", text), path
        for name in re.findall(r'from "\./(.+?)"', text):
            assert f"/page/{name}" in found


def test_every_property_that_is_used_is_set() -> None:
    styles = [file.content.decode() for path, file in files().items() if path.endswith(".css")]
    used = {name for style in styles for name in re.findall(r"var\((--[\w-]+)\)", style)}
    assert used - {name for style in styles for name in re.findall(r"(--[\w-]+):", style)} == {"--share"}


def test_the_server_sends_them_under_the_policy(server: Server) -> None:
    for path, file in files().items():
        answer = httpx.get(server.url + path)
        assert (answer.status_code, answer.content) == (200, file.content)
        assert answer.headers["content-type"] == file.media_type
        assert answer.headers["content-security-policy"] == POLICY


# Writing


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


# One character


@needs_browser
def test_pointing_shows_the_bits_of_each_byte(
    visit: Callable[..., Visit], server: Server, model: LanguageModel
) -> None:
    text = "One naïve two"
    bits = model.bits(text)
    found = visit(server)
    found.read(text)
    readout = found.page.locator("#readout")
    found.cell(2).hover()
    expect(readout.locator(".glyph")).to_have_text("e")
    expect(readout.locator(".cost strong")).to_have_text(f"{bits[2]:.2f} bits")
    expect(readout.locator(".bytes")).to_have_text("65")
    found.cell(6).hover()
    expect(readout.locator(".cost strong")).to_have_text(f"{bits[6] + bits[7]:.2f} bits")
    assert readout.locator(".bytes li").all_text_contents() == [f"c3{bits[6]:.2f}", f"af{bits[7]:.2f}"]
    expect(readout.locator(".where")).to_have_text("U+00EF at byte 6")
    found.page.hover("h1")
    expect(readout.locator(".hint")).to_be_visible()
    expect(found.page.locator("#size-bits")).to_have_text(f"{model.bits_per_byte(text):.3f} bits per byte")


@needs_browser
def test_tones_are_those_of_the_bits(visit: Callable[..., Visit], server: Server, model: LanguageModel) -> None:
    from aunet.report import colours

    text = "One naïve two: 123"
    bits = Passage(text.encode(), splitter("").levels(text.encode()), model.bits(text)[:-1])
    found = visit(server)
    found.read(text)
    tones = found.page.locator("#text i").evaluate_all("(all) => all.map((one) => /h(\\d)/.exec(one.className)[1])")
    each = [bits.bits_of(character.start, character.end) or 0.0 for character in bits.characters()]
    assert [int(tone) for tone in tones] == [colours.step(one) for one in each]
    legend = found.page.locator(".heat span").all_text_contents()
    assert legend == list(colours.LABELS)


@needs_browser
def test_arrow_keys_move_one_focus_through_the_text(visit: Callable[..., Visit], server: Server) -> None:
    found = visit(server, width=360)
    found.read("one two three four five six\nseven eight nine ten eleven twelve")
    page = found.page
    page.focus("#rule")
    page.keyboard.press("Tab")
    assert found.label().startswith("o, byte 6f at 0, inside a unit, ")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert found.label().startswith("space, byte 20 at 3, ends a unit of stage 2, ")
    assert re.search(r"\d+\.\d\d bits$", found.label())
    expect(page.locator("#readout .glyph")).to_have_text("␣")
    assert page.locator("#text :focus").evaluate("(one) => getComputedStyle(one).outlineStyle") == "solid"
    before = page.locator("#text :focus").bounding_box()
    page.keyboard.press("ArrowDown")
    after = page.locator("#text :focus").bounding_box()
    assert after["y"] > before["y"]
    assert after["x"] == pytest.approx(before["x"], abs=after["width"])
    page.keyboard.press("ArrowUp")
    assert " at 3," in found.label()
    page.keyboard.press("End")
    assert found.label().startswith("the text may go on here")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")
    assert " at 0," in found.label()
    assert page.locator("#text [tabindex]").count() == 1


# Alternatives


@needs_browser
def test_alternatives_are_the_likeliest_bytes_and_one_can_be_chosen(
    visit: Callable[..., Visit], server: Server
) -> None:
    found = visit(server)
    found.write("One naive two", seed=8, max_bytes=30)
    data = b"One naive two" + completion(server, "One naive two", 8, 30)
    inspected = httpx.post(f"{server.url}/v1/inspect", json={"text": list(data)}).json()
    found.cell(5).click()
    options = found.page.locator("#choices ol button:not(.draw)")
    ids = [i for i, _ in inspected["alternatives"][5]]
    assert len(data) > 30
    for n in (5, *range(13, len(found.cells()))):  # of the prompt, and as they came with the stream
        found.cell(n).click()
        start = found.cell(n).evaluate("(one) => one.cell.start")
        shares = [float(share.rstrip(" %")) for share in options.locator(".share").all_text_contents()[:5]]
        assert shares == pytest.approx([100 * p for _, p in inspected["alternatives"][start]], abs=0.5)
    found.cell(5).click()
    expect(found.page.locator("#choices [aria-current]")).to_contain_text("stands here")
    other = next(k for k, i in enumerate(ids) if i not in (data[5], EOS))
    before = found.cells()
    options.nth(other).click()
    found.written(8)
    start = [*data[:5], ids[other]]
    assert found.cells() == shown(bytes(start) + completion(server, start, 8, 30))
    found.page.click("#back")
    assert found.cells() == before


@needs_browser
def test_alternatives_say_which_characters_they_come_after(visit: Callable[..., Visit], server: Server) -> None:
    """None is cut, so that a part of it would look like a byte that is no character."""
    text = "日" + "👩" * 11 + "日é"
    found = visit(server)
    found.read(text)
    found.cell(13).click()
    expect(found.page.locator("#choices h2 small")).to_have_text(f"after “{text[:-1]}”")


@needs_browser
def test_the_end_is_a_choice_of_the_model_too(
    visit: Callable[..., Visit], server: Server, model: LanguageModel
) -> None:
    found = visit(server)
    found.write("One naive two", seed=5)
    data = b"One naive two" + completion(server, "One naive two", 5)
    expect(found.page.locator("#status")).to_contain_text(f"{len(data) - 13} bytes, then the end: ")
    end = found.page.locator("#text b")
    expect(end).to_have_text("end")
    end.click()
    expect(found.page.locator("#readout .place")).to_have_text("the model ended the text here")
    expect(found.page.locator("#readout strong")).to_have_text(f"{model.bits(data)[-1]:.2f} bits")
    actual = found.page.locator("#choices .actual")
    expect(actual).to_contain_text("end")
    actual.click()
    expect(found.page.locator("#status")).to_have_text(f"{len(data)} bytes read")
    expect(end).to_have_text("end")
    assert found.cells() == shown(data)


@needs_browser
def test_alternatives_by_keyboard(visit: Callable[..., Visit], server: Server) -> None:
    found = visit(server)
    page = found.page
    found.settings(seed=4, max_bytes=10)
    found.read("ab cd")
    page.focus("#rule")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator("#choices ol button").first).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#choices")).to_be_hidden()
    assert " at 1," in found.label()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    expect(page.locator("#choices ol button").first).to_be_focused()
    page.locator("#choices .draw").press("Enter")
    found.written(4)
    assert found.cells() == shown(b"ab cd" + completion(server, "ab cd", 4, 10))


@needs_browser
def test_each_byte_of_a_character_has_alternatives(visit: Callable[..., Visit], server: Server) -> None:
    """A choice inside a character leaves bytes that are no UTF-8; the model goes on behind them all the same."""
    found = visit(server)
    found.settings(seed=6, max_bytes=12)
    found.read("a日b")
    found.cell(1).click()
    tabs = found.page.locator(".tab")
    assert tabs.all_text_contents() == ["e6", "97", "a5"]
    tabs.nth(1).click()
    ids = httpx.post(f"{server.url}/v1/inspect", json={"text": "a日b"}).json()["alternatives"][2]
    (k, chosen) = next((k, i) for k, (i, _) in enumerate(ids) if i not in (0x97, EOS))
    found.page.locator("#choices ol button").nth(k).click()
    found.written(6)
    start = [0x61, 0xE6, chosen]
    assert found.cells() == shown(bytes(start) + completion(server, start, 6, 12))


# Units


@needs_browser
@pytest.mark.parametrize("rule", ["word1", "word1+word2", "pretok", "fixed-4", "fixed-2+fixed-4", "word1+fixed-2"])
def test_any_rule_splits_any_text(visit: Callable[..., Visit], server: Server, rule: str) -> None:
    text = "One naïve two,\nthree 1234 four\n\nfive"
    found = visit(server)
    found.read(text)
    page = found.page
    if page.locator("#rule option", has_text=re.compile(f"^{re.escape(rule)}$")).count():
        page.select_option("#rule", rule)
    else:
        page.select_option("#rule", "other")
        page.fill("#other-rule", rule)
        page.press("#other-rule", "Enter")
    expected = passage(text.encode(), rule)
    expect(page.locator(f"#name-{expected.stages - 2}")).to_have_text(f"Stage {expected.stages}: {rule.split('+')[-1]}")
    for stage in range(2, expected.stages + 1):
        size = f"{expected.closed(stage)} units, {expected.contraction(stage):.2f} bytes per unit"
        expect(page.locator(f"#size-{stage - 2}")).to_have_text(size)
        # Each character once, in the unit of its last byte; a part that goes on in the next line joins that.
        parts = page.locator(f"#text u.s{stage - 2}").evaluate_all(
            "(all) => all.map((one) => [one.textContent, one.classList.contains('goes-on')])"
        )
        units = "".join(written + ("" if goes_on else "|") for written, goes_on in parts)
        ends = [unit.end for unit in expected.units(stage)]
        marked = "".join(
            character.shown + "|" * any(character.start < end <= character.end for end in ends)
            for character in expected.characters()
        )
        assert units == marked


@needs_browser
def test_a_line_without_an_end_is_laid_out_in_parts(visit: Callable[..., Visit], server: Server) -> None:
    """A browser lays out a block whole whenever it grows; units go on where it ends, and nothing is lost."""
    found = visit(server)
    for text, sizes in (("ten chars " * 230, [1000, 1000, 301]), ("x" * 4100 + "\ny", [2000, 2000, 101, 2])):
        found.read(text)
        assert "".join(found.cells()) == text.replace("\n", "↵")
        blocks = found.page.locator("#text div")
        assert blocks.evaluate_all("all => all.map((one) => one.querySelectorAll('i, b').length)") == sizes


@needs_browser
def test_an_unknown_rule_is_one_line(visit: Callable[..., Visit], server: Server) -> None:
    found = visit(server)
    found.read("one two")
    found.page.select_option("#rule", "other")
    found.page.fill("#other-rule", "<b>wrod1</b>")
    found.page.press("#other-rule", "Enter")
    error = found.page.locator("#error")
    expect(error).to_contain_text("unknown splitting rule '<b>wrod1</b>'")
    assert "\n" not in error.inner_text()
    found.page.fill("#other-rule", "fixed-2")
    found.page.press("#other-rule", "Enter")
    expect(error).to_have_text("")
    expect(found.page.locator("#name-0")).to_have_text("Stage 2: fixed-2")
    # The browser itself notes what was refused.
    assert [problem.split("status of ")[-1] for problem in found.problems] == ["400 (Bad Request)"]
    found.problems.clear()


@needs_browser
def test_the_shaded_stage_stays(visit: Callable[..., Visit], server: Server) -> None:
    found = visit(server)
    found.read("one two")
    found.page.check("[name=shade][value='0']")
    units = "(all) => all.map((one) => getComputedStyle(one).getPropertyValue('--ground'))"
    grounds = found.page.locator("#text u").evaluate_all(units)
    assert len(set(grounds)) == len(grounds) == 2
    found.write("three four five", seed=2, max_bytes=5)
    expect(found.page.locator("[name=shade][value='0']")).to_be_checked()
    assert set(grounds) == set(found.page.locator("#text u").evaluate_all(units))
    found.page.check("[name=shade][value=none]")
    assert set(found.page.locator("#text u").evaluate_all(units)) == {"transparent"}


# Looks


CONTRASTS = """() => {
  const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const ground = (one) => {
    for (; one; one = one.parentElement) {
      const found = numbers(getComputedStyle(one).backgroundColor);
      if (found.length === 3) return found;
    }
  };
  const found = {};
  for (const one of document.querySelectorAll("body *")) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own && !one.matches("input, textarea, select") || !one.checkVisibility()) continue;
    const [a, b] = [light(numbers(getComputedStyle(one).color)), light(ground(one))].sort((x, y) => x - y);
    const name = `${one.localName}#${one.id}.${one.className}`;
    found[name] = Math.min(found[name] ?? 21, (b + 0.05) / (a + 0.05));
  }
  return found;
}"""


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read_in_both_schemes(visit: Callable[..., Visit], server: Server, scheme: Scheme) -> None:
    found = visit(server, color_scheme=scheme)
    found.write("One naïve two", seed=3)
    found.cell(6).click()
    expect(found.page.locator("#choices ol")).to_be_visible()
    for shade in ("bits", "none"):
        found.page.check(f"[name=shade][value={shade}]")
        contrasts = found.page.evaluate(CONTRASTS)
        assert len(contrasts) > 20
        assert {name: value for name, value in contrasts.items() if value < 4.5} == {}


@needs_browser
def test_dark_is_the_systems_choice_until_the_reader_has_one(visit: Callable[..., Visit], server: Server) -> None:
    found = visit(server, color_scheme="dark")
    page = found.page
    ground = "() => getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    button = page.locator("#scheme")
    expect(button).to_have_attribute("aria-pressed", "true")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")
    light = page.evaluate(ground)
    assert light != dark
    page.emulate_media(color_scheme="light")
    assert page.evaluate(ground) == light
    button.click()
    assert page.evaluate(ground) == dark


@needs_browser
def test_a_narrow_page_never_scrolls_sideways(visit: Callable[..., Visit], server: Server) -> None:
    found = visit(server, width=360, height=700)
    wide = """() => [...document.querySelectorAll("body *")].filter((one) => one.checkVisibility()
        && !one.closest("#shades legend") && one.getBoundingClientRect().right > 360.5).map((one) => one.outerHTML)"""

    def fits() -> None:
        assert found.page.evaluate("() => document.documentElement.scrollWidth") == 360
        assert found.page.evaluate(wide) == []

    fits()
    found.write("W" * 300 + " \u202e" * 20 + "one two three four five six seven eight", seed=3, max_bytes=400)
    fits()
    found.page.select_option("#rule", "word1+word2+word4")
    expect(found.page.locator("#name-2")).to_be_visible()
    fits()
    # The panel lies over the lower edge; the character that it is about stays above it.
    found.cell(310).click()
    expect(found.page.locator("#choices")).to_be_visible()
    fits()
    assert found.cell(310).bounding_box()["y"] < found.page.locator("#detail").bounding_box()["y"]
    found.page.select_option("#rule", "other")
    fits()


@needs_browser
def test_nothing_blinks_where_motion_is_not_wanted(visit: Callable[..., Visit], server: Server) -> None:
    found = visit(server)
    found.read("one two")
    name = """() => {
        const text = document.getElementById("text");
        text.classList.add("writing");
        return getComputedStyle(text.lastElementChild, "::after").animationName;
    }"""
    assert found.page.evaluate(name) == "blink"
    found.page.emulate_media(reduced_motion="reduce")
    assert found.page.evaluate(name) == "none"


@needs_browser
def test_what_is_said_aloud(visit: Callable[..., Visit], server: Server) -> None:
    """One line when it begins and one when it ends; not every byte."""
    found = visit(server)
    found.page.evaluate("""() => {
        window.said = [];
        const note = () => said.push(document.getElementById("status").textContent);
        new MutationObserver(note).observe(document.getElementById("status"), { childList: true });
    }""")
    found.write("One two", seed=3)
    said = found.page.evaluate("() => window.said")
    assert said[0] == "writing ..."
    assert len(said) == 2
    expect(found.page.locator("[aria-live], [role=status], [role=alert]")).to_have_count(2)


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

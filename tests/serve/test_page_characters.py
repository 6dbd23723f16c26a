"""The playground in a real browser: what is known of one character, and what else might stand there."""

import re
import sys
import unicodedata
from collections.abc import Callable

import httpx
import pytest

from aunet.bytes import EOS
from aunet.language_model import LanguageModel
from aunet.report.passage import IGNORABLE, Passage, visible
from aunet.splitting import splitter
from tests.browser import needs_browser
from tests.serve.processes import Server
from tests.serve.visits import Visit, completion, expect, shown


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


@needs_browser
def test_what_browsers_ignore_is_written_out_as_on_pages_and_terminals(
    visit: Callable[..., Visit], server: Server
) -> None:
    script = """async (text) => {
        const { visible } = await import("/page/characters.js");
        return [...text].map(visible);
    }"""
    ignored = [c for c in map(chr, range(sys.maxunicode + 1)) if IGNORABLE.match(c) and unicodedata.category(c) != "Cn"]
    found = visit(server).page.evaluate(script, "".join(ignored))
    assert found == [visible(character) for character in ignored]
    assert {r"\u034f", r"\u115f", r"\u180f", r"\ufe0f", r"\uffa0", r"\U000e0100"} <= set(found)

"""The playground in a real browser: units, colours, narrow windows, and what is said aloud."""

import re
from collections.abc import Callable
from typing import Literal

import pytest

from tests.browser import needs_browser
from tests.serve.processes import Server
from tests.serve.visits import Visit, expect, passage

Scheme = Literal["light", "dark"]


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

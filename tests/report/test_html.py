import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aunet.report.html import Comparison, Report, passage_html, report_html
from aunet.report.passage import Passage
from tests.report.passages import NASTY, RULES, make, texts

VOID = {"meta", "br", "link", "img", "input", "hr"}
URL_ATTRIBUTES = {"src", "href", "srcset", "action", "data", "poster", "xlink:href", "background", "formaction"}


@dataclass
class View:
    """One text of a passage: its cells, as (first byte, number of bytes, text, unit), and the classes of its units."""

    kind: str
    cells: list[tuple[int, int, str, int]] = field(default_factory=list)
    units: list[str] = field(default_factory=list)


class Page(HTMLParser):
    """Reads a page strictly: every element is closed, and in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.views: list[View] = []
        self.scripts: list[tuple[str, str]] = []
        self.text: dict[str, str] = {}
        self._type = ""
        self.feed(text)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        assert len(found) == len(attrs), f"an attribute of {tag} stands twice"
        self.elements.append((tag, found))
        if tag not in VOID:
            self.stack.append(tag)
        classes = found.get("class", "").split()
        if "text" in classes:
            self.views.append(View(found["class"]))
        elif tag == "u":
            self.views[-1].units.append(found["class"])
        elif tag == "i" and "data-b" in found:
            size = int(found.get("data-n", 1))
            self.views[-1].cells.append((int(found["data-b"]), size, "", len(self.views[-1].units) - 1))
        elif tag == "script":
            self._type = found.get("type", "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack.pop() == tag, f"</{tag}> out of order"

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] == "script":
            self.scripts.append((self._type, data))
        elif self.stack and self.stack[-1] == "i" and self.views and self.views[-1].cells:
            start, size, text, unit = self.views[-1].cells[-1]
            self.views[-1].cells[-1] = (start, size, text + data, unit)
        if self.stack:
            self.text[self.stack[-1]] = self.text.get(self.stack[-1], "") + data


def _report(**fields: object) -> Report:
    values: dict[str, object] = {
        "title": "A <run>",
        "facts": [("parameters", "1.9 M"), ("a & b", "<1>")],
        "train_curve": [(8192.0 * k, 8 / k**0.3) for k in range(1, 40)],
        "valid_curve": [(80_000.0, 4.2), (320_000.0, 2.9)],
        "comparison": [Comparison("AU-Net", 2.2, "ours"), Comparison("xz -9e", 2.4), Comparison("gzip -9", 2.6, "g")],
        "prompt": "The <prompt>",
        "sample": " goes\non \udcff <script>alert(1)</script>",
        "passage": make(NASTY),
        "rule": "word1+word2",
        **fields,
    }
    return Report(**values)  # type: ignore[arg-type]


PAGES = {
    "passage": lambda: passage_html(make(NASTY), "word1+word2", "</title><script>alert(1)</script>"),
    "report": lambda: report_html(_report(summary="<b>", notes=["a & b", "</footer>"], passage_note="<i>")),
    "no bits": lambda: passage_html(make(NASTY, with_bits=False), "word1+word2"),
    "empty": lambda: passage_html(make(b""), "word1+word2"),
    "one stage": lambda: passage_html(Passage(b"abc", np.zeros(3, dtype=np.uint8)), ""),
    "nothing recorded": lambda: report_html(
        _report(train_curve=[], valid_curve=[], comparison=[], sample="", prompt="", facts=[], passage=make(b""))
    ),
    "not numbers": lambda: report_html(_report(comparison=[Comparison("a", float("nan")), Comparison("b", 2.0)])),
}


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_well_formed_and_alone(name: str) -> None:
    text = PAGES[name]()
    assert text.startswith("<!DOCTYPE html>\n<html lang=")
    page = Page(text)
    for tag, attributes in page.elements:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "use", "image"}
        assert not URL_ATTRIBUTES & set(attributes), (tag, attributes)
        assert not [key for key in attributes if key.startswith("on")], (tag, attributes)
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\(", text.replace(NASTY.decode(errors="replace"), ""))
    policy = [a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policy) == 1
    assert policy[0].startswith("default-src 'none'")


@pytest.mark.parametrize("name", PAGES)
def test_scripts_are_ours(name: str) -> None:
    """Two at most, data and behaviour, whatever the text says."""
    page = Page(PAGES[name]())
    assert [kind for kind, _ in page.scripts] == ["application/json", ""]
    assert [attributes for tag, attributes in page.elements if tag == "script"] == [{"type": "application/json"}, {}]


def test_identifiers_and_headings() -> None:
    page = Page(report_html(_report()))
    assert [tag for tag, _ in page.elements].count("h1") == 1
    assert page.text["h1"] == "A <run>"
    assert "A <run>" in page.text["title"]


@given(texts(), st.sampled_from(RULES), st.booleans())
def test_every_byte_is_there_in_order_in_every_view(data: bytes, rule: str, with_bits: bool) -> None:
    passage = make(data, rule, with_bits)
    page = Page(passage_html(passage, rule))
    assert len(page.views) == passage.stages - (not with_bits)
    for view in page.views:
        at = 0
        for start, size, shown, _ in view.cells:
            assert start == at
            at += size
            (character, *rest) = passage.characters(start, at)
            assert not rest
            assert shown == character.shown + ("\n" if character.text == "\n" else "")
        assert at == len(data)


@given(texts(), st.sampled_from(RULES))
def test_units_of_the_page_are_units_of_the_passage(data: bytes, rule: str) -> None:
    passage = make(data, rule, with_bits=False)
    for stage, view in enumerate(Page(passage_html(passage, rule)).views, start=2):
        units = passage.units(stage)
        assert [(" open" in kind) for kind in view.units] == [unit.open for unit in units]
        assert all(kind.startswith(f"t{k % 2}") for k, kind in enumerate(view.units))
        starts = {unit: start for start, _, _, unit in reversed(view.cells)}
        assert [starts[k] for k in range(len(units))] == [unit.start for unit in units]


@given(texts(), st.floats(-1e9, 1e9) | st.sampled_from([float("nan"), float("inf")]))
def test_the_data_of_the_script_is_the_passage(data: bytes, bits: float) -> None:
    base = make(data)
    passage = Passage(data, base.levels, np.full(len(data), bits), stages=base.stages)
    (text,) = [text for kind, text in Page(passage_html(passage, "word1+word2")).scripts if kind == "application/json"]
    found = json.loads(text)
    assert bytes.fromhex(found["hex"]) == data
    assert found["levels"] == passage.levels.tolist()
    expected = round(bits, 3) if np.isfinite(bits) else None
    assert found["bits"] == [expected] * len(data)


def test_heat_is_of_the_whole_character() -> None:
    """Three bytes of one bit each make a character of three bits."""
    passage = Passage("a€".encode(), np.zeros(4, dtype=np.uint8), np.ones(4), stages=1)
    assert re.findall(r'<i data-b="\d"(?: data-n="\d")? class="h(\d)">', passage_html(passage, "")) == ["2", "4"]


def test_markup_is_escaped_in_every_cell() -> None:
    """A parser forgives a lone `<` or `&` inside a cell; a page should not need it."""
    text = passage_html(make(b"<&>'\"", "word1"), "word1")
    for written in ("&lt;", "&amp;", "&gt;", "&#x27;", "&quot;"):
        assert text.count(f">{written}</i>") == 2


def test_control_characters_are_shown_not_sent() -> None:
    text = report_html(_report(sample="a\x1b[0m\u202e\x00b"))
    assert not [character for character in text if not character.isprintable() and character != "\n"]
    assert r"a\x1b[0m\u202e\x00b" in text


def test_sample_and_comparison_are_on_the_page() -> None:
    text = report_html(_report())
    assert "<b>The &lt;prompt&gt;</b> goes\non \N{REPLACEMENT CHARACTER} &lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert re.findall(r"<td>([\d.]+)</td>", text) == ["2.200", "2.400", "2.600"]
    assert text.count('<tr class="ours">') == 1
    shares = [float(share) for share in re.findall(r"--share:([\d.]+)%", text)]
    assert shares == [84.6, 92.3, 100.0]
    # The other systems are lines in the curve, the model is the curve.
    svg = text[text.index("<svg") : text.index("</svg>")]
    assert "gzip -9" in svg
    assert "xz -9e" in svg
    assert ">AU-Net<" not in svg


def test_both_colour_schemes_are_there() -> None:
    text = passage_html(make(b"one two"), "word1+word2")
    assert "color-scheme: light dark;" in text
    ((light, dark),) = re.findall(r"--bits-7-ink: light-dark\((#\w+), (#\w+)\);", text)
    assert light != dark


def test_every_property_that_is_used_is_set() -> None:
    text = report_html(_report())
    used, found = set(re.findall(r"var\((--[\w-]+)", text)), set(re.findall(r"(--[\w-]+):", text))
    assert used <= found
    assert {"--unit-3-1-ink", "--bits-7", "--paper"} <= used

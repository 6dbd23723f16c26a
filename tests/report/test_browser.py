"""Pages in a real browser: the script runs under the page's own policy and points at the same byte in every view."""

import re
import subprocess
from pathlib import Path

from aunet.report.html import passage_html
from tests.browser import BROWSER, needs_browser
from tests.report.passages import make

pytestmark = needs_browser
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--virtual-time-budget=2000"),
)


def _dom(page: str, actions: str, tmp_path: Path) -> str:
    """The document after `actions`, JavaScript that runs behind the page's own script."""
    path = tmp_path / "page.html"
    path.write_text(page.replace("</body>", f"<script>{actions}</script></body>"), encoding="utf-8")
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_pointing_at_a_character_marks_it_everywhere_and_says_what_is_known(tmp_path: Path) -> None:
    page = passage_html(make("one naïve two".encode(), "word1+word2"), "word1+word2")
    actions = """
        const cell = document.querySelectorAll(".text")[1].querySelector('[data-b="6"]');
        cell.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
    """
    dom = _dom(page, actions, tmp_path)
    assert re.findall(r'<i data-b="(\d+)" data-n="2"[^>]*class="[^"]*\bon\b', dom) == ["6"] * 3
    assert len(re.findall(r'<u class="[^"]*\bin\b', dom)) == 2
    # Bits of bytes 6 and 7 are 6/8 and 7/8; no unit ends inside a word.
    (said,) = re.findall(r'<output class="readout">([^<]*)</output>', dom)
    assert said == "“ï”   bytes c3 af at 6   level 0: inside a unit   1.63 bits (0.75 + 0.88)"


def test_pointing_lays_nothing_out(tmp_path: Path) -> None:
    """A mark that moves its character in or out of the flow takes seconds in a long text, at each move of a pointer."""
    actions = """
        const cell = document.querySelector('[data-b="6"]');
        const flow = ({ position, display, float, margin, padding, borderWidth, font }) =>
          [position, display, float, margin, padding, borderWidth, font].join();
        const before = flow(getComputedStyle(cell));
        cell.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
        document.title = `${cell.className.includes("on")} ${flow(getComputedStyle(cell)) === before}`;
    """
    dom = _dom(passage_html(make(b"one two three"), "word1+word2"), actions, tmp_path)
    assert "<title>true true</title>" in dom


def test_arrow_keys_move_and_leaving_clears(tmp_path: Path) -> None:
    page = passage_html(make(b"ab cd ", "word1+word2"), "word1+word2")
    key = 'dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));'
    actions = f'const view = document.querySelector(".text"); {f"view.{key}" * 3}'
    moved = _dom(page, actions, tmp_path)
    assert "byte 20 at 2   level 1: ends a unit of stage 2 " in moved
    cleared = _dom(page, actions + 'view.dispatchEvent(new Event("pointerleave"));', tmp_path)
    assert "Point at a character" in cleared
    assert 'class="on' not in cleared


def test_what_is_said_of_a_character_can_be_seen_beside_it(tmp_path: Path) -> None:
    """A text may be longer than the window; other keys than its own stay the browser's."""
    key = 'new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true, cancelable: true, altKey })'
    actions = f"""
        const view = document.querySelector(".text");
        const press = (altKey) => view.dispatchEvent({key});
        const before = press(true);
        for (let k = 0; k < 800; k += 1) press(false);
        const seen = (one) => one.getBoundingClientRect();
        const said = seen(document.querySelector(".readout"));
        const cell = seen(document.querySelector(".on"));
        const inView = said.top >= 0 && said.bottom <= cell.top && cell.bottom <= innerHeight;
        document.title = `${{before}} ${{scrollY > 0}} ${{inView}} ${{view.querySelector(".on").dataset.b}}`;
    """
    dom = _dom(passage_html(make(b"one two\n" * 200), "word1+word2"), actions, tmp_path)
    assert "<title>true true true 799</title>" in dom


def test_the_page_may_not_load_anything(tmp_path: Path) -> None:
    """Its policy refuses, whatever a slip might put into it."""
    actions = """
        const told = (event) => { document.title = "refused " + event.violatedDirective; };
        document.addEventListener("securitypolicyviolation", told);
        document.body.append(Object.assign(new Image(), { src: "http://localhost:9/x.png" }));
    """
    dom = _dom(passage_html(make(b"one two"), "word1+word2"), actions, tmp_path)
    assert "<title>refused img-src</title>" in dom

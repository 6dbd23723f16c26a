"""Figures and reports: what they say, that they stand alone, that they can be read in both schemes."""

import re
import shutil
import sys
import xml.etree.ElementTree as ET
from functools import cache
from pathlib import Path

import pytest

from aunet.errors import AUNetError, MissingExtra
from aunet.report.colours import contrast
from aunet.report.figures import INK, MUTED, PAPER, SERIES, look
from aunet.scaling.plots import draw
from aunet.scaling.records import Record
from aunet.scaling.report import laws_if_any, write_report
from tests.browser import BROWSER, needs_browser
from tests.scaling.made_records import record
from tests.scaling.planted import FAMILIES, race

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@cache
def runs() -> tuple[Record, ...]:
    return tuple(race(points=4))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    write_report(runs(), out, baseline="bpe-4k")
    return out


def test_families_are_told_apart_by_more_than_colour() -> None:
    looks = [look(i) for i in range(24)]
    assert len({(one.colour, one.marker) for one in looks}) == 24  # also where no line is drawn
    assert len({(one.colour, one.dash) for one in looks}) == 24
    for tone in (*SERIES, INK, MUTED):
        assert contrast((tone.light, PAPER.light)) >= 3
        assert contrast((tone.dark, PAPER.dark)) >= 3


def test_figures_are_valid_svg_with_colours_of_both_schemes(report: Path) -> None:
    paths = sorted((report / "figures").iterdir())
    assert [path.name for path in paths] == ["isoflop.svg", "loss.svg", "tuning.svg"]
    for path in paths:
        text = path.read_text()
        root = ET.fromstring(text)
        assert root.get("role") == "img"
        assert root.get("aria-label")
        assert "prefers-color-scheme: dark" in text
        ids = [element.get("id") for element in root.iter() if element.get("id")]
        assert len(ids) == len(set(ids))
        assert all(name and name.startswith(f"{path.stem}-") for name in ids)
        assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text)) <= set(ids)
    for family in FAMILIES:
        assert f">{family}</text>" in (report / "figures" / "loss.svg").read_text()


def test_the_same_records_give_the_same_figures() -> None:
    few = [run for run in runs() if run.family == "aunet-2"]
    assert draw(few, "novels") == draw(few, "novels")


def test_figures_that_have_no_data_are_left_out() -> None:
    assert list(draw([record()], "valid")) == ["loss", "isoflop"]


def test_the_page_stands_alone(report: Path) -> None:
    page = (report / "report.html").read_text()
    assert not re.search(r'(?:src|href)="(?!#|data:)', page)
    assert "http:" not in re.sub(r'xmlns(?::\w+)?="[^"]+"', "", page)
    assert "https:" not in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_both_forms_say_the_same(report: Path) -> None:
    page, text = (report / "report.html").read_text(), (report / "report.md").read_text()
    for title in (
        "Bits per byte on novels",
        "Bits per byte on scripture",
        "Fitted laws",
        "What was tuned",
        "did not end",
    ):
        assert title in page
        assert title in text
    cells = [cell.strip() for line in text.splitlines() if line.startswith("| 3e14 |") for cell in line.split("|")]
    assert sum(bool(re.fullmatch(r"\d\.\d{3} \(\d\.\d{3} to \d\.\d{3}\)", cell)) for cell in cells) == 2 * (
        3 + 2
    )  # intervals and ratios
    assert all(cell in page for cell in cells)
    assert "step 12: the loss is nan; lower train.lr" in text
    assert "best on novels; nothing was tuned for this set" in text
    assert "![Loss against compute](figures/loss.svg)" in text


def test_texts_that_differ_between_runs_are_named(tmp_path: Path) -> None:
    hashes = {"train": "d" * 64, "valid": "b" * 64, "tokenizer": "e" * 64}
    other = record("b", data_hash=hashes, family="<i>")
    third = record("c", data_hash={**hashes, "tokenizer": "f" * 64}, family="bpe", bytes_read=999_999_000)
    page, text = write_report([record(), other, third], tmp_path)
    assert text.read_text().count("not all runs are on the same text: 2 differ") == 1, "tokenizers may differ"
    assert "| 1G |" in text.read_text()
    assert "<i>" not in page.read_text()
    assert "&lt;i&gt;" in page.read_text()


def test_other_documents_under_one_name_are_named(tmp_path: Path) -> None:
    shorter = record("b", family="other", documents={"valid": [(4.0, 2)]})
    with pytest.raises(AUNetError, match="b and made-000 on valid: a paired ratio needs two models") as caught:
        write_report([record(), shorter], tmp_path, baseline="made")
    assert "\n" not in str(caught.value)


def test_laws_are_not_left_out_for_want_of_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    assert laws_if_any([record()], "valid") is None, "of one budget"
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(MissingExtra, match="scipy"):
        laws_if_any([record(), record("larger", 1.9, compute_flops=1e14)], "valid")


def test_an_unknown_baseline_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(AUNetError, match="--baseline: no record is of family 'bpe'; known: made"):
        write_report([record()], tmp_path, baseline="bpe")
    assert not list(tmp_path.iterdir())


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_renders_without_a_complaint_and_does_not_scroll_sideways(report: Path, scheme: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which(str(BROWSER)), args=["--no-sandbox"])
        page = browser.new_context(color_scheme=scheme, viewport={"width": 420, "height": 800}).new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.goto((report / "report.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        paper = page.evaluate("getComputedStyle(document.querySelector('figure.loss svg path')).fill")
        assert paper == ("rgb(253, 252, 249)" if scheme == "light" else "rgb(20, 19, 17)")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == paper
        assert complaints == []
        browser.close()

"""Models side by side: the command, its pages and its figure."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.evals.test_compare import draws, scored, write_results
from tests.runs import here


@pytest.fixture
def results(tmp_path: Path) -> list[Path]:
    def of(name: str, share: float) -> Path:
        return write_results(
            tmp_path / f"{name}.json",
            scored("cute_spell", draws(share, 0), chance=0.001),
            scored("cute_<sem>", draws(share, 1), chance=0.5),
            scored("noise_text", draws(share, 2), "bits_per_byte"),
            scored("flores_a-b", [30.0, 40.0], "chrf"),
        )

    return [of("au_net", 0.8), of("bpe", 0.3)]


def test_tables_in_the_terminal(results: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    found = here("compare", *results)
    assert found.returncode == 0, found.stderr
    assert "cute: exact match" in found.stdout
    assert "au_net less bpe" in found.stdout
    assert "Less is better." in found.stdout
    (line,) = [line for line in found.stdout.splitlines() if "cute_spell" in line]
    assert line.rstrip().endswith("*")
    assert "35.0 (30.0 to 40.0)" in found.stdout


def test_no_number_is_broken_on_a_narrow_terminal(results: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    found = here("compare", *results)
    assert "35.0 (30.0 to 40.0)" in found.stdout


def test_pages_and_a_figure(results: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = here("compare", *results, "--out", tmp_path / "out")
    assert found.returncode == 0, found.stderr
    pages = {path.suffix: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert set(pages) == {".md", ".html", ".tex", ".svg"}
    assert "| cute_spell | 200 | 0.001 |" in pages[".md"]
    assert "cute_&lt;sem&gt;" in pages[".html"]
    assert "<sem>" not in pages[".html"]
    assert "http" not in pages[".html"].replace("http://www.w3.org", "").replace("http-equiv", "")
    assert r"cute\_spell & 200 &" in pages[".tex"]
    assert pages[".tex"].count(r"\begin{table}") == pages[".tex"].count(r"\end{table}") == 3
    ElementTree.fromstring(pages[".svg"])
    assert all(name in pages[".svg"] for name in ("au_net", "bpe", "cute_spell"))


def test_one_model_has_no_differences(results: list[Path]) -> None:
    found = here("compare", results[0])
    assert found.returncode == 0, found.stderr
    assert " less " not in found.stdout


def test_a_file_that_is_none_of_results_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    found = here("compare", tmp_path / "a.json")
    assert found.returncode == 1
    assert found.stderr.count("\n") == 1
    assert "no list 'results'" in found.stderr

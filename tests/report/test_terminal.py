import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from aunet.report.passage import Passage
from aunet.report.terminal import render
from tests.report.passages import NASTY, RULES, make, texts

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
STYLED = re.compile(r"\x1b\[([0-9;]*)m([^\x1b]*)\x1b\[0m")


def _print(passage: Passage, rule: str, system: str | None, width: int = 80, stages: list[int] | None = None) -> str:
    console = Console(
        file=io.StringIO(),
        force_terminal=system is not None,
        color_system=system,  # type: ignore[arg-type]
        width=width,
        no_color=False,
        _environ={},
    )
    console.print(render(passage, rule, stages))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def _blocks(printed: str) -> dict[str, list[str]]:
    """The lines below each heading; only a heading begins with `stage N  `."""
    blocks: dict[str, list[str]] = {}
    for line in printed.splitlines():
        if match := re.match(r"stage \d", line):
            blocks[match.group()] = []
        elif blocks:
            blocks[list(blocks)[-1]].append(line)
    return blocks


@pytest.mark.parametrize("system", [None, "standard", "256", "truecolor"])
def test_no_control_character_of_the_text_reaches_the_terminal(system: str | None) -> None:
    printed = ESCAPE.sub("", _print(make(NASTY), "word1+word2", system))
    assert all(character.isprintable() or character == "\n" for character in printed)
    assert "\x1b" not in printed


@given(texts(), st.sampled_from(RULES), st.integers(50, 90))
def test_bars_stand_where_units_end(data: bytes, rule: str, width: int) -> None:
    passage = make(data, rule, with_bits=False)
    expected = ""
    for unit in passage.units(2):
        shown = [character.shown for character in passage.characters(unit.start, unit.end)]
        expected += "".join("\\|" if one == "|" else one for one in shown) + ("" if unit.open else "|")
    lines = _blocks(_print(passage, rule, None, width, [2]))["stage 2"]
    legend = lines.index("") if "" in lines else len(lines)
    # Lines are cut at the width only, and rich ends none of them with padding.
    assert "".join(lines[:legend]) == expected


@given(texts(), st.sampled_from(RULES))
def test_neighbouring_units_have_other_colours_and_one_unit_has_one(data: bytes, rule: str) -> None:
    passage = make(data, rule, with_bits=False)
    printed = _print(passage, rule, "truecolor", 400, [2])
    body = printed.split("\n", 1)[1]
    runs: list[tuple[str, str]] = []
    for style, text in STYLED.findall(body):
        ground = style[style.index("48;") :]
        if runs and runs[-1][0] == ground:
            runs[-1] = (ground, runs[-1][1] + text)
        else:
            runs.append((ground, text))
    expected = [
        "".join(character.shown for character in passage.characters(unit.start, unit.end)) for unit in passage.units(2)
    ]
    assert [text for _, text in runs] == expected


@pytest.mark.parametrize("system", [None, "truecolor"])
@pytest.mark.parametrize("width", [20, 57])
def test_lines_fit(system: str | None, width: int) -> None:
    printed = ESCAPE.sub("", _print(make("日本語 and words ".encode() * 9), "word1+word2", system, width))
    assert max(cell_len(line) for line in printed.splitlines()) <= width


def test_digits_stand_under_their_characters() -> None:
    data = "a日é\n".encode()
    printed = _print(make(data, "word1"), "word1", None)
    # Bits are 0, 1/8 + 2/8 + 3/8, 4/8 + 5/8, 6/8.
    assert _blocks(printed)["stage 1"][:2] == ["a日é↵", "00 10"]


@pytest.mark.parametrize("text", ["e\u0301xy", "नमस्ते", "สวัสดี", "\u0301ab", "a\n\u0301b"])
def test_marks_without_a_width_have_the_digit_of_what_they_are_drawn_on(text: str) -> None:
    shown, digits = _blocks(_print(make(text.encode(), "word1"), "word1", None))["stage 1"][:2]
    assert len(digits) == cell_len(shown)


def test_the_bits_of_an_accent_are_added_to_those_of_its_letter() -> None:
    printed = _print(make("123456e\u0301".encode(), "word1"), "word1", None)
    # Bits are 0, 1/8, ..., 5/8, and 6/8 + 7/8 + 8/8.
    assert _blocks(printed)["stage 1"][:2] == ["123456e\u0301", "0000002"]


def test_headings_name_rule_units_and_sizes() -> None:
    printed = _print(make(b"one two three four ", "word1+word2"), "word1+word2", None)
    assert "stage 2  word1  4 units  4.75 bytes per unit" in printed
    assert "stage 3  word2  2 units  9.50 bytes per unit" in printed
    assert re.search(r"stage 1  bytes  19 units  \d\.\d{3} bits per byte", printed)


def test_no_color_is_obeyed_on_a_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, _environ={"NO_COLOR": "1", "TERM": "xterm"})
    console.print(render(make(b"one two"), "word1+word2"))
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "one |two" in ESCAPE.sub("", printed)
    assert not re.search(r"\x1b\[[0-9;]*[34]8;", printed)


def test_without_bits_there_is_no_row_of_bits() -> None:
    assert "stage 1" not in _print(make(b"one two", with_bits=False), "word1+word2", None)


def test_one_stage_shows_bits_only() -> None:
    printed = _print(Passage(b"abc", make(b"abc", "word1").levels * 0, None, stages=1), "", None)
    assert "stage" not in printed


def test_the_empty_text_prints() -> None:
    assert "0 units" in _print(make(b""), "word1+word2", "truecolor")

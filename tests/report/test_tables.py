"""Tables as text: whatever is in a cell, every form shows it and nothing else."""

import re
from html import unescape

from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from aunet.report.tables import Table, in_markdown, markdown

NASTY = "a_b* _c_ __d__ **e** |`\\<i>\n</i>.:("


@given(st.lists(st.text(NASTY), min_size=6, max_size=6))
@example(["_a_", "*a*", "`a`", "<b>a</b>", "a|b", "a\nb"])
@example(["a\\|b", "\\_a_", "\\\\", "**", "<!-- a -->", "a\u2028b\rc"])
def test_markdown_shows_names_as_they_are(cells: list[str]) -> None:
    table = Table("runs", "", (cells[0], cells[1]), ((cells[2], cells[3]), (cells[4], cells[5])), names=1)
    page = MarkdownIt("commonmark").enable("table").render(markdown(table))
    found = re.findall(r"<t[hd](?: style=[^>]*)?>(.*?)</t[hd]>", page, re.DOTALL)
    assert [unescape(cell) for cell in found] == [" ".join(cell.split()) for cell in cells]


def test_what_means_nothing_to_markdown_stays_readable() -> None:
    for text in ("bits_per_byte of aunet_2_23m", "0.31 (0.30 to 0.32)*", "p < 0.05, 3 * 4", "C:\\runs [a] #1 + 2"):
        assert in_markdown(text) == text

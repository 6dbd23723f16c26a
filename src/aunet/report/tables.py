"""Tables as text that every form of a report shows: Markdown, HTML, LaTeX, the terminal."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources

from rich import box
from rich.markup import escape as escape_rich
from rich.table import Table as View

from aunet.evals.statistics import Interval

LATEX = {character: f"\\{character}" for character in "&%$#_{}"}
LATEX |= {"~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "\\": "\\textbackslash{}"}
MARKS = re.compile(
    r"""
    [|`]                    # a cell ends, code begins
    | \*(?=\S)              # emphasis begins: a star behind a number begins none,
    | (?<![^\W_])_(?=\S)    # and neither does what stands inside a word
    | <(?=[a-zA-Z/!?])      # a tag
    | \\(?=[!-/:-@[-`{-~])  # what is behind it is no mark
    """,
    re.VERBOSE,
)
"""Characters that mean something to Markdown where they stand, and not only themselves."""


@dataclass(frozen=True)
class Table:
    """Cells as plain text. The first `names` columns are text, the others numbers."""

    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int = 2


def interval(found: Interval, digits: int) -> str:
    """A value with its bounds.

    >>> interval(Interval(2.0, 1.9, 2.1), 2)
    '2.00 (1.90 to 2.10)'
    """
    return f"{found.value:.{digits}f} ({found.low:.{digits}f} to {found.high:.{digits}f})"


def markdown(table: Table) -> str:
    """A section of a page."""
    rules = ["---" if i < table.names else "---:" for i in range(len(table.header))]
    header, *body = ([in_markdown(cell) for cell in row] for row in (table.header, *table.rows))
    rows = [header, rules, *body]
    lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"## {in_markdown(table.title)}\n\n" + (f"{in_markdown(table.note)}\n\n" if table.note else "") + lines


def in_markdown(text: str) -> str:
    r"""A text as one line of Markdown that shows it as it is.

    >>> print(in_markdown("aunet_4 *new* `a|b` <i>\n0.31*"))
    aunet_4 \*new* \`a\|b\` \<i> 0.31*
    """
    return MARKS.sub(r"\\\g<0>", " ".join(text.split()))


def html(table: Table) -> str:
    """A section of a page that has the style of `sheet`."""

    def cells_of(row: Sequence[str], tag: str) -> str:
        kinds = ["" if i < table.names else ' class="number"' for i in range(len(row))]
        return "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in zip(kinds, row, strict=True))

    rows = []
    for i, row in enumerate(table.rows):
        new = ' class="group"' if i and table.names > 1 and row[0] != table.rows[i - 1][0] else ""
        rows.append(f"<tr{new}>{cells_of(row, 'td')}</tr>")
    note = f"<p>{escape(table.note)}</p>" if table.note else ""
    return (
        f'<section><h2>{escape(table.title)}</h2>{note}<div class="wide"><table><thead><tr>'
        f"{cells_of(table.header, 'th')}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>\n"
    )


def sheet() -> str:
    """The style of pages with tables and figures, to stand after that of the theme."""
    return resources.files("aunet.report").joinpath("tables.css").read_text(encoding="utf-8")


def latex(table: Table) -> str:
    """A table of LaTeX, with the rules of the package booktabs.

    >>> print(latex(Table("T", "", ("task", "a_b"), (("50%", "1"),), names=1)))
    \\begin{table}
    \\centering
    \\caption{T}
    \\begin{tabular}{lr}
    \\toprule
    task & a\\_b \\\\
    \\midrule
    50\\% & 1 \\\\
    \\bottomrule
    \\end{tabular}
    \\end{table}
    """
    head, *body = (" & ".join(map(_tex, row)) + r" \\" for row in (table.header, *table.rows))
    columns = "".join("l" if i < table.names else "r" for i in range(len(table.header)))
    caption = _tex(f"{table.title}. {table.note}" if table.note else table.title)
    begin = [r"\begin{table}", r"\centering", rf"\caption{{{caption}}}", rf"\begin{{tabular}}{{{columns}}}"]
    lines = [*begin, r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines)


def _tex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)


def view(table: Table) -> View:
    """For the terminal."""
    shown = View(title=escape_rich(table.title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    shown.caption, shown.caption_justify = escape_rich(table.note) or None, "left"
    for i, name in enumerate(table.header):
        shown.add_column(escape_rich(name), justify="left" if i < table.names else "right", overflow="fold")
    for row in table.rows:
        shown.add_row(*map(escape_rich, row))
    return shown

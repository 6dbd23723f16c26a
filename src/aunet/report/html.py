"""Pages that stand alone: one file each, nothing fetched, everything escaped, light and dark.

`passage_html` is what `aunet inspect --html` writes, `report_html` what `make demo` writes. A content security policy
in each page forbids it to load anything, so that a slip here could not reach the network either.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources

from aunet.bytes import to_bytes
from aunet.report import colours
from aunet.report.curve import Point, curve_svg
from aunet.report.passage import Character, Passage, visible
from aunet.report.theme import opening, theme

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class Comparison:
    """A system, and what the held-out text costs under it."""

    name: str
    bits_per_byte: float
    note: str = ""
    """How it was measured."""


@dataclass(frozen=True)
class Report:
    """What a run found, as plain data."""

    title: str
    facts: Sequence[tuple[str, str]]
    """Names and values, such as ("parameters", "1.9 M"): the run in numbers."""
    train_curve: Sequence[Point]
    """(bytes read, bits per byte of the training rows) of the steps."""
    valid_curve: Sequence[Point]
    """(bytes read, bits per byte of the held-out documents) of the validations."""
    comparison: Sequence[Comparison]
    """All systems on the same held-out text. The first is the model; the others are drawn into the curve as lines."""
    prompt: str
    sample: str
    """What the model wrote after the prompt."""
    passage: Passage
    rule: str
    """The splitting rule of the model."""
    summary: str = ""
    """A sentence below the title."""
    passage_note: str = "A passage that it has not seen in training"
    notes: Sequence[str] = ()
    """How it was measured, and how to repeat it."""


def report_html(report: Report) -> str:
    """The page of a run: the model in numbers, loss curve, comparison, sample, passage."""
    facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in report.facts)
    references = [(row.name, row.bits_per_byte) for row in report.comparison[1:]]
    summary = f'<p class="summary">{escape(report.summary)}</p>' if report.summary else ""
    notes = "".join(f"<p>{escape(note)}</p>" for note in report.notes)
    body = f"""<header>
<p class="kind">aunet: a language model that reads raw bytes</p>
<h1>{escape(report.title)}</h1>
{summary}
</header>
<dl class="facts">{facts}</dl>
<div class="columns results">
<section>
<h2>Learning curve<small>Bits per byte against bytes read</small></h2>
{curve_svg(report.train_curve, report.valid_curve, references)}
</section>
<section>
<h2>Held-out text<small>Bits per byte, lower is better</small></h2>
{_comparison(report.comparison)}
</section>
</div>
<section>
<h2>What it writes<small>The prompt is set off; the rest is the model's</small></h2>
<div class="sample"><b>{_escaped(report.prompt)}</b>{_escaped(report.sample)}</div>
</section>
<section>
<h2>How it reads<small>{escape(report.passage_note)}</small></h2>
{_passage(report.passage, report.rule)}
</section>
{f'<footer class="notes">{notes}</footer>' if notes else ""}"""
    return _page(report.title, body)


def passage_html(passage: Passage, rule: str, title: str = "A passage, byte by byte") -> str:
    """The page of a passage: its bits, and the units of each stage."""
    bits = passage.bits_per_byte
    size = f"{len(passage):,} bytes in {passage.stages} {'stage' if passage.stages == 1 else 'stages'}"
    summary = size + ("" if bits is None else f", {bits:.3f} bits per byte")
    body = f"""<header>
<p class="kind">aunet inspect</p>
<h1>{escape(title)}</h1>
<p class="summary">{escape(summary)}</p>
</header>
<section>
{_passage(passage, rule)}
</section>"""
    return _page(title, body)


def _page(title: str, body: str) -> str:
    files = resources.files("aunet.report")
    style = theme() + files.joinpath("page.css").read_text(encoding="utf-8") + _tones()
    script = files.joinpath("passage.js").read_text(encoding="utf-8")
    return f"""{opening(title, POLICY, style)}{body}
</main>
<script>
{script}</script>
</body>
</html>
"""


def _tones() -> str:
    """Rules for the tones of units (`.s2 .t0`) and of bits (`.h0`)."""
    hues = range(len(colours.UNITS_LIGHT))
    named = [(f".s{hue} .t{tone}", f"--unit-{hue}-{tone}") for hue in hues for tone in range(2)]
    named += [(f".h{step}", f"--bits-{step}") for step in range(len(colours.HEAT_LIGHT))]
    return "".join(f"{rule} {{ color: var({tone}-ink); background: var({tone}); }}\n" for rule, tone in named)


def _comparison(rows: Sequence[Comparison]) -> str:
    most = max((row.bits_per_byte for row in rows if math.isfinite(row.bits_per_byte)), default=1.0) or 1.0
    lines = []
    for k, row in enumerate(rows):
        share = min(row.bits_per_byte / most, 1.0) if math.isfinite(row.bits_per_byte) else 1.0
        note = f"<small>{escape(row.note)}</small>" if row.note else ""
        bar = f'<span class="bar" style="--share:{100 * share:.1f}%"></span>'
        name, kind = escape(row.name), "others" if k else "ours"
        cells = f'<th scope="row">{name}{bar}{note}</th><td>{row.bits_per_byte:.3f}</td>'
        lines.append(f'<tr class="{kind}">{cells}</tr>')
    head = '<thead><tr><th scope="col">system</th><th scope="col">bits per byte</th></tr></thead>'
    return f"<table>{head}<tbody>{''.join(lines)}</tbody></table>"


def _escaped(text: str) -> str:
    """Text in which everything can be seen: line breaks act, other control characters are shown."""
    valid = to_bytes(text).decode()
    return "".join(escape(character if character == "\n" else visible(character)) for character in valid)


def _passage(passage: Passage, rule: str) -> str:
    """The views of a passage side by side: its bits, and the units of each stage from the second on."""
    parts = rule.split("+") if rule else []
    views = [_bits_view(passage)] if passage.bits is not None or passage.stages == 1 else []
    views += [_units_view(passage, stage, parts) for stage in range(2, passage.stages + 1)]
    steps = "".join(f'<i class="h{step}">{label}</i>' for step, label in enumerate(colours.LABELS))
    legend = f'<div class="legend">bits of a character <span>{steps}</span></div>' if passage.bits is not None else ""
    hint = "Point at a character, or focus a text and use the arrow keys."
    return f"""<div class="passage">{legend}
<output class="readout">{hint}</output>
<div class="columns stages">
{"".join(views)}</div>
<script type="application/json">{_data(passage)}</script>
</div>"""


def _bits_view(passage: Passage) -> str:
    bits = passage.bits_per_byte
    cells = "".join(
        _cell(character, "" if (cost := passage.bits_of(character.start, character.end)) is None else _heat(cost))
        for character in passage.characters()
    )
    size = f"{len(passage):,} units" + ("" if bits is None else f", {bits:.3f} bits per byte")
    return _view("Stage 1: bytes", size, "", cells)


def _heat(bits: float) -> str:
    return f"h{colours.step(bits)}"


def _units_view(passage: Passage, stage: int, parts: Sequence[str]) -> str:
    units = []
    for k, unit in enumerate(passage.units(stage)):
        cells = "".join(_cell(character) for character in passage.characters(unit.start, unit.end))
        units.append(f'<u class="t{k % 2}{" open" if unit.open else ""}">{cells}</u>')
    name = f"Stage {stage}" + (f": {parts[stage - 2]}" if stage - 2 < len(parts) else "")
    size = f"{passage.closed(stage):,} units, {passage.contraction(stage):.2f} bytes per unit"
    return _view(name, size, f"s{(stage - 2) % len(colours.UNITS_LIGHT)}", "".join(units))


def _view(name: str, size: str, kind: str, cells: str) -> str:
    return (
        f"<section><h3>{escape(name)}<small>{escape(size)}</small></h3>"
        f'<div class="text {kind}" tabindex="0" role="group" aria-label="{escape(name)}">{cells}</div></section>\n'
    )


def _cell(character: Character, tone: str = "") -> str:
    """One character; `data-b` is its first byte and `data-n` the number of its bytes if not one."""
    size = character.end - character.start
    kind = " ".join(name for name in (tone, "" if character.text in (character.shown, "\n") else "escape") if name)
    marks = (f' data-n="{size}"' if size > 1 else "") + (f' class="{kind}"' if kind else "")
    line_break = "\n" if character.text == "\n" else ""
    return f'<i data-b="{character.start}"{marks}>{escape(character.shown)}{line_break}</i>'


def _data(passage: Passage) -> str:
    """What the script says of each byte. Bytes in hex digits: nothing in a text can end the element."""
    bits = None
    if passage.bits is not None:
        bits = [round(value, 3) if math.isfinite(value) else None for value in passage.bits.tolist()]
    values = {"hex": passage.data.hex(), "levels": passage.levels.tolist(), "bits": bits}
    return json.dumps(values, separators=(",", ":"))

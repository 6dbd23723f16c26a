"""`aunet split`: the units of a text under a splitting rule, without a model."""

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from aunet.data.formats import format_of
from aunet.errors import AUNetError
from aunet.report.passage import Passage
from aunet.report.terminal import render
from aunet.splitting import splitter


def read_input(file: str) -> bytes:
    """The bytes of a file, or of standard input for `-`; AUNetError for a file of many documents."""
    if format_of(file) not in (None, "text"):
        raise AUNetError(
            f"{file}: holds documents, not one text; pipe one to `aunet split -`, or measure all with "
            "`aunet info MODEL --text FILE`"
        )
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise AUNetError(f"{file}: {error.strerror}") from None


def show_units(data: bytes, rule: str, count: bool, as_json: bool, console: Console) -> None:
    """Print the units of each stage, or how many they are.

    `as_json`: one object, with levels and byte spans unless `count`. Raises ConfigError for an unknown rule.
    """
    found = splitter(rule)
    passage = Passage(data, found.levels(data), stages=found.depth + 1)
    if as_json:
        print(json.dumps(to_json(passage, rule, spans=not count)))
    elif count:
        console.print(table(passage, rule))
    else:
        console.print(render(passage, rule))


def to_json(passage: Passage, rule: str, spans: bool) -> dict[str, Any]:
    """As JSON values. `units` counts the complete ones; the last span may be an open one, which `open` says.

    `spans`: also the bytes [start, end) of each unit, and the level of each byte.
    """
    stages = []
    for stage, part in enumerate(_parts(rule), start=2):
        entry: dict[str, Any] = {
            "stage": stage,
            "rule": part,
            "units": passage.closed(stage),
            "bytes_per_unit": passage.contraction(stage),
        }
        if spans:
            units = passage.units(stage)
            entry["spans"] = [[unit.start, unit.end] for unit in units]
            entry["open"] = bool(units) and units[-1].open
        stages.append(entry)
    values: dict[str, Any] = {"rule": rule, "bytes": len(passage), "stages": stages}
    return {**values, "levels": passage.levels.tolist()} if spans else values


def _parts(rule: str) -> list[str]:
    """One rule per level; the empty rule has no level, hence no part."""
    return rule.split("+") if rule else []


def table(passage: Passage, rule: str) -> Table:
    """One row per stage."""
    view = Table(box=None, pad_edge=False)
    view.add_column("stage")
    view.add_column("rule")
    for column in ("units", "bytes per unit"):
        view.add_column(column, justify="right")
    view.add_row("1", "bytes", f"{len(passage):,}", f"{1:.2f}")
    for stage, part in enumerate(_parts(rule), start=2):
        view.add_row(str(stage), part, f"{passage.closed(stage):,}", f"{passage.contraction(stage):.2f}")
    return view

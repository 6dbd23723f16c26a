"""`aunet scale` in real processes on a directory of records; the documents of it."""

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aunet.cli import app
from aunet.scaling.records import write_record
from tests.runs import aunet, here
from tests.scaling.made_records import record

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("records")
    for i, compute in enumerate((1e13, 3e13, 1e14)):
        for family, better in (("ours", 0.98), ("theirs", 1.0)):
            name = f"{family}-{i}"
            made = record(name, better * (2.2 - 0.2 * i + 0.01 * (i % 2)), family=family, compute_flops=compute)
            write_record(directory / f"{name}.json", made)
    (directory / "older.json").write_text('{"family": "older"}')
    return directory


def test_fit_prints_a_table_or_json_and_names_what_it_skips(records: Path) -> None:
    result = aunet("scale", "fit", records, COLUMNS="40")
    assert result.returncode == 0, result.stderr
    rows = [line for line in result.stdout.splitlines() if "loss = a C^-b" in line]
    assert rows
    assert all(row.split()[-1].isdecimal() for row in rows), "each is one line to its last column, however narrow"
    assert "ours: 3 budgets tell no irreducible loss" in result.stdout
    assert (
        result.stderr
        == f"{records / 'older.json'}: skipped: it has no version, not 1, so it is no record that can be read here\n"
    )
    values = json.loads(here("scale", "fit", records, "--json", "--irreducible", "1").stdout)
    assert values["families"]["ours"]["loss"]["kind"] == "E + a C^-b, E given"


def test_plot_and_report_say_what_they_wrote(records: Path, tmp_path: Path) -> None:
    plotted = here("scale", "plot", records, "--out", tmp_path / "figures")
    assert plotted.returncode == 0, plotted.stderr
    assert plotted.stdout.split() == [str(tmp_path / "figures" / f"{name}.svg") for name in ("loss", "isoflop")]
    reported = here("scale", "report", records, "--out", tmp_path / "report", "--baseline", "theirs")
    assert reported.returncode == 0, reported.stderr
    assert reported.stdout.split() == [str(tmp_path / "report" / name) for name in ("report.html", "report.md")]
    assert "0.980 (0.980 to 0.980)" in (tmp_path / "report" / "report.md").read_text()
    one = here("scale", "report", records, "--out", tmp_path / "one", "--family", "our*")
    assert one.returncode == 0, one.stderr
    text = (tmp_path / "one" / "report.md").read_text()
    assert "| ours |" in text
    assert "theirs" not in text


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("fit", "absent"), "absent: no such file or directory"),
        (
            ("report", "RECORDS", "--out", "out", "--valid", "poems"),
            "--valid: no record was scored on 'poems'; known: valid",
        ),
        (("fit", "RECORDS", "--family", "mine"), "--family: no record is of family 'mine'; known: ours, theirs"),
        (("plot", "RECORDS", "--out", "/proc/figures"), "--out: /proc/figures cannot be written to"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = here("scale", *(str(records) if word == "RECORDS" else word for word in arguments))
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(f"aunet: error: {line}")
    assert "Traceback" not in result.stderr


def test_the_documents_name_options_that_exist() -> None:
    text = (ROOT / "docs" / "scaling.md").read_text()
    (block,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line)
        shown = CliRunner().invoke(app, [*words[1:3], "--help"], env={"COLUMNS": "200"}).output
        assert all(word in shown for word in words if word.startswith("--"))
    commands = ("plan", "sweep", "fit", "plot", "report")
    known = "".join(
        CliRunner().invoke(app, ["scale", name, "--help"], env={"COLUMNS": "200"}).output for name in commands
    )
    assert all(option in known for option in re.findall(r"`(--[a-z-]+)", text))

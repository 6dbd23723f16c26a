"""Scaling laws."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from aunet.cli.options import JsonOption
from aunet.cli.output import show

if TYPE_CHECKING:
    from aunet.scaling.records import Record

scale = typer.Typer(help="Scaling laws: sweeps, fits, figures, reports.", no_args_is_help=True)
RecordsArgument = Annotated[list[Path], typer.Argument(metavar="RECORDS", help="Record files and directories.")]
FamilyOption = Annotated[
    list[str] | None, typer.Option("--family", help="Only these families; may be repeated, * matches anything.")
]
TunedForOption = Annotated[str | None, typer.Option("--valid", help="The validation set; the records' first.")]


@scale.command()
def plan(
    family: Annotated[
        str, typer.Option(help="aunet-2, aunet-3, aunet-4, bytes, bpe, fixed-4, fixed-5, fixed-6, mamba.")
    ],
    compute: Annotated[float, typer.Option(help="FLOPs of the run.")],
    gamma: Annotated[float, typer.Option(help="Data-to-model ratio in Llama 3 tokens; the paper's: 10.")] = 10.0,
    seq_len: Annotated[int | None, typer.Option(min=2, help="Bytes of a row; grows with the budget to 8192.")] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="Files on which bytes per unit and token are measured.")
    ] = None,
    text_field: Annotated[str, typer.Option(help="Where the text is in jsonl and parquet.")] = "text",
    tokenizer: Annotated[Path | None, typer.Option(help="A tokenizer.json, for bpe.")] = None,
    records: Annotated[list[Path] | None, typer.Option(help="Records whose fitted laws replace the paper's.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write a configuration for aunet train, but for its data.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Widths, layers, steps, batch and learning rate for a budget; for memory and days on GPUs: aunet plan."""
    from aunet.data.problems import Problems
    from aunet.scaling.plan import fitted_laws, lines, make_scale_plan, row_length, table, write_run
    from aunet.scaling.text import measured

    problems = Problems()
    of_text = measured(seq_len or row_length(compute), text or (), tokenizer, text_field, problems)
    problems.tell(Console(stderr=True))
    laws = fitted_laws(_records(records), family) if records else None
    found = make_scale_plan(family, compute, gamma, of_text, laws)
    if out:
        write_run(found, out)
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        show(table(found))
        for line in lines(found):
            Console().print(line, highlight=False, markup=False, soft_wrap=True)


@scale.command()
def sweep(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML or JSON file, or a preset.")],
    lr: Annotated[tuple[float, float], typer.Option(metavar="LOW HIGH", help="Learning rates.")],
    batch: Annotated[tuple[float, float], typer.Option(metavar="LOW HIGH", help="Bytes (or tokens) per step.")],
    valid: Annotated[list[str], typer.Option(metavar="NAME=PATH", help="Validation sets; the first is tuned for.")],
    family: Annotated[str, typer.Option(help="What the records are compared as.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE")] = None,
    points: Annotated[int, typer.Option(help="Of the quasi-random sequence.")] = 8,
    study: Annotated[str | None, typer.Option(help="Name of the study and of its records; the family's.")] = None,
    storage: Annotated[str, typer.Option(help="sqlite:///FILE, postgresql://...; SQLite in train.out if none.")] = "",
    records: Annotated[Path, typer.Option(help="Directory of the records.")] = Path("experiments/records"),
    seed: Annotated[int, typer.Option(help="Of the points; that of the runs is train.seed.")] = 0,
    text_field: Annotated[str, typer.Option(help="Where the text is in validation sets.")] = "text",
    prune_above: Annotated[
        float | None, typer.Option(help="End a run whose loss at half of its steps is so far above the best.")
    ] = None,
    stale_after: Annotated[int, typer.Option(help="Seconds of silence after which a worker counts as dead.")] = 120,
    remove_checkpoints: Annotated[bool, typer.Option("--remove-checkpoints", help="Of runs that ended.")] = False,
) -> None:
    """Search learning rate and batch size; the same command resumes, and several at once share the work."""
    from aunet.presets import load_run
    from aunet.scaling.run import validation_sets
    from aunet.scaling.sweep import Sweep, run_sweep

    search = Sweep(
        config=load_run(config, overrides or []),
        family=family,
        study=study or family,
        lr=lr,
        batch=batch,
        points=points,
        valid=validation_sets(valid, text_field),
        records=records,
        storage=storage,
        seed=seed,
        prune_above=prune_above,
        stale_after=stale_after,
        remove_checkpoints=remove_checkpoints,
    )
    raise typer.Exit(run_sweep(search, Console()))


@scale.command()
def fit(
    records: RecordsArgument,
    family: FamilyOption = None,
    valid: TunedForOption = None,
    flops: Annotated[str, typer.Option(help="What C is: useful or paper FLOPs.")] = "useful",
    irreducible: Annotated[float | None, typer.Option(help="E of the loss laws, if it is known.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Laws of batch size, learning rate and loss, with 95% intervals."""
    from aunet.scaling.fit import fit_records, table

    found = fit_records(_records(records, family), valid, flops, irreducible)
    if as_json:
        print(json.dumps(found.to_json()))
        return
    show(table(found))
    for of in found.families:
        for note in of.notes:
            Console().print(f"{of.family}: {note}", highlight=False, markup=False, soft_wrap=True)


@scale.command()
def plot(
    records: RecordsArgument,
    out: Annotated[Path, typer.Option(help="Directory of the figures.")],
    family: FamilyOption = None,
    valid: TunedForOption = None,
) -> None:
    """Loss against compute, isoFLOP curves, learning rates and batch sizes, as SVG."""
    from aunet.report.figures import write
    from aunet.scaling.plots import draw
    from aunet.scaling.report import laws_if_any
    from aunet.scaling.selection import valid_set

    found = _records(records, family)
    name = valid_set(found, valid)
    for path in write(draw(found, name, laws_if_any(found, name)), out):
        print(path)


@scale.command("report")
def scale_report(
    records: RecordsArgument,
    out: Annotated[Path, typer.Option(help="Directory of the report.")],
    family: FamilyOption = None,
    valid: TunedForOption = None,
    baseline: Annotated[str | None, typer.Option(help="A family that the others are divided by.")] = None,
) -> None:
    """Tables and figures of all records: one HTML page that stands alone, and Markdown."""
    from aunet.scaling.report import write_report

    for path in write_report(_records(records, family), out, valid, baseline):
        print(path)


def _records(paths: list[Path], patterns: list[str] | None = None) -> "tuple[Record, ...]":
    from aunet.scaling.records import read_records
    from aunet.scaling.selection import of_families

    found = read_records(paths)
    for line in found.skipped:
        print(line, file=sys.stderr)
    return of_families(found.records, patterns or ())

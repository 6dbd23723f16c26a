"""Looking at models, texts and checkpoints."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from aunet.cli.options import DeviceOption, JsonOption, ModelArgument, given_bytes
from aunet.cli.output import show

convert = typer.Typer(help="Read checkpoints of other implementations.", no_args_is_help=True)


def inspect(
    model: ModelArgument,
    text: Annotated[str, typer.Argument(help="The text to look at; - reads standard input.")],
    html: Annotated[Path | None, typer.Option(help="Write a page instead.")] = None,
    device: DeviceOption = "cpu",
) -> None:
    """Show the units of every stage and the bits of every byte."""
    import aunet
    from aunet.report import inspection

    data = sys.stdin.buffer.read() if text == "-" else given_bytes(text)
    inspection.show(aunet.load(model, device=device), data, html, Console())


def info(
    target: Annotated[str, typer.Argument(metavar="MODEL|CONFIG|PRESET")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE")] = None,
    text: Annotated[Path | None, typer.Option(help="Measure the contraction on this file too.")] = None,
    text_field: Annotated[str, typer.Option(help="The field, or column, that holds the text in it.")] = "text",
    as_json: JsonOption = False,
) -> None:
    """Parameters, FLOPs per byte, contraction and memory by stage, without allocating the weights."""
    from aunet.data.problems import Problems
    from aunet.info import describe_target, table

    problems = Problems()
    accounting = describe_target(target, overrides or [], text, text_field, problems)
    problems.tell(Console(stderr=True))
    if as_json:
        print(json.dumps(accounting.to_json()))
    else:
        show(table(accounting))


def split(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="One text, or - for standard input.")],
    rule: Annotated[str, typer.Option(help="word1, word1+word2, pretok, fixed-4, ...")] = "word1",
    count: Annotated[bool, typer.Option("--count", help="Only count the units.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show or count the units of a text."""
    from aunet.report.units import read_input, show_units

    show_units(read_input(file), rule, count, as_json, Console())


@convert.command()
def lingua(
    weights: Annotated[Path, typer.Argument(help="Safetensors, or a .pth read by torch's weights-only loader.")],
    config: Annotated[Path, typer.Argument(help="The reference's configuration, JSON or YAML.")],
    out: Annotated[Path, typer.Argument(help="The model directory to write.")],
) -> None:
    """Convert a checkpoint of the reference AU-Net (Meta Lingua)."""
    from aunet.model.convert import convert_lingua

    Console().print(convert_lingua(weights, config, out), highlight=False, markup=False, soft_wrap=True)

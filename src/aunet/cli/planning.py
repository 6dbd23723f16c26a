"""Runs on hardware that is not here."""

import json
from typing import Annotated

import typer
from rich.console import Console

from aunet.cli.options import JsonOption
from aunet.cli.output import show


def plan(
    target: Annotated[str, typer.Argument(metavar="CONFIG|PRESET")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE")] = None,
    gpus: Annotated[int, typer.Option(min=1, help="How many.")] = 1,
    gpu: Annotated[str, typer.Option(help="A100-40, A100, H100, H200, B200, L4, L40S, RTX4090, cpu.")] = "H100",
    per_node: Annotated[int, typer.Option(min=1, help="GPUs of one machine.")] = 8,
    mfu: Annotated[float | None, typer.Option(help="Useful FLOPs as a share of the GPU's rate.")] = None,
    network: Annotated[float | None, typer.Option(min=0.1, help="GB/s between machines, for each GPU.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Memory, exchanges and days of a run on GPUs; for shapes by a budget of FLOPs: aunet scale plan."""
    from aunet.planning.prediction import predict
    from aunet.planning.table import lines, table
    from aunet.presets import load_run

    config = load_run(target, overrides or [])
    found = predict(config, gpus, gpu, per_node, mfu, None if network is None else network * 1e9)
    if as_json:
        print(json.dumps(found.to_json()))
        return
    show(table(found))
    for line in lines(found):
        Console().print(line, highlight=False, markup=False, soft_wrap=True)

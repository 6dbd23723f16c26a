"""The `aunet` command: options and output; the work is done elsewhere.

A module for each group of commands, and what they need is imported when one is run: the help is there at once.
"""

import platform
from collections.abc import Callable
from importlib import metadata
from typing import Annotated, NoReturn

import typer

from aunet import __version__
from aunet.cli.evaluation import compare, evaluate
from aunet.cli.looking import convert, info, inspect, split
from aunet.cli.planning import plan
from aunet.cli.scaling import scale
from aunet.cli.training import demo, export, tokenizer, train
from aunet.cli.writing import bench, generate, serve
from aunet.process import run

COMMANDS: dict[str, Callable[..., None]] = {
    "train": train,
    "export": export,
    "demo": demo,
    "generate": generate,
    "eval": evaluate,
    "compare": compare,
    "inspect": inspect,
    "info": info,
    "plan": plan,
    "split": split,
    "serve": serve,
}
GROUPS: dict[str, typer.Typer] = {"convert": convert, "tokenizer": tokenizer, "bench": bench, "scale": scale}

app = typer.Typer(
    name="aunet",
    help="Autoregressive U-Nets: language models that read raw bytes and build their own units.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(asked: bool) -> None:
    """What a report of a fault needs, in one line, without the seconds that importing torch takes."""
    if asked:
        print(f"aunet {__version__}, torch {metadata.version('torch')}, Python {platform.python_version()}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the versions and exit.")
    ] = False,
) -> None: ...


for _name, _command in COMMANDS.items():
    app.command(_name)(_command)
for _name, _group in GROUPS.items():
    app.add_typer(_group, name=_name)


def main() -> NoReturn:
    """Entry point."""
    run(app)

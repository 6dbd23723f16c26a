"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="A model directory, such as train.out of a run.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, mps.")]
WeightsOption = Annotated[str, typer.Option(help="fp32, bf16, or int8 (needs torchao).")]
NativeOption = Annotated[
    bool | None,
    typer.Option("--native/--no-native", help="Kernels built by this machine's C++ compiler; if it has one."),
]


def given_bytes(text: str) -> bytes:
    """The bytes that were given on the command line, which need not be UTF-8."""
    return text.encode("utf-8", "surrogateescape")

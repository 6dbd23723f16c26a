"""Training models and tokenizers."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from aunet.cli.options import JsonOption
from aunet.cli.output import show
from aunet.errors import ConfigError

tokenizer = typer.Typer(help="Tokenizers, for models over tokens.", no_args_is_help=True)


def train(
    config: Annotated[str | None, typer.Argument(metavar="CONFIG", help="A YAML or JSON file, or a preset.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE")] = None,
    list_presets: Annotated[bool, typer.Option("--list", help="Name the presets.")] = False,
    processes: Annotated[int, typer.Option(min=1, help="Processes on this machine that train together.")] = 1,
    restarts: Annotated[int, typer.Option(min=0, help="Times that all start again when one has died.")] = 0,
) -> None:
    """Train on any text; the same command again resumes."""
    from aunet import presets

    if list_presets:
        show(presets.table())
        return
    if config is None:
        raise ConfigError("name a configuration or a preset; aunet train --list shows the presets")
    run = presets.load_run(config, overrides or [])
    if processes > 1 or restarts:
        from aunet.train.distributed import Ranks, check
        from aunet.train.launch import launch
        from aunet.train.plan import make_plan

        check(run, Ranks(count=processes), make_plan(run).rows_per_step)  # once, and not by each of them
        raise typer.Exit(launch(["train", config, *(overrides or [])], processes, restarts))
    from aunet.evals.bpb import make_validate
    from aunet.train.run import run_training

    finished = run_training(run, make_validate, Console())
    raise typer.Exit(finished.exit_code)


def export(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT_OR_RUN", help="A run, where its checkpoints are, or one; also a URL.")
    ],
    step: Annotated[int | None, typer.Option(help="Of which step; without, the newest that is whole.")] = None,
    out: Annotated[Path | None, typer.Option(help="The model directory to write; without, model-step-N here.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make the model directory of a checkpoint."""
    from aunet.train import export as work

    errors = Console(stderr=True)
    done = work.export(
        checkpoint, step, out, lambda text: errors.print(text, highlight=False, markup=False, soft_wrap=True)
    )
    if as_json:
        print(json.dumps({"source": done.source, "step": done.step, "out": str(done.out)}))
    else:
        text = f"{done.out}: the model after step {done.step}, from {done.source}"
        Console().print(text, highlight=False, markup=False, soft_wrap=True)


def demo(
    out: Annotated[Path, typer.Option(help="Directory of the text, the model and the report.")] = Path("demo"),
    seconds: Annotated[float, typer.Option(help="Training time at most.")] = 240.0,
) -> None:
    """Train a small AU-Net on this machine's own documentation, measure it, and write a report."""
    from aunet.demo import run_demo

    raise typer.Exit(run_demo(out, seconds, Console()))


@tokenizer.command("train")
def train_bpe(
    files: Annotated[list[str], typer.Argument(metavar="FILES", help="Training text: txt, jsonl(.gz, .zst), parquet.")],
    vocab_size: Annotated[int, typer.Option(help="Tokens; a model of them has two ids more, BOS and EOS.")],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("tokenizer.json"),
    text_field: Annotated[str, typer.Option(help="Where the text is in jsonl and parquet.")] = "text",
    max_bytes: Annotated[float | None, typer.Option(help="Read so much, equally from all FILES; all if none.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Learn a byte-level BPE from a text."""
    from aunet.tokenizer import train_file

    trained = train_file(files, vocab_size, out, text_field, max_bytes, Console(stderr=True))
    if as_json:
        print(json.dumps(trained.to_json()))
    else:
        Console().print(trained.line(), highlight=False, markup=False, soft_wrap=True)

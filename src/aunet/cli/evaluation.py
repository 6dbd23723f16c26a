"""Scores of models on texts and tasks, and models side by side."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from aunet.cli.options import DeviceOption, JsonOption, ModelArgument, WeightsOption
from aunet.cli.output import show
from aunet.errors import ConfigError

OF_TASKS = ("task_option", "data_dir", "cache", "limit", "fewshot", "seed", "batch")
"""Options that say nothing of FILES."""


def evaluate(
    context: typer.Context,
    model: ModelArgument,
    files: Annotated[list[str] | None, typer.Argument(metavar="FILES", help="txt, jsonl(.gz, .zst), parquet.")] = None,
    text_field: Annotated[str, typer.Option(help="Where the text is in jsonl and parquet.")] = "text",
    tasks: Annotated[str, typer.Option(metavar="A,B,...", help="Score on these tasks instead of on FILES.")] = "",
    data_dir: Annotated[
        Path | None, typer.Option(help="Data of the tasks, DIR/<task>/...; from the Hugging Face hub if none.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="The first examples of each task only.")] = None,
    fewshot: Annotated[int | None, typer.Option(help="Examples in the prompt; as the task has it.")] = None,
    task_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK.KEY=VALUE",
            help="Of flores: languages, pivot, tokenizer, max_bytes; of noise: rates, kinds, max_bytes, text_field. "
            "Lists with commas: flores.languages=fra_Latn,deu_Latn. May be given again.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the examples in the prompt and of the intervals.")] = 0,
    cache: Annotated[Path | None, typer.Option(help="A file that remembers answers: a run can be continued.")] = None,
    batch: Annotated[int, typer.Option(help="Texts that are read side by side; changes no score.")] = 64,
    device: DeviceOption = "cpu",
    weights: WeightsOption = "fp32",
    as_json: JsonOption = False,
) -> None:
    """Bits per byte of whole documents, per file and in total; or scores on tasks, with 95% intervals."""
    import aunet

    if bool(files) == bool(tasks):
        raise ConfigError("eval: name either FILES or --tasks, for instance --tasks hellaswag,arc_easy")
    given = [name for name in context.params if _on_the_command_line(context, name)]
    for name in () if tasks else given:
        if name in OF_TASKS:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{flag}: is of --tasks; name the task, for instance --tasks flores")
    if tasks and "text_field" in given:
        raise ConfigError("--text-field: is of FILES; the task noise has --task-option noise.text_field=NAME")
    if tasks:
        from aunet.evals.answers import Answers, ModelAnswers
        from aunet.evals.cache import CachedAnswers, model_digest
        from aunet.evals.options import TaskOptions
        from aunet.evals.shown import ShownAnswers
        from aunet.evals.tasks import choose, options_of, run_tasks
        from aunet.evals.tasks import table as tasks_table

        names, options = choose(tasks.split(",")), TaskOptions(data_dir, limit, fewshot, seed)
        own = options_of(names, options, task_option or ())
        answers: Answers = ModelAnswers(aunet.load(model, device, weights).session(), batch)
        digest = model_digest(model, weights)
        if cache:
            answers = CachedAnswers(answers, cache, digest)
        console = Console(stderr=True)
        results = run_tasks(names, ShownAnswers(answers, console), options, own)
        options.problems.tell(console)
        if as_json:
            # Results are published, so they name the model and tell it by its files, and not by a path of this machine.
            of = {"model": model.resolve().name, "digest": digest}
            print(json.dumps({**of, "results": [result.to_json() for result in results]}))
        else:
            show(tasks_table(results))
        return
    from aunet.evals.files import score_files, table

    scores = score_files(aunet.load(model, device, weights).session(), files or [], text_field, Console(stderr=True))
    if as_json:
        print(json.dumps(scores.to_json()))
    else:
        show(table(scores))


def _on_the_command_line(context: typer.Context, name: str) -> bool:
    """Whether an option was given, be it at its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def compare(
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS", help="What eval --tasks --json wrote.")],
    out: Annotated[Path | None, typer.Option(help="Write Markdown, HTML, LaTeX and a figure here.")] = None,
) -> None:
    """Models on tasks side by side, with intervals and differences to the last one."""
    from aunet.evals.compare import read_results
    from aunet.report import comparison
    from aunet.report.tables import view

    found = read_results(results)
    for table in comparison.tables(found):
        show(view(table))
    if out:
        for path in comparison.write_comparison(found, out):
            print(path)

"""The `aunet` command: options and output; the work is done elsewhere."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from aunet.errors import AUNetError, ConfigError

if TYPE_CHECKING:
    from aunet.scaling.records import Record

app = typer.Typer(
    name="aunet",
    help="Autoregressive U-Nets: language models that read raw bytes and build their own units.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
convert_app = typer.Typer(help="Read checkpoints of other implementations.", no_args_is_help=True)
app.add_typer(convert_app, name="convert")
tokenizer_app = typer.Typer(help="Tokenizers, for models over tokens.", no_args_is_help=True)
app.add_typer(tokenizer_app, name="tokenizer")
bench_app = typer.Typer(help="Measure speed on this machine.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")
scale_app = typer.Typer(help="Scaling laws: sweeps, fits, figures, reports.", no_args_is_help=True)
app.add_typer(scale_app, name="scale")

ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="A model directory, such as train.out of a run.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, mps.")]
WeightsOption = Annotated[str, typer.Option(help="fp32, bf16, or int8 (needs torchao).")]
NativeOption = Annotated[
    bool | None,
    typer.Option("--native/--no-native", help="Kernels built by this machine's C++ compiler; if it has one."),
]


def main() -> NoReturn:
    """Entry point."""
    run(app)


def run(command: Callable[[], object]) -> NoReturn:
    """Run to the end of the process: an AUNetError is one line on stderr, never a traceback."""
    try:
        command()
    except AUNetError as error:
        for line in str(error).splitlines():
            print(f"aunet: error: {line}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


@app.command()
def train(
    config: Annotated[str | None, typer.Argument(metavar="CONFIG", help="A YAML or JSON file, or a preset.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    list_presets: Annotated[bool, typer.Option("--list", help="Name the presets.")] = False,
) -> None:
    """Train on any text; the same command again resumes."""
    from aunet import presets

    console = Console()
    if list_presets:
        console.print(presets.table())
        return
    if config is None:
        raise ConfigError("name a configuration or a preset; aunet train --list shows the presets")
    from aunet.evals.bpb import make_validate
    from aunet.train.run import run_training

    finished = run_training(presets.load_run(config, overrides or []), make_validate, console)
    raise typer.Exit(finished.exit_code)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Directory of the text, the model and the report.")] = Path("demo"),
    seconds: Annotated[float, typer.Option(help="Training time at most.")] = 240.0,
) -> None:
    """Train a small AU-Net on this machine's own documentation, measure it, and write a report."""
    from aunet.demo import run_demo

    raise typer.Exit(run_demo(out, seconds, Console()))


@app.command()
def generate(
    model: ModelArgument,
    prompt: Annotated[str, typer.Option(help="Text to continue.")] = "",
    max_bytes: Annotated[int, typer.Option(help="New bytes at most.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest byte.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="Sample among the k likeliest bytes.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Sample among the likeliest bytes of this total.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; may be given again.")] = None,
    device: DeviceOption = "cpu",
    weights: WeightsOption = "fp32",
    native: NativeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Continue a prompt, as valid UTF-8 that streams as it comes."""
    import aunet

    data, stops = _argument(prompt), [_argument(one) for one in stop or ()]
    shown = data.decode(errors="replace")
    loaded = aunet.load(model, device, weights, native)
    events = loaded.stream(
        data, max_bytes=max_bytes, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, stop=stops
    )
    if as_json:
        from aunet.infer.generate import collect

        (result,) = collect(events)
        print(json.dumps({"prompt": shown, **result.to_json(), "seed": seed}, ensure_ascii=False))
        return
    sys.stdout.write(shown)
    for event in events:
        sys.stdout.write(event.text)
        sys.stdout.flush()
    sys.stdout.write("\n")


@app.command("eval")
def evaluate(
    model: ModelArgument,
    files: Annotated[
        list[str] | None, typer.Argument(metavar="[FILES]...", help="txt, jsonl(.gz, .zst), parquet.")
    ] = None,
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
    if task_option and not tasks:
        raise ConfigError("--task-option: is of --tasks; name the task, for instance --tasks flores")
    if tasks:
        from aunet.evals.answers import Answers, ModelAnswers
        from aunet.evals.cache import CachedAnswers, model_digest
        from aunet.evals.options import TaskOptions
        from aunet.evals.shown import ShownAnswers
        from aunet.evals.tasks import options_of, run_tasks
        from aunet.evals.tasks import table as tasks_table

        names, options = tasks.split(","), TaskOptions(data_dir, limit, fewshot, seed)
        own = options_of(names, options, task_option or ())
        answers: Answers = ModelAnswers(aunet.load(model, device, weights).session(), batch)
        if cache:
            answers = CachedAnswers(answers, cache, model_digest(model, weights))
        results = run_tasks(names, ShownAnswers(answers, Console(stderr=True)), options, own)
        if as_json:
            print(json.dumps({"model": str(model), "results": [result.to_json() for result in results]}))
        else:
            Console().print(tasks_table(results))
        return
    from aunet.evals.files import score_files, table

    scores = score_files(aunet.load(model, device, weights).session(), files or [], text_field, Console(stderr=True))
    if as_json:
        print(json.dumps(scores.to_json()))
    else:
        Console().print(table(scores))


@app.command("compare")
def compare_models(
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS...", help="What eval --tasks --json wrote.")],
    out: Annotated[Path | None, typer.Option(help="Write Markdown, HTML, LaTeX and a figure here.")] = None,
) -> None:
    """Models on tasks side by side, with intervals and differences to the last one."""
    from aunet.evals.compare import read_results
    from aunet.report import comparison
    from aunet.report.tables import view

    found = read_results(results)
    for table in comparison.tables(found):
        Console().print(view(table))
    if out:
        for path in comparison.write_comparison(found, out):
            print(path)


@app.command()
def inspect(
    model: ModelArgument,
    text: Annotated[str, typer.Argument(help="The text to look at; - reads standard input.")],
    html: Annotated[Path | None, typer.Option(help="Write a page instead.")] = None,
    device: DeviceOption = "cpu",
) -> None:
    """Show the units of every stage and the bits of every byte."""
    import aunet
    from aunet.report import inspection

    data = sys.stdin.buffer.read() if text == "-" else _argument(text)
    inspection.show(aunet.load(model, device=device), data, html, Console())


@app.command()
def info(
    target: Annotated[str, typer.Argument(metavar="MODEL|CONFIG|PRESET")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    text: Annotated[Path | None, typer.Option(help="Measure the contraction on this text too.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Parameters, FLOPs per byte, contraction and memory by stage, without allocating the weights."""
    from aunet.info import describe_target, table

    accounting = describe_target(target, overrides or [], text)
    if as_json:
        print(json.dumps(accounting.to_json()))
    else:
        Console().print(table(accounting))


@app.command()
def split(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="A file, or - for standard input.")],
    rule: Annotated[str, typer.Option(help="word1, word1+word2, pretok, fixed-4, ...")] = "word1",
    count: Annotated[bool, typer.Option("--count", help="Only count the units.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show or count the units of a text."""
    from aunet.report.units import read_input, show_units

    show_units(read_input(file), rule, count, as_json, Console())


@app.command()
def serve(
    model: ModelArgument,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0: every network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free port.")] = 8000,
    name: Annotated[str | None, typer.Option(help="What clients call the model; its directory by default.")] = None,
    device: DeviceOption = "cpu",
    weights: WeightsOption = "fp32",
    native: NativeOption = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="AUNET_API_KEY", help="Asked for by everything under /v1.")
    ] = None,
    slots: Annotated[int, typer.Option(help="Texts written at the same time.")] = 64,
    queue: Annotated[int, typer.Option(help="Texts that may wait; the next is refused (429).")] = 256,
    max_prompt_bytes: Annotated[int, typer.Option(help="Of all prompts of a request.")] = 65_536,
    max_new_bytes: Annotated[int, typer.Option(help="Of a text.")] = 4_096,
    max_scored_bytes: Annotated[int, typer.Option(help="Of a request with log-probabilities.")] = 16_384,
    max_seconds: Annotated[float, typer.Option(help="Of a request.")] = 120.0,
    drain_seconds: Annotated[float, typer.Option(help="For running requests after SIGTERM or SIGINT.")] = 10.0,
) -> None:
    """Serve a model: OpenAI's interface, a page to try it, metrics."""
    import aunet
    from aunet.serve.run import run_server
    from aunet.serve.settings import Settings

    settings = Settings(
        slots, queue, max_prompt_bytes, max_new_bytes, max_scored_bytes, max_seconds, drain_seconds, api_key
    )
    run_server(aunet.load(model, device, weights, native), name or model.resolve().name, host, port, settings)


@convert_app.command()
def lingua(
    weights: Annotated[Path, typer.Argument(help="Safetensors, or a .pth read by torch's weights-only loader.")],
    config: Annotated[Path, typer.Argument(help="The reference's configuration, JSON or YAML.")],
    out: Annotated[Path, typer.Argument(help="The model directory to write.")],
) -> None:
    """Convert a checkpoint of the reference AU-Net (Meta Lingua)."""
    from aunet.model.convert import convert_lingua

    Console().print(convert_lingua(weights, config, out), highlight=False, soft_wrap=True)


@tokenizer_app.command("train")
def train_bpe(
    files: Annotated[
        list[str], typer.Argument(metavar="FILES...", help="Training text: txt, jsonl(.gz, .zst), parquet.")
    ],
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


@bench_app.command()
def decode(
    model: Annotated[
        Path | None, typer.Argument(metavar="[MODEL]", help="aunet2-23m of random weights if none.")
    ] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Sequences at a time; may be given again. [1 and 8]")] = None,
    prompt_bytes: Annotated[int, typer.Option(min=1)] = 200,
    new_bytes: Annotated[int, typer.Option(min=2)] = 256,
    repetitions: Annotated[int, typer.Option(min=1)] = 5,
    text: Annotated[list[str] | None, typer.Option(help="Files to write along; this machine's documentation.")] = None,
    guesses: Annotated[int, typer.Option(min=0, help="Guess so many bytes at a time, from other parts of it.")] = 0,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    device: DeviceOption = "cpu",
    weights: WeightsOption = "fp32",
    native: NativeOption = None,
    as_json: JsonOption = False,
) -> None:
    """First byte and bytes per second, alone and in a batch, along real text."""
    import torch

    from aunet.bench import decode as bench
    from aunet.language_model import LanguageModel
    from aunet.presets import load_run

    torch.set_num_threads(threads)
    if model is None:
        loaded = LanguageModel.random(load_run("aunet2-23m", []).model, device=device, weights=weights, native=native)
    else:
        loaded = LanguageModel.load(model, device, weights, native)
    batches = batch or [1, 8]
    if min(batches) < 1:
        raise ConfigError(f"--batch: {min(batches)} is not at least 1")
    data = bench.text_of(text or [])
    found, peaks = bench.measure(loaded, data, batches, prompt_bytes, new_bytes, repetitions, guesses)
    values = bench.to_json(found, peaks, loaded, prompt_bytes, new_bytes)
    if as_json:
        print(json.dumps(values))
    else:
        Console().print(bench.table(values, batches))


@scale_app.command()
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
    """Widths, layers, steps, batch and learning rate for a budget."""
    from aunet.scaling.plan import fitted_laws, lines, make_scale_plan, row_length, table, write_run
    from aunet.scaling.text import measured

    of_text = measured(seq_len or row_length(compute), text or (), tokenizer, text_field)
    laws = fitted_laws(_records(records), family) if records else None
    found = make_scale_plan(family, compute, gamma, of_text, laws)
    if out:
        write_run(found, out)
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        Console().print(table(found))
        for line in lines(found):
            Console().print(line, highlight=False, markup=False, soft_wrap=True)


@scale_app.command()
def sweep(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML or JSON file, or a preset.")],
    lr: Annotated[tuple[float, float], typer.Option(metavar="LOW HIGH", help="Learning rates.")],
    batch: Annotated[tuple[float, float], typer.Option(metavar="LOW HIGH", help="Bytes (or tokens) per step.")],
    valid: Annotated[list[str], typer.Option(metavar="NAME=PATH", help="Validation sets; the first is tuned for.")],
    family: Annotated[str, typer.Option(help="What the records are compared as.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
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
    from aunet.config import SourceConfig
    from aunet.presets import load_run
    from aunet.scaling.sweep import Sweep, run_sweep

    sets = {name: SourceConfig(path=path, text_field=text_field) for name, path in map(_named, valid)}
    search = Sweep(
        config=load_run(config, overrides or []),
        family=family,
        study=study or family,
        lr=lr,
        batch=batch,
        points=points,
        valid=sets,
        records=records,
        storage=storage,
        seed=seed,
        prune_above=prune_above,
        stale_after=stale_after,
        remove_checkpoints=remove_checkpoints,
    )
    raise typer.Exit(run_sweep(search, Console()))


RecordsArgument = Annotated[list[Path], typer.Argument(metavar="RECORDS...", help="Record files and directories.")]
TunedForOption = Annotated[str | None, typer.Option("--valid", help="The validation set; the records' first.")]


@scale_app.command()
def fit(
    records: RecordsArgument,
    valid: TunedForOption = None,
    flops: Annotated[str, typer.Option(help="What C is: useful or paper FLOPs.")] = "useful",
    irreducible: Annotated[float | None, typer.Option(help="E of the loss laws, if it is known.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Laws of batch size, learning rate and loss, with 95% intervals."""
    from aunet.scaling.fit import fit_records, table

    found = fit_records(_records(records), valid, flops, irreducible)
    if as_json:
        print(json.dumps(found.to_json()))
        return
    Console().print(table(found))
    for of in found.families:
        for note in of.notes:
            Console().print(f"{of.family}: {note}", highlight=False, markup=False, soft_wrap=True)


@scale_app.command()
def plot(
    records: RecordsArgument,
    out: Annotated[Path, typer.Option(help="Directory of the figures.")],
    valid: TunedForOption = None,
) -> None:
    """Loss against compute, isoFLOP curves, learning rates and batch sizes, as SVG."""
    from aunet.report.figures import write
    from aunet.scaling.plots import draw
    from aunet.scaling.report import laws_if_any
    from aunet.scaling.selection import valid_set

    found = _records(records)
    name = valid_set(found, valid)
    for path in write(draw(found, name, laws_if_any(found, name)), out):
        print(path)


@scale_app.command("report")
def scale_report(
    records: RecordsArgument,
    out: Annotated[Path, typer.Option(help="Directory of the report.")],
    valid: TunedForOption = None,
    baseline: Annotated[str | None, typer.Option(help="A family that the others are divided by.")] = None,
) -> None:
    """Tables and figures of all records: one HTML page that stands alone, and Markdown."""
    from aunet.scaling.report import write_report

    for path in write_report(_records(records), out, valid, baseline):
        print(path)


def _records(paths: list[Path]) -> "tuple[Record, ...]":
    from aunet.scaling.records import read_records

    found = read_records(paths)
    for line in found.skipped:
        print(line, file=sys.stderr)
    return found.records


def _named(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise ConfigError(f"--valid: {text!r} is not NAME=PATH; write for instance valid=texts/valid.jsonl")
    return name, path


def _argument(text: str) -> bytes:
    """The bytes that were given on the command line, which need not be UTF-8."""
    return text.encode("utf-8", "surrogateescape")

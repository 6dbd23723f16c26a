"""`make demo`: train on the text that Python carries, measure, sample, and write one page that shows it."""

import json
import math
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

import aunet
from aunet import corpus
from aunet.config import RunConfig
from aunet.data.loader import Loader
from aunet.errors import AUNetError, ConfigError
from aunet.evals.bpb import make_validate
from aunet.evals.compressors import gzip_bits_per_byte, xz_bits_per_byte, xz_conditional
from aunet.files import make_directory, replacing
from aunet.language_model import LanguageModel
from aunet.presets import load_run
from aunet.report.html import Comparison, Report, report_html
from aunet.report.passage import Passage
from aunet.splitting import splitter
from aunet.train import checkpoint, metrics
from aunet.train.loop import Trainer
from aunet.train.plan import make_plan
from aunet.train.run import run_training
from aunet.train.runtime import prepare_device
from aunet.train.storage import open_storage

PROMPT = "The function returns "
SAMPLE_BYTES, PASSAGE_BYTES = 400, 900
MARGIN = 0.93
"""Share of the time that the steps are planned to take; the rest is for validation, checkpoints and a busy machine."""


def run_demo(out: Path, seconds: float, console: Console) -> int:
    """Everything, into `out`; returns the exit code. Started again, it goes on where it was."""
    if not 0 < seconds < math.inf:
        raise ConfigError(f"--seconds: {seconds:g} is no time to train in; give a number above 0")
    make_directory(out, "--out")
    train_path, valid_path = corpus.write(out)
    config = _configured(out, train_path, valid_path, seconds, console)
    finished = run_training(config, make_validate, console, seconds)
    if finished.exit_code:
        return finished.exit_code
    model = aunet.load(config.train.out)
    report = measure(model, config, console)
    path = out / "report.html"
    with replacing(path) as partial:
        partial.write_text(report_html(report), encoding="utf-8")
    _print(report, console)
    model_line = f"model:  {config.train.out}  (aunet generate {config.train.out} --prompt ...)"
    console.print(f"\nreport: {path}\n{model_line}", markup=False)
    return 0


def _configured(out: Path, train: Path, valid: Path, seconds: float, console: Console) -> RunConfig:
    """The preset on this text, with as many steps as this machine does in the time."""
    overrides = [
        f"data.sources={json.dumps([{'path': str(train)}])}",
        f"data.valid={json.dumps([{'path': str(valid)}])}",
        "data.valid_bytes=30000",
        f"train.out={json.dumps(str(out / 'model'))}",
    ]
    config = load_run("demo", overrides)
    found = checkpoint.newest(open_storage(config.train), console.print)
    if found:  # the number of steps belongs to the run
        return load_run("demo", [*overrides, f"train.steps={found.state['config']['train']['steps']}"])
    steps = min(make_plan(config).steps, max(20, int(MARGIN * seconds / _seconds_per_step(config))))
    return load_run("demo", [*overrides, f"train.steps={steps}"])


def _seconds_per_step(config: RunConfig) -> float:
    """Measured on a few steps of a model that is thrown away."""
    with Loader(config.data, splitter(config.model.splitter)) as loader:
        trainer = Trainer(config, make_plan(config), loader, prepare_device(config.train))
        for _ in range(3):
            trainer.train_step()
        started, steps = time.perf_counter(), 0
        while steps < 5 or time.perf_counter() - started < 1.0:
            trainer.train_step()
            steps += 1
        return (time.perf_counter() - started) / steps


def measure(model: LanguageModel, config: RunConfig, console: Console) -> Report:
    """Bits per byte beside the compressors, a sample, and a passage of the held-out text with the bits of its bytes."""
    from aunet.data.sources import documents

    valid, train = (list(documents(source)) for source in (config.data.valid[0], config.data.sources[0]))
    with console.status("measuring on the held-out text, beside gzip and xz"):
        ours = model.bits_per_byte(valid)
        joined, before = b"\n\n".join(valid), b"\n\n".join(train)
        rows = [
            Comparison("AU-Net", ours, "whole documents with their ends, nothing kept from one to the next"),
            Comparison(
                "xz after the training text", xz_conditional(before, joined), "xz(train + held-out) - xz(train)"
            ),
            Comparison("xz -9e", xz_bits_per_byte(joined), "all documents as one stream"),
            Comparison("gzip -9", gzip_bits_per_byte(joined), "all documents as one stream"),
        ]
    with console.status("generating"):
        sample = model.generate(PROMPT, max_bytes=SAMPLE_BYTES, temperature=0.7, seed=1)
    shown = next((text for text in valid if len(text) > PASSAGE_BYTES), valid[0])
    end = shown.rfind(b" ", 0, PASSAGE_BYTES) + 1 or len(shown)
    lines = metrics.read(Path(config.train.out) / metrics.FILE)
    steps = [line for line in lines if "loss" in line]
    bytes_at = {line["step"]: line["bytes"] for line in steps}
    if not steps:
        raise AUNetError(f"{config.train.out}: {metrics.FILE} has no steps; remove the directory and start again")
    last = steps[-1]
    plan = make_plan(config)
    return Report(
        title=f"An AU-Net trained in {last['seconds'] / 60:.1f} minutes on raw bytes",
        facts=[
            ("stages", " → ".join(f"{stage.dim} wide" for stage in config.model.stages)),
            ("splitter", config.model.splitter),
            ("parameters", f"{sum(p.numel() for p in model.network.parameters()):,}"),
            ("text read", f"{last['bytes'] / 1e6:.1f} MB ({last['bytes'] / len(before):.1f} epochs)"),
            ("speed", f"{last['bytes_per_second']:,.0f} bytes/s"),
            ("compute", f"{last['bytes'] * plan.flops_per_byte:.2g} paper FLOPs"),
            ("bytes per word unit", f"{last['contraction'][-1]:.2f}"),
        ],
        train_curve=[(line["bytes"], line["train_bits_per_byte"]) for line in steps],
        valid_curve=[
            (bytes_at[line["step"]], line["valid_bits_per_byte"]) for line in lines if "valid_bits_per_byte" in line
        ],
        comparison=rows,
        prompt=PROMPT,
        sample=sample,
        passage=Passage(
            shown[:end],
            model.splitter.levels(shown)[:end],
            model.bits(shown)[:end],
            stages=model.config.depth + 1,
        ),
        rule=config.model.splitter,
        summary=f"{ours:.3f} bits per byte on held-out text, read byte by byte without a tokenizer",
        notes=[
            "Text: the language reference and the docstrings of this Python's standard library, "
            f"{len(before) / 1e6:.2f} MB "
            f"for training, {len(joined) / 1e6:.3f} MB held out.",
            "Bits per byte: -log2 of the probability of the bytes and of the ends of documents, over the bytes.",
            "Repeat it: make demo",
        ],
    )


def _print(report: Report, console: Console) -> None:
    view = Table(box=None, pad_edge=False, title="bits per byte of held-out text", title_justify="left")
    view.add_column("system")
    view.add_column("bits per byte", justify="right")
    view.add_column("how")
    for row in report.comparison:
        view.add_row(row.name, f"{row.bits_per_byte:.3f}", row.note)
    console.print(view)
    console.print("\n" + report.prompt + report.sample, markup=False, highlight=False)

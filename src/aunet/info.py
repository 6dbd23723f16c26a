"""`aunet info`: what a model, a configuration or a preset costs, as a table."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.table import Table

from aunet.config import AUNetConfig, DataConfig, RunConfig, SourceConfig
from aunet.data.problems import Problems
from aunet.data.sources import balanced
from aunet.magnitudes import short, size
from aunet.mappings import apply_overrides
from aunet.model.accounting import Accounting, describe
from aunet.model.directory import CONFIG, RUN, load_config
from aunet.presets import PRESETS, load_run, validate_run
from aunet.splitting import splitter
from aunet.vocabulary import vocabulary

MEASURED = 16e6
"""Bytes on which contractions are measured: as many whole documents as reach them."""
MIXER_COLUMNS = {"attention": ("FFN", "window"), "mamba2": ("state",)}
"""Columns that a stage has by its mixer."""


def describe_target(
    target: str,
    overrides: Sequence[str] = (),
    text: Path | None = None,
    text_field: str = "text",
    problems: Problems | None = None,
) -> Accounting:
    """Count a model directory, a configuration file or a preset, with dotted overrides.

    Rows are as long as those of the run that a directory is of; where it does not say, as long as by default.
    `text`: a file, as training reads it, on which the bytes per unit are measured; they stand beside those that the
    configuration expects. Of a model over tokens, the bytes per token. What of it can't be used is counted in
    `problems`; AUNetError if nothing can.
    """
    run = _load_target(target, overrides)
    accounting = describe(run.model, run.data.seq_len)
    if text is None:
        return accounting
    sources = [SourceConfig(path=str(text), text_field=text_field)]
    found = list(balanced(sources, MEASURED, Problems() if problems is None else problems))
    if run.model.tokenizer:
        tokens = vocabulary(run.model)
        count = sum(len(tokens.encode(data)) for data in found)
        return replace(accounting, bytes_per_token=sum(map(len, found)) / count)
    return accounting.with_measured(measure_contraction(run.model, found))


def _load_target(target: str, overrides: Sequence[str]) -> RunConfig:
    directory = Path(target)
    # A preset's name wins over a directory of other things that happens to be called so, as `demo` may.
    if not directory.is_dir() or (target in PRESETS and not (directory / CONFIG).is_file()):
        return load_run(target, overrides)

    data = DataConfig(seq_len=_row_length(directory)).model_dump(mode="json")
    values = {"model": load_config(directory).model_dump(mode="json"), "data": data}
    return validate_run(apply_overrides(values, overrides), target)


def _row_length(directory: Path) -> int:
    """Of the run whose directory it is; the default where it is of none, as a model that was exported or downloaded."""
    try:
        length = json.loads((directory / RUN).read_text())["data"]["seq_len"]
        return DataConfig(seq_len=length).seq_len
    except (OSError, ValueError, KeyError, TypeError):
        return DataConfig().seq_len


def measure_contraction(config: AUNetConfig, documents: Sequence[bytes]) -> list[float]:
    """Bytes per unit of every stage over documents, not all of them empty; units of BOS do not count."""
    if not config.depth:
        return [1.0]
    rule = splitter(config.splitter)
    counts = [0] * len(config.stages)
    for data in documents:
        levels_n = rule.levels(data)
        counts = [count + int((levels_n >= s).sum()) for s, count in enumerate(counts)]
    return [sum(map(len, documents)) / max(1, count) for count in counts]


def table(accounting: Accounting) -> Table:
    """One row per stage and one per part of it; totals in the caption."""
    unit, memory = accounting.unit, accounting.memory
    measured = any(stage.measured_contraction for stage in accounting.stages)
    caption = (
        f"{short(accounting.parameters)} parameters, {short(accounting.flops_per_byte)} paper FLOPs and "
        f"{short(accounting.useful_flops_per_byte)} useful FLOPs per {unit}, forward and backward, in rows of "
        f"{accounting.seq_len} {unit}s\n"
        f"training in fp32 with AdamW: {size(memory.weights)} weights, {size(memory.gradients)} gradients, "
        f"{size(memory.optimizer)} optimizer, {size(memory.activations_per_million_bytes)} activations per million "
        f"{unit}s of batch"
    )
    if accounting.bytes_per_token:
        caption += f"\n{accounting.bytes_per_token:.3f} bytes per token on the text"
    view = Table(box=None, pad_edge=False, caption=caption, caption_justify="left", caption_style="")
    view.add_column("stage")
    mixers = [names for mixer, names in MIXER_COLUMNS.items() if any(s.mixer == mixer for s in accounting.stages)]
    own = [name for names in mixers for name in names]
    names = ["width", "layers", "heads", *own, f"{unit}s/unit", *(["measured"] if measured else [])]
    for name in [*names, "parameters", f"FLOPs/{unit}", "useful", "activations"]:
        view.add_column(name, justify="right")
    for stage in accounting.stages:
        grouped = stage.mixer == "attention" and stage.heads != stage.kv_heads
        heads = f"{stage.heads}/{stage.kv_heads}" if grouped else str(stage.heads)
        shape = {"FFN": str(stage.ffn_dim), "window": str(stage.window or "all"), "state": str(stage.state_dim)}
        found = [f"{stage.measured_contraction:.2f}" if stage.measured_contraction else ""] if measured else []
        view.add_row(
            str(stage.stage),
            str(stage.dim),
            str(stage.layers) if stage.layers_up is None else f"{stage.layers} + {stage.layers_up}",
            heads,
            *(shape[name] if name in MIXER_COLUMNS[stage.mixer] else "" for name in own),
            f"{stage.contraction:g}",
            *found,
            short(stage.parameters),
            short(stage.flops_per_byte),
            short(stage.useful_flops_per_byte),
            size(stage.activations_per_million_bytes),
            style="bold",
        )
        blank = [""] * (len(names))
        for part in stage.parts:
            view.add_row(f"  {part.name}", *blank, short(part.parameters), short(part.flops_per_byte), "", "")
    return view

"""Named configurations: small ones for a CPU, and every configuration of the paper with its training row
(Tables 9 to 11 and the scaling rows).

Rows marked *over tokens* are the paper's baselines over Llama 3 tokens: one stage, all counts per token (`bytes` and
`batch_bytes` are tokens). They can be looked at as they are, and trained with a tokenizer (`model.tokenizer`, and its
`model.vocab_size`).
"""

import difflib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from aunet.config import LENGTHS, RunConfig
from aunet.errors import ConfigError
from aunet.mappings import apply_overrides, read_mapping, validate
from aunet.paper_laws import LAWS
from aunet.splitting import splitter
from aunet.vocabulary.tokens import MARKS, tokenizer_size

RULES = ("", "word1", "word1+word2", "word1+word2+word4")
"""The paper's splitting rule by number of stages, counted from one."""
LLAMA_VOCABULARY = 128_256

Settings = dict[str, Any]
"""Sections of a RunConfig, or a part of them."""


@dataclass(frozen=True)
class Preset:
    """A configuration with a name."""

    description: str
    values: Settings
    """The sections `model`, `data`, `train` of a RunConfig."""


def _model(
    dims: Sequence[int],
    layers: Sequence[int],
    *,
    ffn: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    window: int | None = 512,
    **more: Any,
) -> Settings:
    """The paper's habits: head width 64 at the byte stage, 128 deeper, a window at the byte stage only."""
    depth = len(dims) - 1
    heads = heads or [64 if depth and s == 0 else 128 for s in range(len(dims))]
    stages: list[Settings] = [
        {"dim": dim, "layers": count, "head_dim": head} for dim, count, head in zip(dims, layers, heads, strict=True)
    ]
    for stage, width in zip(stages, ffn or [], strict=bool(ffn)):
        stage["ffn_dim"] = width
    if depth and window:
        stages[0]["window"] = window
    return {"stages": stages, "splitter": RULES[depth], **more}


def _mamba(dim: int, layers: int) -> Settings:
    """Mamba-2 on bytes: one stage, head width 64 as in the paper."""
    return {"stages": [{"dim": dim, "layers": layers, "mixer": "mamba2", "head_dim": 64}], "splitter": ""}


def _run(model: Settings, seq_len: int, **train: Any) -> Settings:
    """A run as the paper trains: clip 0.2, weight decay 0.1 and a floor of 0.01 unless told otherwise."""
    common = {"clip": 0.2, "weight_decay": 0.1, "lr_floor": 0.01}
    return {"model": model, "data": {"seq_len": seq_len}, "train": {**common, **train}}


def _gpu_run(model: Settings, *, seq_len: int = 8192, **train: Any) -> Settings:
    return _run(model, seq_len, precision="bf16", **train)


def _small() -> dict[str, Preset]:
    """For a few CPU cores; learning rates and batches were tried, since the paper's laws do not reach down here."""
    demo = _model((64, 192), (1, 2), heads=(32, 64), window=256)
    two = _model((64, 256), (1, 2), heads=(32, 64), window=256)
    three = _model((64, 128, 192), (1, 1, 2), heads=(32, 32, 64), window=256)
    bench = _model((128, 512), (3, 6), heads=(32, 64), ffn=(512, 1536))
    for stage, window in zip(bench["stages"], (256, 4096), strict=True):
        stage["window"] = window
    small = {"batch_bytes": 4096, "lr": 6e-3, "clip": 1.0, "valid_every": 200}
    return {
        "demo": Preset("what `make demo` trains in four minutes on two cores", _run(demo, 2048, steps=1200, **small)),
        "aunet2-2m": Preset("AU-Net 2 of 2M parameters, for a CPU", _run(two, 2048, compute=3e13, **small)),
        "aunet3-2m": Preset("AU-Net 3 of 2M parameters, for a CPU", _run(three, 2048, compute=3e13, **small)),
        "mamba-bytes-200k": Preset(
            "Mamba-2 on bytes of 0.2M parameters, for a CPU", _run(_mamba(96, 2), 2048, compute=1e13, **small)
        ),
        "aunet2-23m": Preset(
            "AU-Net 2 of 23M parameters, the model of benchmarks/",
            _run(bench, 2048, steps=20_000, batch_bytes=8192, lr=1e-3),
        ),
    }


def _billions() -> dict[str, Preset]:
    """Tables 9 to 11: the 1B and 8B rows."""
    two: Settings = {"steps": 180_000, "batch_bytes": 1.6e6, "lr": 1.65e-3, "warmup": 10_000}
    three: Settings = {"steps": 105_000, "batch_bytes": 2.8e6, "lr": 1.5e-3, "warmup": 10_000}
    four: Settings = {**three, "warmup": 20_000}
    eight: Settings = {"steps": 277_834, "batch_bytes": 4.2e6, "lr": 8.18e-4, "warmup": 5000}
    over_bytes: Settings = {"bytes": 2.74e11, "batch_bytes": 1.6e6, "lr": 1.65e-3, "warmup": 10_000}
    bpe_1b: Settings = {"steps": 60_000, "batch_bytes": 1.0e6, "lr": 3e-3, "warmup": 5000}
    bpe_7b: Settings = {"bytes": 2e11, **_bpe_laws(9e21), "warmup": 5000}
    deep = (512, 2048, 3072, 4608)
    return {
        "aunet2-1b": Preset(
            "AU-Net 2 1B, 5.1e20 FLOPs",
            _gpu_run(_model((512, 2048), (3, 25)), **two),
        ),
        "aunet3-1b": Preset(
            "AU-Net 3 1B, 6.7e20 FLOPs",
            _gpu_run(_model((512, 2048, 3072), (3, 3, 18)), **three),
        ),
        "aunet4-1b": Preset(
            "AU-Net 4 1B, 8.0e20 FLOPs",
            _gpu_run(_model(deep, (3, 3, 4, 10)), **four),
        ),
        "aunet4-1b-dm8": Preset(
            "AU-Net 4 1B, the layers of the dm8 run", _gpu_run(_model(deep, (3, 3, 3, 12)), **four)
        ),
        "aunet2-8b": Preset(
            "AU-Net 2 8B (7B in Table 9), 1.2e22 FLOPs",
            _gpu_run(_model((1024, 4096), (3, 32), ffn=(4096, 14336)), **eight),
        ),
        "transformer-bytes-1b": Preset(
            "byte Transformer 1B, 60B Llama 3 tokens of text; lr, batch unpublished",
            _gpu_run(_model((2048,), (25,)), **over_bytes),
        ),
        "mamba-bytes-1b": Preset(
            "Mamba-2 on bytes 1B, 60B Llama 3 tokens of text; lr, batch unpublished",
            _gpu_run(_mamba(2048, 50), **over_bytes),
        ),
        "transformer-bpe-1b": Preset(
            "Transformer 1B over tokens, 6.6e20 FLOPs",
            _gpu_run(_model((2048,), (25,), vocab_size=LLAMA_VOCABULARY), seq_len=4096, **bpe_1b),
        ),
        "transformer-bpe-7b": Preset(
            "Transformer 7B over tokens; lr, batch by the law",
            _gpu_run(_model((4096,), (32,), ffn=(11008,), vocab_size=LLAMA_VOCABULARY), seq_len=4096, **bpe_7b),
        ),
    }


AUNET2_SCALING = {
    "1e19": ((256, 1024), (3, 11)),
    "2e19": ((256, 1152), (3, 13)),
    "4e19": ((256, 1280), (3, 14)),
    "8e19": ((384, 1536), (3, 14)),
    "1e20": ((384, 1536), (3, 19)),
    "3e20": ((512, 1920), (3, 17)),
    "5e20": ((512, 2048), (3, 21)),
    "9e20": ((512, 2304), (3, 24)),
    "2e21": ((640, 2560), (3, 26)),
    "3e21": ((640, 2688), (3, 33)),
    "6e21": ((768, 3200), (3, 32)),
    "1e22": ((896, 3584), (3, 35)),
}
AUNET3_SCALING = {
    "1e19": ((256, 1024, 1536), (3, 3, 4)),
    "2e19": ((256, 1152, 1792), (3, 3, 5)),
    "5e19": ((256, 1280, 1920), (3, 3, 7)),
    "7e19": ((256, 1280, 1920), (3, 3, 10)),
    "2e20": ((384, 1536, 2304), (3, 3, 10)),
    "3e20": ((384, 1536, 2304), (3, 3, 15)),
    "5e20": ((512, 1920, 2816), (3, 3, 13)),
    "9e20": ((512, 2048, 3072), (3, 3, 16)),
    "2e21": ((512, 2304, 3456), (3, 3, 18)),
    "3e21": ((640, 2560, 3840), (3, 3, 21)),
    "6e21": ((640, 2688, 4096), (3, 3, 26)),
    "1e22": ((768, 3200, 4864), (3, 3, 26)),
}
TRANSFORMER_SCALING = {
    "1e19": (1024, 12),
    "2e19": (1152, 13),
    "4e19": (1280, 14),
    "8e19": (1536, 15),
    "1e20": (1664, 17),
    "3e20": (1792, 20),
    "5e20": (2048, 21),
    "1e21": (2304, 24),
    "2e21": (2560, 26),
    "3e21": (2816, 29),
    "6e21": (3072, 34),
    "1e22": (3456, 37),
}
"""Width and layers by budget in FLOPs (paper, appendix); FFN widths follow Llama's rule, head widths 64 and 128."""


def _scaling() -> dict[str, Preset]:
    """The scaling rows: data-to-model ratio 10 in Llama 3 tokens, learning rate and batch by the laws."""
    rows: dict[str, Preset] = {}
    for stages, table in ((2, AUNET2_SCALING), (3, AUNET3_SCALING)):
        for budget, (dims, layers) in table.items():
            rows[f"aunet{stages}-{budget}"] = Preset(
                f"AU-Net {stages}, scaling row", _gpu_run(_model(dims, layers), gamma=10)
            )
    for budget, (dim, count) in TRANSFORMER_SCALING.items():
        # C = gamma F^2 over tokens, so gamma F = sqrt(gamma C) tokens. The paper counts these budgets without the head;
        # a length in gamma or compute would count it.
        tokens = float(f"{(10 * float(budget)) ** 0.5:.3g}")
        model = _model((dim,), (count,), vocab_size=LLAMA_VOCABULARY)
        rows[f"transformer-{budget}"] = Preset(
            "Transformer over tokens, scaling row",
            _gpu_run(model, seq_len=2048, bytes=tokens, **_bpe_laws(float(budget))),
        )
    return rows


def _bpe_laws(compute: float) -> dict[str, float]:
    laws = LAWS["token"]
    return {"batch_bytes": float(f"{laws.batch(compute):.3g}"), "lr": float(f"{laws.lr(compute):.3g}")}


PRESETS: dict[str, Preset] = {**_small(), **_billions(), **_scaling()}


def names() -> list[str]:
    """Names of all presets."""
    return list(PRESETS)


def preset(name: str) -> Settings:
    """The sections `model`, `data`, `train` of a preset, to change at will; ConfigError names the nearest preset.

    >>> [stage["dim"] for stage in preset("aunet2-1b")["model"]["stages"]]
    [512, 2048]
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.5)
        mend = f"did you mean {near[0]}?" if near else "aunet train --list shows them"
        raise ConfigError(f"no preset {name!r}; {mend}")
    values: Settings = json.loads(json.dumps(PRESETS[name].values))
    return values


def load_run(target: str, overrides: Sequence[str] = ()) -> RunConfig:
    """A run from a preset's name or a YAML or JSON file, with dotted overrides (`train.lr=1e-3`).

    A file may start from a preset (`preset: NAME`); what it gives replaces the preset's values key by key, lists as a
    whole. One length of the run (steps, bytes, compute, gamma) replaces the length that came from below. Where a model
    has a tokenizer and no vocab_size, that is the one of the tokenizer.
    """
    if target in PRESETS:
        values, origin = preset(target), f"preset {target}"
    elif os.path.isdir(target):  # noqa: PTH112 (it never raises)
        raise ConfigError(f"{target}: a directory; name a configuration, such as the run.json of a training run")
    elif Path(target).suffix in (".yaml", ".yml", ".json") or os.path.exists(target):  # noqa: PTH110 (it never raises)
        values, origin = _from_file(Path(target)), target
    else:
        preset(target)  # names the nearest
        raise AssertionError
    lengths = {name for name in LENGTHS if any(text.startswith(f"train.{name}=") for text in overrides)}
    if lengths:
        _drop_lengths(values)
    values = apply_overrides(values, overrides)
    train = values.get("train")
    if not values.get("model") and isinstance(train, dict) and isinstance(train.get("init_from"), str):
        values["model"] = _model_of(Path(train["init_from"]))
    model = values.get("model")
    if isinstance(model, dict) and isinstance(model.get("tokenizer"), str) and model["tokenizer"]:
        model.setdefault("vocab_size", tokenizer_size(Path(model["tokenizer"])) + MARKS)
    return validate_run(values, origin)


def validate_run(values: Mapping[str, Any], origin: str) -> RunConfig:
    """A run whose splitting rule exists; ConfigError names `origin` and the key of what cannot be used."""
    run = validate(RunConfig, values, origin)
    try:
        splitter(run.model.splitter)
    except ConfigError as error:
        raise ConfigError(f"{origin}: model.splitter: {error}") from None
    return run


def _model_of(directory: Path) -> Any:
    """The architecture of a model directory, for a run that starts from its weights."""
    path = directory / "config.json"
    if not path.is_file():
        raise ConfigError(f"train.init_from: {directory} has no config.json; name a model directory")
    model = read_mapping(path).get("aunet")
    if model is None:
        raise ConfigError(f"train.init_from: {path} is not the configuration of an aunet model; name a model directory")
    if isinstance(model, dict) and model.get("tokenizer"):
        model["tokenizer"] = str(directory / "tokenizer.json")
    return model


def _from_file(path: Path) -> Settings:
    values = read_mapping(path)
    base = values.pop("preset", None)
    values = {key: {} if section is None else section for key, section in values.items()}  # with nothing below it
    if base is None:
        return values
    try:
        below = preset(base if isinstance(base, str) else repr(base))
    except ConfigError as error:
        raise ConfigError(f"{path}: preset: {error}") from None
    train = values.get("train")
    if isinstance(train, dict) and any(train.get(name) is not None for name in LENGTHS):
        _drop_lengths(below)
    return _merge(below, values)


def _drop_lengths(values: Settings) -> None:
    train = values.get("train")
    if isinstance(train, dict):
        values["train"] = {key: value for key, value in train.items() if key not in LENGTHS}


def _merge(below: Settings, above: Mapping[str, Any]) -> Settings:
    """Mappings key by key, anything else replaced."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def table() -> Table:
    """What `aunet train --list` prints: the shapes and the training row; `law`: by the paper's laws."""
    view = Table(box=None, pad_edge=False)
    for column in ("preset", "widths", "layers", "length", "batch", "lr", "what it is"):
        view.add_column(column, no_wrap=column != "what it is")
    for name, entry in PRESETS.items():
        stages, train = entry.values["model"]["stages"], entry.values["train"]
        shape = [";".join(str(stage[key]) for stage in stages) for key in ("dim", "layers")]
        length = next(f"{key} {train[key]:g}" for key in LENGTHS if key in train)
        row = [f"{train[key]:g}" if key in train else "law" for key in ("batch_bytes", "lr")]
        view.add_row(name, *shape, length, *row, entry.description)
    return view

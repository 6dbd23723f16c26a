"""A model directory: `config.json` (our settings under the key `aunet`), `model.safetensors`, and a model card.

A model over tokens has its `tokenizer.json` beside them.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import aunet
from aunet.config import AUNetConfig
from aunet.errors import AUNetError, ConfigError
from aunet.files import replacing, write_json
from aunet.mappings import validate
from aunet.model.aunet import AUNet

CONFIG, WEIGHTS, CARD, TOKENIZER = "config.json", "model.safetensors", "README.md", "tokenizer.json"
RUN = "run.json"
"""The configuration of the training run whose directory it is."""
COLUMNS = "| stage | width | layers | head width | feed-forward | window |\n|---|---|---|---|---|---|\n"
OTHER = "> The model here has another architecture than this card was written for.\n\n"
"""Before the table of a card."""


def save_model(model: AUNet, directory: Path, facts: Mapping[str, Any] | None = None) -> None:
    """Write a model directory; every file replaces an older one only when it is whole.

    AUNetError that names the weights where they cannot be written, as on a full disk; OSError for all else.
    `facts`: as of `save_card`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config = keep_tokenizer(model.config, directory)
    settings = {
        "aunet": {**config.model_dump(mode="json"), "tokenizer": TOKENIZER if config.tokenizer else ""},
        "aunet_version": aunet.__version__,
        "model_type": "aunet",
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(directory / WEIGHTS) as path:
        try:
            save_file(tensors, path, metadata={"format": "pt"})
        except SafetensorError as error:  # whatever the system says
            raise AUNetError(f"{directory / WEIGHTS}: cannot be written ({error})") from None
    write_json(directory / CONFIG, settings)
    save_card(model.config, directory, facts)


def save_card(config: AUNetConfig, directory: Path, facts: Mapping[str, Any] | None) -> None:
    """Write the model card; one that is there, with what is known of the training, is kept unless there are facts.

    A line in a kept one tells if its table is not that of this architecture. `facts`: what the card states beside the
    architecture, such as the data, the compute and bits per byte.
    """
    card, text = directory / CARD, model_card(config, facts or {})
    if facts is None and card.exists():
        kept = card.read_text(encoding="utf-8", errors="surrogateescape")
        text = kept.replace(OTHER, "")
        if f"{_table(config)}\n" not in text:
            text = text.replace(COLUMNS, OTHER + COLUMNS)
        if text == kept:
            return
    with replacing(card) as path:
        path.write_text(text, encoding="utf-8", errors="surrogateescape")


def keep_tokenizer(config: AUNetConfig, directory: Path) -> AUNetConfig:
    """Copy the tokenizer of a model over tokens into its directory; returns the architecture that reads the copy."""
    if not config.tokenizer:
        return config
    try:
        content = Path(config.tokenizer).read_bytes()
    except OSError as error:
        raise AUNetError(f"{config.tokenizer}: the model's tokenizer cannot be read ({error.strerror})") from None
    with replacing(directory / TOKENIZER) as path:
        path.write_bytes(content)
    return config.model_copy(update={"tokenizer": str(directory / TOKENIZER)})


def load_model(directory: Path, device: str | torch.device = "cpu") -> AUNet:
    """Read a model directory; raises AUNetError that names the file at fault.

    Weights in several number formats all get that of the embedding: the operations between them need one.
    """
    model = AUNet.on_meta(load_config(directory))
    model.load_state_dict(dict(stored_weights(directory, model, device)), assign=True)
    return model.to(model.embedding.weight.dtype)


def stored_weights(directory: Path, model: AUNet, device: str | torch.device = "cpu") -> Iterator[tuple[str, Tensor]]:
    """The weights of a model directory by name, read one after the other; AUNetError where they are not the model's."""
    path = directory / WEIGHTS
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            tensors = model.state_dict()
            ours = {name: list(tensor.shape) for name, tensor in tensors.items()}
            theirs = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
            wrong = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
            if wrong:
                raise AUNetError(f"{path}: does not fit {CONFIG}: {len(wrong)} tensors differ, the first is {wrong[0]}")
            for name, like in tensors.items():
                tensor = file.get_tensor(name)
                if tensor.dtype != like.dtype and not (tensor.is_floating_point() and like.is_floating_point()):
                    raise AUNetError(f"{path}: {name} has numbers of {tensor.dtype}, not of a kind with {like.dtype}")
                yield name, tensor
    except (OSError, SafetensorError) as error:
        raise AUNetError(f"{path}: cannot be read ({error}); is it a whole model.safetensors?") from None


def load_config(directory: Path) -> AUNetConfig:
    """The architecture of a model directory, with the place of its own tokenizer."""
    path = directory / CONFIG
    if not path.is_file() and (directory / "checkpoints").is_dir():
        raise AUNetError(
            f"{directory}: the training run there has not ended; continue it with aunet train, or take "
            "the model of a checkpoint with aunet export"
        )
    if not path.is_file() and (directory / RUN).is_file():
        raise AUNetError(f"{directory}: the training run there has no checkpoint yet; continue it with aunet train")
    if not path.is_file():
        raise AUNetError(f"{directory}: no {CONFIG} there; name a model directory, such as the `out` of a training run")
    try:
        settings = json.loads(path.read_text())
        values, version = settings["aunet"], settings.get("aunet_version", "?")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AUNetError(f"{path}: not the configuration of an aunet model ({type(error).__name__}: {error})") from None
    config = validate_saved(values, version, f"{path}: aunet")
    return config.model_copy(update={"tokenizer": str(directory / TOKENIZER)}) if config.tokenizer else config


def validate_saved(values: Any, version: str, origin: str) -> AUNetConfig:
    """The architecture that a version of aunet saved; ConfigError names another version if it cannot be read."""
    try:
        return validate(AUNetConfig, values, origin)
    except ConfigError as error:
        if version == aunet.__version__:
            raise
        first = str(error).splitlines()[0]
        raise ConfigError(
            f"{first}; written by aunet {version}, this is {aunet.__version__}: install that one"
        ) from None


def training_facts(steps: int, read: int, flops: float, bits_per_byte: float | None) -> dict[str, str]:
    """What a model card states about training; `read`: bytes, `flops`: the paper's."""
    facts = {"steps": f"{steps}", "bytes read": f"{read}", "paper FLOPs": f"{flops:.3g}"}
    if bits_per_byte is not None:
        facts["bits per byte on held-out text"] = f"{bits_per_byte:.4f}"
    return facts


def model_card(config: AUNetConfig, facts: Mapping[str, Any]) -> str:
    """The text of a model card: the architecture, the facts about its training, and how to use the model."""
    known = "\n".join(f"- {name}: {value}" for name, value in facts.items()) or "- not recorded"
    if config.unit == "token":
        title = "# A Transformer over tokens"
        about = f"A language model over the {config.vocab_size - 2:,} tokens of `{TOKENIZER}`, a byte-level BPE."
        hub = ""
    else:
        title, about = _of_bytes(config)
        hub = """
With `transformers`, after `import aunet.hf`:

    pipeline("text-generation", model=DIRECTORY)("Once")
"""
    return f"""---
library_name: aunet
pipeline_tag: text-generation
tags: [aunet, {config.unit}-level, text-generation]
---
{title}

{about}

{_table(config)}
## Training
{known}

## Use
    aunet generate DIRECTORY --prompt "Once"
{hub}"""


def _of_bytes(config: AUNetConfig) -> tuple[str, str]:
    """Title and first sentence of the card of a model over bytes: one stage builds no units."""
    about = "A language model that reads raw bytes"
    if not config.depth:
        kind = "Mamba-2 model" if config.stages[0].mixer == "mamba2" else "Transformer"
        return f"# A {kind} over bytes", f"{about}."
    units = f"and builds its own units (arXiv 2506.14761), splitting rule `{config.splitter}`"
    return f"# An AU-Net with {len(config.stages)} stages", f"{about} {units}."


def _table(config: AUNetConfig) -> str:
    return COLUMNS + "".join(f"{_stage_row(config, s)}\n" for s in range(len(config.stages)))


def _stage_row(config: AUNetConfig, s: int) -> str:
    stage, layers = config.stages[s], " + ".join(map(str, config.layers(s)))
    last = f"{stage.ffn_dim} | {stage.window or 'all'}" if stage.mixer == "attention" else "none: Mamba-2 | none"
    return f"| {s + 1} | {stage.dim} | {layers} | {stage.head_dim} | {last} |"

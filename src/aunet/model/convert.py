"""Reads checkpoints of the reference implementation (Meta Lingua, apps/aunet).

Its rotary embedding turns neighbouring pairs, ours the halves of a head: the rows of its query and key maps are put in
our order. Its separate maps for queries, keys and values, and for gate and up, become one matrix each. Both steps are
linear, so gradients convert as weights do.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from aunet.config import AUNetConfig, StageConfig
from aunet.errors import AUNetError, ConfigError
from aunet.files import make_directory
from aunet.mappings import read_mapping, validate
from aunet.model.aunet import AUNet
from aunet.model.directory import CONFIG, save_model

REFERENCE_RULES = {
    ("word1",): "word1",
    ("word1", "word2"): "word1+word2",
    ("word1", "word2", "word4"): "word1+word2+word4",
    ("pretok",): "pretok",
}
REFERENCE_UPSAMPLINGS = {"simple_indexed_matmul": "multilinear", "simple": "simple", "simple_repeat": "repeat"}


def convert_lingua(weights: Path, config: Path, out: Path) -> str:
    """Write the model directory `out` from a reference checkpoint; returns one line that says what was read.

    AUNetError where `out` has a model already, which may have taken weeks.
    """
    if (out / CONFIG).exists():
        raise AUNetError(f"OUT: {out} has a model already; name another directory")
    ours = reference_config(read_mapping(config), str(config))
    model = AUNet.on_meta(ours)
    state = convert_state(_read_tensors(weights), ours, str(weights))
    for name, tensor in model.state_dict().items():
        if state[name].shape != tensor.shape:
            raise ConfigError(
                f"{weights}: {name} has the shape {list(state[name].shape)}, {config} says {list(tensor.shape)}"
            )
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    make_directory(out, "OUT")
    save_model(model, out, {"source": f"converted from {weights.name} of the reference implementation"})
    return f"{out}: AU-Net with {len(ours.stages)} stages, {sum(t.numel() for t in state.values()):,} parameters"


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix != ".pth":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of a file that is something else: whatever its first bytes make of torch's reader
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise AUNetError(
            f"{path}: cannot be read as {'weights' if path.suffix == '.pth' else 'safetensors'}: {reason}"
        ) from None
    state = loaded.get("model", loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise AUNetError(f"{path}: expected a mapping of names to tensors, bare or under 'model'")
    return state


def reference_config(values: Mapping[str, Any], origin: str) -> AUNetConfig:
    """Our configuration of a reference model, from its parallel lists."""
    values = values.get("model", values.get("config", values))
    if not isinstance(values, Mapping):
        raise ConfigError(f"{origin}: `model` is to be a mapping with dimensions, layers and head_dims")
    dims = _of_stages(values, "dimensions", None, origin)
    layers, head_dims = (_of_stages(values, key, len(dims), origin) for key in ("layers", "head_dims"))
    pooling = str(values.get("pooling_type", "simple_indexed_matmul"))
    if pooling not in REFERENCE_UPSAMPLINGS:
        known = ", ".join(REFERENCE_UPSAMPLINGS)
        raise ConfigError(f"{origin}: pooling_type {pooling!r} is not supported; supported are {known}")
    strategy = tuple(_strategy(values))
    if len(dims) > 1 and strategy not in REFERENCE_RULES:
        known = ", ".join("+".join(rules) for rules in REFERENCE_RULES)
        raise ConfigError(
            f"{origin}: splitting strategy {'+'.join(strategy)!r} is not supported; supported are {known}"
        )
    windows, hidden, kv_heads = (
        _of_stages(values, key, len(dims), origin) if values.get(key) else [None] * len(dims)
        for key in ("sliding_windows", "ffn_hidden", "n_kv_heads")
    )
    hidden = [given or _lingua_ffn(dim, values, origin) for given, dim in zip(hidden, dims, strict=True)]
    stages = [
        {"dim": d, "layers": n, "head_dim": k, "window": w, "ffn_dim": f, "kv_heads": g or 0}
        for d, n, k, w, f, g in zip(dims, layers, head_dims, windows, hidden, kv_heads, strict=True)
    ]
    ours = {
        "vocab_size": values.get("vocab_size", 258),
        "stages": stages,
        "splitter": REFERENCE_RULES.get(strategy, ""),
        "upsampling": REFERENCE_UPSAMPLINGS[pooling],
        "offsets": values.get("max_pos") or 16,
        "rope_theta": values.get("rope_theta", 5e5),
        "norm_eps": values.get("norm_eps_blocks", values.get("norm_eps", 1e-5)),
    }
    return validate(AUNetConfig, ours, origin)


def _of_stages(values: Mapping[str, Any], key: str, count: int | None, origin: str) -> list[Any]:
    """One of the parallel lists, with a value for each of `count` stages."""
    if key not in values:
        raise ConfigError(f"{origin}: the key {key!r} of a reference configuration is missing")
    found = values[key]
    if not isinstance(found, list) or not found or count not in (None, len(found)):
        raise ConfigError(f"{origin}: {key} is to be a list with a value for each stage (given: {found!r})")
    return found


def _strategy(values: Mapping[str, Any]) -> list[str]:
    given = values.get("strategy") or {}
    return list(given) if isinstance(given, Mapping | list) else str(given).split("+")


def _lingua_ffn(dim: Any, values: Mapping[str, Any], origin: str) -> int:
    """Lingua's width of SwiGLU: 8/3 of the width, rounded up to `multiple_of`."""
    multiple = values.get("multiple_of", 256)
    if not isinstance(dim, int) or not isinstance(multiple, int) or multiple < 1:
        raise ConfigError(f"{origin}: dimensions and multiple_of are to be whole numbers above 0")
    hidden = int(2 * (4 * dim) / 3)
    return multiple * ((hidden + multiple - 1) // multiple)


def convert_state(state: Mapping[str, Tensor], config: AUNetConfig, origin: str) -> dict[str, Tensor]:
    """Reference tensors, bare or under `weights/`, as our state dict; ConfigError on what is missing or left over."""
    bare = any(name.startswith("weights/") for name in state)
    rest = {n.removeprefix("weights/"): t for n, t in state.items() if not bare or n.startswith("weights/")}
    rest = {name.removeprefix("_orig_mod."): tensor for name, tensor in rest.items() if "rope" not in name}
    ours: dict[str, Tensor] = {}
    try:
        for name, reference in (("embedding", "tok_embeddings"), ("norm", "vocab_norm"), ("head", "vocab")):
            ours[f"{name}.weight"] = rest.pop(f"{reference}.weight")
        for s in range(config.depth):
            sides = (("contract", "encoders"), ("expand", "decoders"))
            for (side, reference), count in zip(sides, config.layers(s), strict=True):
                _blocks(ours, f"stages.{s}.{side}", rest, f"{reference}.{s}", config.stages[s], count)
            _transition(ours, f"stages.{s}", rest, f"transitions.{s}", config)
        _blocks(ours, "trunk.blocks", rest, "trunk", config.stages[-1], config.stages[-1].layers)
    except KeyError as error:
        raise ConfigError(f"{origin}: the tensor {error} is missing; does the configuration belong to it?") from None
    except RuntimeError as error:  # shapes that cannot be put in our order
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{origin}: does the configuration belong to it? ({reason})") from None
    if rest:
        raise ConfigError(f"{origin}: {len(rest)} tensors are not known, the first is {min(rest)!r}")
    return {name: tensor.contiguous() for name, tensor in ours.items()}


def _blocks(
    ours: dict[str, Tensor], name: str, rest: dict[str, Tensor], reference: str, stage: StageConfig, count: int
) -> None:
    for i in range(count):
        a, b = f"{name}.{i}", f"{reference}.layers.{i}"
        q, k, v = (rest.pop(f"{b}.attention.w{x}.weight") for x in "qkv")
        qk = [_halves(x, stage.head_dim) for x in (q, k)]
        ours[f"{a}.attention.qkv.weight"] = torch.cat([*qk, v])
        ours[f"{a}.attention.out.weight"] = rest.pop(f"{b}.attention.wo.weight")
        gate_up = [rest.pop(f"{b}.feed_forward.{x}.weight") for x in ("w1", "w3")]
        ours[f"{a}.ffn.gate_up.weight"] = torch.cat(gate_up)
        ours[f"{a}.ffn.down.weight"] = rest.pop(f"{b}.feed_forward.w2.weight")
        for norm in ("attention_norm", "ffn_norm"):
            ours[f"{a}.{norm}.weight"] = rest.pop(f"{b}.{norm}.weight")


def _halves(weight: Tensor, head_dim: int) -> Tensor:
    """Rows (0, 1), (2, 3), ... of each head, which are turned together, to rows i and i + K / 2."""
    return weight.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).reshape(weight.shape)


def _transition(ours: dict[str, Tensor], a: str, rest: dict[str, Tensor], b: str, config: AUNetConfig) -> None:
    ours[f"{a}.pool.norm.weight"] = rest.pop(f"{b}.down_norm.weight")
    ours[f"{a}.pool.project.weight"] = rest.pop(f"{b}.trans_down.weight")
    ours[f"{a}.upsample.norm.weight"] = rest.pop(f"{b}.up_norm.weight")
    ours[f"{a}.upsample.shared.weight"] = rest.pop(f"{b}.trans_up.weight")
    if config.upsampling == "multilinear":
        ours[f"{a}.upsample.per_offset"] = rest.pop(f"{b}.indexed_linear.weight").flatten(0, 1)
    elif config.upsampling == "repeat":
        ours[f"{a}.upsample.offset_embedding.weight"] = rest.pop(f"{b}.pos_encoding.weight")

"""The reference's own vectors, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from aunet.config import AUNetConfig
from aunet.errors import AUNetError, ConfigError
from aunet.model.aunet import AUNet
from aunet.model.convert import convert_lingua, convert_state, reference_config

NAMES = ["aunet2", "aunet2_simple", "aunet3", "aunet3_repeat"]
REFERENCE = {
    "dimensions": [8, 16],
    "layers": [1, 1],
    "head_dims": [4, 4],
    "strategy": {"word1": "1@1"},
    "ffn_hidden": [16, 16],
}


def _golden(directory: Path, name: str) -> tuple[AUNetConfig, dict[str, Tensor]]:
    return (
        reference_config(json.loads((directory / f"{name}.json").read_text()), name),
        load_file(directory / f"{name}.safetensors"),
    )


@pytest.mark.parametrize("name", NAMES)
def test_logits_loss_and_every_gradient_equal_the_reference(shared: Callable[[str], Path], name: str) -> None:
    config, tensors = _golden(shared("golden"), name)
    model = AUNet.on_meta(config)
    model.load_state_dict(convert_state(tensors, config, name), assign=True)
    model.requires_grad_()
    ids, levels = tensors["input_ids"], tensors["level_mask"]
    rows, length = ids.shape
    packed_levels = levels.flatten().to(torch.uint8)
    starts = torch.arange(0, rows * length + 1, length)
    counts = [int((packed_levels >= s).sum()) for s in range(len(config.stages))]
    inputs = (packed_levels, starts, counts)
    logits = model(ids.flatten(), *inputs)
    assert (logits.view_as(tensors["logits"]) - tensors["logits"]).abs().max() < 2e-5
    loss = model.loss(ids.flatten(), tensors["targets"].flatten(), *inputs) / ids.numel()
    assert abs(loss.item() - tensors["loss"].item()) < 2e-5
    loss.backward()
    # Conversion is linear, so the reference's gradients become ours as its weights do.
    renamed = {f"weights/{n.removeprefix('grads/')}": t for n, t in tensors.items() if n.startswith("grads/")}
    expected = convert_state(renamed, config, name)
    assert set(expected) == {name for name, _ in model.named_parameters()}
    for parameter, gradient in ((n, p.grad) for n, p in model.named_parameters()):
        assert gradient is not None
        error = (gradient - expected[parameter]).norm() / expected[parameter].norm()
        assert error < 2e-5, f"{parameter}: {error:.2e}"


def _reference_state(config: AUNetConfig) -> dict[str, Tensor]:
    """Random tensors with the reference's names and shapes, written down here by hand."""
    generator = torch.Generator().manual_seed(0)

    def block(name: str, s: int) -> dict[str, tuple[int, ...]]:
        stage = config.stages[s]
        d, f, g = stage.dim, stage.ffn_dim, stage.kv_heads * stage.head_dim
        a, b = f"{name}.layers.0.attention", f"{name}.layers.0"
        return {
            f"{a}.wq.weight": (d, d),
            f"{a}.wk.weight": (g, d),
            f"{a}.wv.weight": (g, d),
            f"{a}.wo.weight": (d, d),
            f"{b}.feed_forward.w1.weight": (f, d),
            f"{b}.feed_forward.w3.weight": (f, d),
            f"{b}.feed_forward.w2.weight": (d, f),
            f"{b}.attention_norm.weight": (d,),
            f"{b}.ffn_norm.weight": (d,),
        }

    d, e = (stage.dim for stage in config.stages)
    shapes = {
        "tok_embeddings.weight": (258, d),
        "vocab_norm.weight": (d,),
        "vocab.weight": (258, d),
        **block("encoders.0", 0),
        **block("decoders.0", 0),
        **block("trunk", 1),
        "transitions.0.down_norm.weight": (d,),
        "transitions.0.trans_down.weight": (e, d),
        "transitions.0.up_norm.weight": (e,),
        "transitions.0.trans_up.weight": (d, e),
        "transitions.0.indexed_linear.weight": (16, d, e),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_names_may_be_bare_prefixed_or_compiled() -> None:
    config = reference_config(REFERENCE, "here")
    state = _reference_state(config)
    bare = convert_state(state, config, "here")
    shapes = {name: parameter.shape for name, parameter in AUNet.on_meta(config).named_parameters()}
    assert {name: tensor.shape for name, tensor in bare.items()} == shapes
    prefixed = {f"weights/{name}": tensor for name, tensor in state.items()} | {"loss": torch.zeros(1)}
    compiled = {f"_orig_mod.{name}": tensor for name, tensor in state.items()} | {"rope.freqs": torch.zeros(1)}
    for other in (prefixed, compiled):
        converted = convert_state(other, config, "here")
        assert all(torch.equal(converted[name], tensor) for name, tensor in bare.items())


def test_missing_and_unknown_tensors_are_named() -> None:
    config = reference_config(REFERENCE, "here")
    state = _reference_state(config)
    without = {name: tensor for name, tensor in state.items() if name != "trunk.layers.0.attention.wk.weight"}
    with pytest.raises(ConfigError, match=r"file: the tensor 'trunk\.layers\.0\.attention\.wk\.weight' is missing"):
        convert_state(without, config, "file")
    with pytest.raises(ConfigError, match=r"file: 1 tensors are not known, the first is 'other\.weight'"):
        convert_state({**state, "other.weight": torch.zeros(1)}, config, "file")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooling_type": "cross"}, "pooling_type 'cross' is not supported"),
        ({"strategy": {"punct": "1@1"}}, "splitting strategy 'punct' is not supported"),
        ({"layers": None}, "key 'layers' of a reference configuration is missing"),
        ({"layers": [1]}, r"layers is to be a list with a value for each stage \(given: \[1\]\)"),
        ({"sliding_windows": [4]}, "sliding_windows is to be a list with a value for each stage"),
        ({"dimensions": 16}, "dimensions is to be a list"),
        ({"ffn_hidden": None, "multiple_of": 0}, "multiple_of are to be whole numbers above 0"),
        ({"model": "x"}, "`model` is to be a mapping"),
        ({"head_dims": [3, 4]}, "head_dim 3 does not divide dim 8"),
    ],
)
def test_reference_configurations_that_cannot_be_read(change: dict[str, Any], message: str) -> None:
    values = {key: value for key, value in {**REFERENCE, **change}.items() if value is not None}
    with pytest.raises(ConfigError, match=message):
        reference_config(values, "params.json")


def test_a_model_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(AUNetError, match=r"OUT: .* has a model already; name another directory"):
        convert_lingua(tmp_path / "weights.pth", tmp_path / "params.json", tmp_path)


def test_lingua_rounds_the_feed_forward_as_it_does() -> None:
    config = reference_config({**REFERENCE, "ffn_hidden": None, "multiple_of": 16}, "here")
    assert [stage.ffn_dim for stage in config.stages] == [32, 48]


def test_weights_of_another_width_are_told_of() -> None:
    config = reference_config(REFERENCE, "here")
    state = _reference_state(config)
    state["trunk.layers.0.attention.wq.weight"] = torch.zeros(7, 3)
    with pytest.raises(ConfigError, match=r"file: does the configuration belong to it\?"):
        convert_state(state, config, "file")


@pytest.mark.parametrize("content", [b"", b"some text", b"\x80\x02", bytes(range(256))])
def test_files_that_are_no_weights_are_one_line(tmp_path: Path, content: bytes) -> None:
    path, params = tmp_path / "weights.pth", tmp_path / "params.json"
    path.write_bytes(content)
    params.write_text(json.dumps(REFERENCE))
    with pytest.raises(AUNetError) as caught:
        convert_lingua(path, params, tmp_path / "out")
    assert str(caught.value).startswith(f"{path}: cannot be read as weights: ")
    assert "\n" not in str(caught.value)

"""The Python face: logits, units, saved models, and what is refused."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import aunet
from aunet.bytes import BOS, EOS, Text
from aunet.errors import AUNetError
from aunet.language_model import LanguageModel
from aunet.model.convert import convert_lingua
from aunet.model.directory import save_model
from tests.model.packs import RULES, small_config, small_model

TEXT = "Wörds, 1234 and more\n".encode()
GOLDEN = ["aunet2", "aunet2_simple", "aunet3", "aunet3_repeat"]


@cache
def model(stages: int = 3, rule: str = "") -> LanguageModel:
    config = small_config(stages, splitter=rule or RULES[stages - 1])
    return LanguageModel(small_model(config, seed=stages))


@pytest.mark.parametrize("name", GOLDEN)
def test_a_converted_model_gives_the_logits_of_the_reference(
    shared: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    tensors = load_file(shared("golden") / f"{name}.safetensors")
    weights = {key: tensor for key, tensor in tensors.items() if key.startswith("weights/")}
    save_file(weights, tmp_path / "reference.safetensors")
    convert_lingua(tmp_path / "reference.safetensors", shared("golden") / f"{name}.json", tmp_path / "out")
    loaded = aunet.load(tmp_path / "out")
    levels = tensors["level_mask"].clone()
    logits = loaded.logits(tensors["input_ids"], levels)
    assert (logits - tensors["logits"]).abs().max() < 2e-5
    assert torch.equal(levels, tensors["level_mask"])


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
@pytest.mark.parametrize("rows", [1, 3])
def test_rows_do_not_see_each_other(stages: int, rows: int) -> None:
    ids = torch.randint(0, 256, (rows, 30), generator=torch.Generator().manual_seed(0))
    ids[:, 0] = BOS
    logits = model(stages).logits(ids)
    assert logits.shape == (rows, 30, 258)
    assert not logits.requires_grad
    for b in range(rows):
        assert (model(stages).logits(ids[b : b + 1]) - logits[b]).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("stages", "rule"), [*enumerate(RULES, start=1), (2, "pretok"), (2, "fixed-4"), (3, "fixed-2+fixed-4")]
)
def test_a_byte_never_changes_what_was_predicted_before_it(stages: int, rule: str) -> None:
    draw = np.random.default_rng(0)
    row = [BOS, *TEXT, *draw.integers(0, 256, 15).tolist()]
    before = model(stages, rule).logits([row])[0]
    for t in range(1, len(row)):
        for new in (ord(" "), ord("\n"), ord("7"), int(draw.integers(0, 256))):
            changed = model(stages, rule).logits([[*row[:t], new, *row[t + 1 :]]])[0]
            assert (changed[:t] - before[:t]).abs().max() < 1e-5
            if new != row[t]:
                assert (changed[t] - before[t]).abs().max() > 1e-4


def test_ids_and_levels_may_be_lists_arrays_or_tensors() -> None:
    ids = [[BOS, *b"ab cd"], [BOS, *b"1 2 3"]]
    expected = model().logits(ids)
    for kind in (torch.tensor, np.array, lambda x: np.array(x, dtype=np.uint16), lambda x: torch.tensor(x).int()):
        assert torch.equal(model().logits(kind(ids)), expected)
    levels = [[2, *model().splitter.levels(bytes(row[1:])).tolist()] for row in ids]
    for kind in (list, torch.tensor, np.array, lambda x: torch.tensor(x, dtype=torch.uint8)):
        given: Any = kind(levels)
        assert torch.equal(model().logits(ids, given), expected)


def test_levels_decide_and_are_never_modified() -> None:
    ids = torch.tensor([[BOS, *b"ab cd"]])
    for dtype in (torch.uint8, torch.int64):
        levels = torch.zeros(1, 6, dtype=dtype)
        highest_first = torch.tensor([[2, 0, 0, 0, 0, 0]], dtype=dtype)
        logits = model().logits(ids, levels)
        assert levels.sum() == 0
        # Position 0 has the highest level whatever is given.
        assert torch.equal(logits, model().logits(ids, highest_first))
    assert not torch.equal(logits, model().logits(ids))
    array = np.zeros((1, 6), dtype=np.uint8)
    model().logits(ids, array)
    assert array.sum() == 0


def test_a_mark_inside_a_row_starts_the_splitter_anew() -> None:
    ids = [[BOS, *b"ab c", EOS, *b" d", BOS, *b"e"]]
    levels = [[2, 0, 0, 1, 0, 2, 0, 0, 2, 0]]
    assert model().splitter.levels(b" d").tolist() == [0, 0]
    assert torch.equal(model().logits(ids), model().logits(ids, levels))


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)])
def test_no_rows_or_no_positions(shape: tuple[int, int]) -> None:
    assert model().logits(torch.zeros(shape, dtype=torch.int64)).shape == (*shape, 258)
    assert model().logits([[]]).shape == (1, 0, 258)


@pytest.mark.parametrize(
    "ids",
    [[1, 2], [[[1]]], [[258]], [[-1]], [[0.5]], [[256, 1], [256]], "text", [["a"]], None],
)
def test_bad_ids_are_one_line(ids: Any) -> None:
    with pytest.raises(AUNetError, match=r"^input_ids: ") as caught:
        model().logits(ids)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("levels", [[[0, 0]], [[0, 0, 3]], [[0, -1, 0]], [[0, 0.5, 0]], [[0], [0, 0]], "x", [[["a"]]]])
def test_bad_levels_are_one_line(levels: Any) -> None:
    with pytest.raises(AUNetError, match=r"^levels: ") as caught:
        model().logits([[BOS, 1, 2]], levels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [TEXT, b"", b"nosplit", b"\xff 7 \x80", "é é é"])
@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_the_units_of_every_stage_tile_the_text(stages: int, text: str | bytes) -> None:
    encoding = model(stages).encode(text)
    data = text.encode() if isinstance(text, str) else text
    assert encoding.data == data
    assert encoding.levels.shape == (len(data),)
    assert len(encoding.stages) == stages
    for s, stage in enumerate(encoding.stages):
        start, end = stage.open
        assert b"".join(unit.data for unit in stage.units) + data[start:end] == data
        assert (end, stage.units[0].span, stage.units[0].data) == (len(data), (0, 0), b"")
        borders = [unit.span for unit in stage.units]
        assert all(a[1] == b[0] for a, b in zip(borders, [*borders[1:], stage.open], strict=True))
        assert all(data[a:b] == unit.data for unit in stage.units for a, b in [unit.span])
        assert len(stage.units) == 1 + int((encoding.levels >= s).sum())
        assert stage.vectors_UD.shape == (len(stage.units), model(stages).config.stages[s].dim)
        assert stage.vectors_UD.isfinite().all()
    assert [unit.span for unit in encoding.stages[0].units[1:]] == [(i, i + 1) for i in range(len(data))]


def test_vectors_are_the_outputs_of_the_stages() -> None:
    encoding, network = model(2).encode(TEXT), model(2).network
    outputs: list[torch.Tensor] = []
    hook = network.trunk.blocks[-1].register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    logits = model(2).logits([[BOS, *TEXT]])[0]
    hook.remove()
    assert (outputs[0] - encoding.stages[1].vectors_UD).abs().max() < 1e-5
    assert (network.logits_of(encoding.stages[0].vectors_UD) - logits).abs().max() < 1e-4


def test_bits_are_those_of_the_logits() -> None:
    scores = model().logits([[BOS, *TEXT]])[0].log_softmax(-1)
    bits = -scores[range(len(TEXT) + 1), [*TEXT, EOS]] / np.log(2)
    assert model().bits(TEXT) == pytest.approx(bits.numpy(), abs=1e-4)


def test_a_saved_model_is_the_model(tmp_path: Path) -> None:
    model().save(tmp_path / "deep" / "model")
    loaded = aunet.load(tmp_path / "deep" / "model")
    assert loaded.config == model().config
    ours, theirs = model().network.state_dict(), loaded.network.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(loaded.logits([[BOS, *TEXT]]), model().logits([[BOS, *TEXT]]))
    assert loaded.generate("x", max_bytes=20, as_bytes=True) == model().generate("x", max_bytes=20, as_bytes=True)


def test_what_a_card_says_of_the_training_outlives_saving(tmp_path: Path) -> None:
    save_model(model(2).network, tmp_path, {"data": "a text"})
    aunet.load(tmp_path).save(tmp_path)
    assert "- data: a text" in (tmp_path / "README.md").read_text()


def test_an_untrained_model_depends_on_the_seed_alone() -> None:
    a, b, c = (LanguageModel.random(small_config(2), seed) for seed in (0, 0, 1))
    ids = [[BOS, *TEXT]]
    assert torch.equal(a.logits(ids), b.logits(ids))
    assert not torch.equal(a.logits(ids), c.logits(ids))


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_any_bytes_are_a_text(kind: Callable[[bytes], Any]) -> None:
    given = kind(TEXT)
    assert model().generate(given, max_bytes=5, as_bytes=True) == model().generate(TEXT, max_bytes=5, as_bytes=True)
    assert model().generate([given], max_bytes=5, stop=None) == model().generate([TEXT], max_bytes=5)
    assert model().bits_per_byte(given) == model().bits_per_byte(TEXT)
    assert model().encode(given).data == TEXT


@pytest.mark.parametrize("text", ["a text", b"bytes", bytearray(b"bytes")])
def test_one_continuation_is_no_list_of_characters(text: Text) -> None:
    with pytest.raises(AUNetError, match=r"^continuations: a single text; give a list, such as \[text\]$"):
        model().continuation_bits("The", text)  # type: ignore[arg-type]


def _refused(directory: Path, **options: Any) -> str:
    with pytest.raises(AUNetError) as caught:
        aunet.load(directory, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_model_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    assert "no config.json there" in _refused(tmp_path / "absent")
    (tmp_path / "file").write_text("x")
    assert "no config.json there" in _refused(tmp_path / "file")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    assert "run: the training run there has no checkpoint yet; continue it with aunet train" in _refused(
        tmp_path / "run"
    )
    good = tmp_path / "model"
    model().save(good)
    weights, config = good / "model.safetensors", good / "config.json"
    whole, settings = weights.read_bytes(), config.read_text()
    weights.write_bytes(whole[: len(whole) // 2])
    assert str(weights) in _refused(good)
    weights.write_bytes(b"")
    assert str(weights) in _refused(good)
    weights.unlink()
    assert str(weights) in _refused(good)
    model(2).save(tmp_path / "other")
    weights.write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
    assert "does not fit config.json" in _refused(good)
    weights.write_bytes(whole)
    for text in ("{", "[]", "{}", "\xff", '{"aunet": 3}', '{"aunet": {}}'):
        config.write_bytes(text.encode("latin-1"))
        assert str(config) in _refused(good)
    values = json.loads(settings)
    values["aunet"]["splitter"] = "wrod1+word2"
    config.write_text(json.dumps(values))
    assert "word1" in _refused(good)
    for width in (2**40, 10**30):
        values = json.loads(settings)
        values["aunet"]["stages"][0]["dim"] = width
        config.write_text(json.dumps(values))
        assert str(config) in _refused(good)
    config.write_text(settings)
    for device in ("nonsense", "meta"):
        assert _refused(good, device=device).startswith(f"device: {device}")
    tensors = load_file(weights)
    save_file({**tensors, "norm.weight": tensors["norm.weight"].int()}, weights)
    assert _refused(good).startswith(f"{weights}: norm.weight ")
    weights.write_bytes(whole)
    aunet.load(good)


@pytest.mark.parametrize("native", [None, False])
def test_weights_of_several_precisions_are_read_in_that_of_the_embedding(tmp_path: Path, native: bool | None) -> None:
    model(2).save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    matrix = "trunk.blocks.0.ffn.gate_up.weight"
    rounded = {**tensors, matrix: tensors[matrix].bfloat16()}
    save_file(rounded, tmp_path / "model.safetensors")
    mixed = aunet.load(tmp_path, native=native)
    save_file({name: tensor.float() for name, tensor in rounded.items()}, tmp_path / "model.safetensors")
    whole = aunet.load(tmp_path, native=native)
    assert mixed.bits(TEXT) == pytest.approx(whole.bits(TEXT), abs=0)
    assert torch.equal(mixed.logits([[BOS, *TEXT]]), whole.logits([[BOS, *TEXT]]))


def test_compiled_kernels_are_refused_for_weights_that_they_cannot_read(tmp_path: Path) -> None:
    LanguageModel(small_model(small_config(2)).half()).save(tmp_path)
    assert _refused(tmp_path, native=True).startswith("native: the compiled kernels read no float16")
    assert not aunet.load(tmp_path).native
    assert len(aunet.load(tmp_path).generate("One ", max_bytes=5, as_bytes=True)) <= 5


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("can't allocate memory")]
)
def test_too_little_memory_for_the_weights_names_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def short(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("aunet.language_model.load_model", short)
    with pytest.raises(AUNetError, match="device: cpu has too little free memory for the weights"):
        aunet.load(tmp_path)

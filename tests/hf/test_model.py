"""The model of transformers is the model of aunet: weights, logits, loss; padding counts for nothing."""

import copy
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, set_seed

import aunet
from aunet.bytes import BOS, EOS
from aunet.data.batch import collate
from aunet.data.rows import Piece, build_row
from aunet.data.text import read
from aunet.errors import AUNetError
from aunet.hf import AUNetConfig, AUNetForCausalLM, AUNetTokenizer
from aunet.language_model import LanguageModel
from aunet.vocabulary import BYTES
from tests.model.packs import small_config, small_model, with_known, with_layers_up, with_lookups, with_qk_norm

PAD = 258
TEXTS = [b"W\xc3\xb6rds, 1234 and more", b"\xff 7 \x80", b"a", b"one two three"]
TOKENIZER = AUNetTokenizer()


@cache
def both(stages: int) -> tuple[AUNetForCausalLM, LanguageModel]:
    network = small_model(small_config(stages), seed=stages)
    model = AUNetForCausalLM(AUNetConfig(aunet=network.config))
    model.load_state_dict(network.state_dict())
    return model.eval(), LanguageModel(network)


def padded(texts: list[bytes], side: str, add_eos: bool = False) -> Any:
    return TOKENIZER(texts, padding=True, padding_side=side, return_tensors="pt", add_eos=add_eos)


def test_the_tensors_have_the_names_of_a_model_directory() -> None:
    model, reference = both(3)
    assert list(model.state_dict()) == list(reference.network.state_dict())
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in reference.network.parameters())


def test_what_the_paper_does_not_have_goes_through_files(tmp_path: Path) -> None:
    network = small_model(with_qk_norm(with_layers_up(small_config(3))))
    model = AUNetForCausalLM(AUNetConfig(aunet=network.config))
    model.load_state_dict(network.state_dict())
    model.save_pretrained(tmp_path / "theirs")
    ours = aunet.load(tmp_path / "theirs")
    ours.save(tmp_path / "ours")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    assert again.config.architecture == ours.config == network.config
    ids = torch.tensor([[BOS, *TEXTS[0]]])
    with torch.no_grad():
        assert torch.allclose(again(ids).logits, ours.logits(ids.tolist()), atol=1e-4)
    written = again.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
    assert bytes(i for i in written.tolist() if i < BOS) == ours.generate(
        TEXTS[0], max_bytes=8, temperature=0, as_bytes=True
    )
    assert "| 1 | 16 | 1 + 2 | 4 |" in (tmp_path / "ours" / "README.md").read_text()


def test_each_side_loads_what_the_other_saved(trained: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(trained)
    model.save_pretrained(tmp_path / "theirs")
    ours = aunet.load(tmp_path / "theirs")
    ours.save(tmp_path / "ours")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    before, after = load_file(trained / "model.safetensors"), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert ours.config == aunet.load(trained).config
    assert again.generation_config.to_dict() == model.generation_config.to_dict()


@pytest.mark.parametrize("change", [with_lookups, with_known])
def test_lookups_come_along(change: Callable[[Any], Any], tmp_path: Path) -> None:
    ours = LanguageModel(small_model(change(small_config(3))))
    ours.save(tmp_path / "ours")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    assert aunet.load(tmp_path / "theirs").config == ours.config
    text = TEXTS[0] * 3
    logits = theirs(**padded([text], "left")).logits[0]
    assert (logits - ours.logits([[BOS, *text]])[0]).abs().max() < 1e-5


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_logits_are_those_of_each_row_alone(stages: int, side: str) -> None:
    model, reference = both(stages)
    batch = padded(TEXTS, side)
    logits = model(**batch).logits
    for b, text in enumerate(TEXTS):
        alone = reference.logits([[BOS, *text]])[0]
        real = batch["attention_mask"][b].bool()
        assert (logits[b][real] - alone).abs().max() < 1e-5
        # The last column predicts the next byte, wherever the padding is.
        assert (logits[b, -1] - alone[-1]).abs().max() < 1e-5


def test_padding_may_be_anywhere_and_needs_no_mask() -> None:
    model, reference = both(3)
    ids = torch.tensor([[PAD, BOS, 97, PAD, PAD, 32, 98, PAD], [BOS, *b"1 2 3", EOS, PAD]])
    expected = [reference.logits([[BOS, 97, 32, 98]])[0], reference.logits([[BOS, *b"1 2 3", EOS]])[0]]
    for mask in (None, (ids != PAD).long()):
        logits = model(ids, mask).logits
        for b in range(2):
            assert (logits[b][ids[b] != PAD] - expected[b]).abs().max() < 1e-5
    # What a mask hides may be any number, and a row may be hidden altogether.
    hidden = torch.where(ids == PAD, 10**6, ids)
    hidden[1] = -5
    mask = torch.stack([(ids[0] != PAD).long(), torch.zeros(8, dtype=torch.int64)])
    logits = model(hidden, mask).logits
    assert (logits[0][ids[0] != PAD] - expected[0]).abs().max() < 1e-5
    assert logits.isfinite().all()


def test_only_the_columns_that_are_asked_for() -> None:
    model, _ = both(3)
    batch = padded(TEXTS, "left")
    whole = model(**batch).logits
    for keep, columns in [(0, slice(None)), (1, slice(-1, None)), (3, slice(-3, None)), (torch.tensor([0, 5]), [0, 5])]:
        for use_cache in (False, True):
            logits = model(**batch, logits_to_keep=keep, use_cache=use_cache).logits
            assert (logits - whole[:, columns]).abs().max() < 1e-4


def our_loss(model: LanguageModel, documents: list[bytes]) -> Tensor:
    """Of the rows that our own training makes: the mean over all bytes and ends."""
    depth = model.config.depth
    rows = [build_row([Piece(*read(data, model.splitter, BYTES), 0, len(data))], depth) for data in documents]
    batch = collate(rows)
    total = model.network.loss(batch.ids, batch.targets, batch.levels, batch.starts, batch.counts)
    return total / len(batch.ids)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("stages", [1, 3])
def test_the_loss_and_its_gradient_are_those_of_our_own_training(stages: int, side: str) -> None:
    model, reference = both(stages)
    batch = padded(TEXTS, side, add_eos=True)
    loss = model(**batch, labels=batch["input_ids"]).loss
    expected = our_loss(reference, TEXTS)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    loss.backward()
    expected.backward()
    theirs = dict(reference.network.named_parameters())
    for name, parameter in model.named_parameters():
        assert (parameter.grad - theirs[name].grad).abs().max() < 1e-5, name
    model.zero_grad()
    reference.network.zero_grad()


def test_labels_are_shifted_ignored_and_counted_as_the_library_does() -> None:
    model, _ = both(2)
    batch = padded(TEXTS, "right", add_eos=True)
    labels = batch["input_ids"].clone()
    labels[:, :4] = -100
    labels[labels == PAD] = -100
    with torch.no_grad():
        output = model(**batch, labels=labels)
        targets = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
        total = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), targets.flatten(), reduction="sum")
        assert output.loss.item() == pytest.approx(total.item() / int((targets != -100).sum()), abs=1e-5)
        for items in (10, torch.tensor(10)):
            scaled = model(**batch, labels=labels, num_items_in_batch=items)
            assert scaled.loss.item() == pytest.approx(total.item() / 10, abs=1e-4)


def test_a_compiled_model_leaves_the_host_alone() -> None:
    model, _ = both(3)
    compiled = torch.compile(model, backend="eager", dynamic=True)
    for texts in (TEXTS, TEXTS[:2]):
        batch = padded(texts, "left")
        output, expected = (one(**batch, labels=batch["input_ids"]) for one in (compiled, model))
        assert (output.logits - expected.logits).abs().max() < 1e-5
        assert output.loss.item() == pytest.approx(expected.loss.item(), abs=1e-5)


def test_a_tuple_where_one_is_asked_for() -> None:
    model, _ = both(1)
    batch = padded(TEXTS, "left")
    loss, logits = model(**batch, labels=batch["input_ids"], return_dict=False)
    assert (loss.shape, logits.shape) == ((), (*batch["input_ids"].shape, 258))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_ids": [[259]]}, "input_ids: every id must be from 0 to 257"),
        ({"input_ids": [[-1]]}, "input_ids: every id must be from 0 to 257"),
        ({"input_ids": [[0.5]]}, "input_ids: expected integers"),
        ({"input_ids": torch.ones(2, 3, dtype=torch.bfloat16)}, "input_ids: expected integers"),
        ({"input_ids": [1, 2]}, "input_ids: expected integers"),
        ({"input_ids": [["a"]]}, "input_ids: expected integers"),
        ({"input_ids": torch.zeros(1, 0, dtype=torch.int64)}, "input_ids: nothing to read"),
        ({"input_ids": torch.zeros(0, 4, dtype=torch.int64)}, "input_ids: nothing to read"),
        ({"input_ids": [[PAD, PAD]]}, "input_ids: nothing to read"),
        ({"input_ids": [[1, 2]], "attention_mask": [[0, 0]]}, "input_ids: nothing to read"),
        ({"input_ids": [[1, 2]], "attention_mask": [[1, 1, 1]]}, "attention_mask: expected"),
        ({"input_ids": [[1, 2]], "attention_mask": torch.ones(1, 1, 2, 2)}, "attention_mask: expected"),
        ({"input_ids": [[1, 2]], "labels": [[1]]}, "labels: expected"),
        ({"input_ids": [[1, 2]], "labels": [[1, 258]]}, "labels: every label"),
        ({"input_ids": [[1, 2]], "labels": [[1, -1]]}, "labels: every label"),
        ({"input_ids": [[1, 2]], "labels": [[1, 2]], "use_cache": True}, "labels: a cache"),
        ({"inputs_embeds": torch.zeros(1, 1, 16)}, "input_ids: the model reads bytes"),
        ({"input_ids": [[1, 2]], "output_hidden_states": True}, "output_attentions, output_hidden_states"),
    ],
)
def test_bad_input_is_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(AUNetError, match=f"^{message}") as caught:
        both(2)[0](**arguments)
    assert "\n" not in str(caught.value)


def test_a_new_model_is_initialised_as_ours_and_follows_the_seed() -> None:
    config = AUNetConfig(aunet=small_config(3))
    models = []
    for seed in (0, 0, 1):
        set_seed(seed)
        models.append(AutoModelForCausalLM.from_config(config))
    a, b, c = (model.state_dict() for model in models)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["head.weight"], c["head.weight"])
    assert a["norm.weight"].eq(1).all()
    assert a["stages.0.upsample.per_offset"].eq(0).all()
    assert a["head.weight"].std() == pytest.approx(16**-0.5, rel=0.2)


def test_who_replaces_a_child_replaces_it_in_the_network() -> None:
    model = copy.deepcopy(both(2)[0])
    before = model(torch.tensor([[BOS, 97]])).logits
    model.head = torch.nn.Linear(16, 258, bias=False)
    with torch.no_grad():
        model.head.weight.zero_()
        assert model(torch.tensor([[BOS, 97]])).logits.eq(0).all()
        assert both(2)[0](torch.tensor([[BOS, 97]])).logits.equal(before)
    # Replicas of one process on several devices are shallow copies with children of their own.
    replica = both(2)[0]._replicate_for_data_parallel()
    replica._modules.update(model._modules)
    assert replica(torch.tensor([[BOS, 97]])).logits.eq(0).all()
    assert both(2)[0](torch.tensor([[BOS, 97]])).logits.equal(before)
    assert model.get_output_embeddings() is model.head
    assert model.get_input_embeddings() is model.network.embedding
    with pytest.raises(AUNetError, match="resize_token_embeddings"):
        model.resize_token_embeddings(300)


def test_half_precision_is_loaded_run_and_saved(trained: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(trained, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    ids = torch.tensor([[BOS, *b"She walks under the river"]])
    logits = model(ids).logits
    assert logits.dtype == torch.bfloat16
    assert (logits - AutoModelForCausalLM.from_pretrained(trained)(ids).logits).abs().max() < 0.5
    assert model.generate(ids, max_new_tokens=5).shape == (1, 31)
    model.save_pretrained(tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).dtype == torch.bfloat16
    assert aunet.load(tmp_path).network.head.weight.dtype == torch.bfloat16


def test_weights_that_do_not_fit_are_one_line(trained: Path, tmp_path: Path) -> None:
    tensors = load_file(trained / "model.safetensors")
    (tmp_path / "config.json").write_text((trained / "config.json").read_text())
    head = tensors["head.weight"]
    for change in ({"head.weight": head[:100]}, {"head.weight": None}, {"more.weight": head.clone()}):
        changed = {name: tensor for name, tensor in {**tensors, **change}.items() if tensor is not None}
        save_file({name: tensor.contiguous() for name, tensor in changed.items()}, tmp_path / "model.safetensors")
        with pytest.raises(AUNetError, match=r"does not fit config\.json: 1 tensors differ") as caught:
            AutoModelForCausalLM.from_pretrained(tmp_path)
        assert next(iter(change)) in str(caught.value)


def test_a_model_is_on_one_device(trained: Path, tmp_path: Path) -> None:
    assert AutoModelForCausalLM.from_pretrained(trained, device_map="cpu").device == torch.device("cpu")
    split = {"embedding": "cpu", "stages": "cpu", "trunk": "disk", "norm": "cpu", "head": "cpu"}
    with pytest.raises(AUNetError, match="device_map: the model runs on one device"):
        AutoModelForCausalLM.from_pretrained(trained, device_map=split, offload_folder=str(tmp_path))


def test_nothing_is_unpickled(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((trained / "config.json").read_text())
    torch.save(load_file(trained / "model.safetensors"), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"model\.safetensors"):
        AutoModelForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(AUNetError, match="nothing is unpickled"):
        AutoModelForCausalLM.from_pretrained(tmp_path, use_safetensors=False)


def test_a_model_is_one_file_of_weights(tmp_path: Path) -> None:
    model, _ = both(1)
    with pytest.raises(AUNetError, match="max_shard_size"):
        model.save_pretrained(tmp_path / "model", max_shard_size="1KB")
    model.save_pretrained(tmp_path / "model", max_shard_size="5GB")
    assert (tmp_path / "model" / "model.safetensors").is_file()
    AUNetForCausalLM.from_pretrained(pretrained_model_name_or_path=tmp_path / "model")
    (tmp_path / "file").write_text("x")
    with pytest.raises(AUNetError, match="a file is there"):
        model.save_pretrained(tmp_path / "file")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["architectures"] == ["AUNetForCausalLM"]

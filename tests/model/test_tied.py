"""A head that shares the weights of the embedding."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from aunet.config import AUNetConfig
from aunet.hf import AUNetConfig as HubConfig
from aunet.hf import AUNetForCausalLM
from aunet.language_model import LanguageModel
from aunet.model.accounting import describe
from aunet.model.aunet import AUNet
from aunet.model.flops import flops_per_byte, useful_flops_per_byte
from tests.model.packs import random_pack, small_config, small_model


def untied(model: AUNet) -> AUNet:
    """The same function with two matrices."""
    twin = AUNet(AUNetConfig.model_validate({**model.config.model_dump(), "tied": False}))
    twin.load_state_dict({**model.state_dict(), "head.weight": model.embedding.weight.detach().clone()})
    return twin


@pytest.mark.parametrize("stages", [1, 2])
def test_it_is_the_model_whose_two_matrices_are_equal(stages: int) -> None:
    model = small_model(small_config(stages, tied=True))
    twin, pack = untied(model), random_pack(stages - 1, [7, 4])
    losses = [one.loss(pack.ids, pack.targets, *pack.inputs[1:]) for one in (model, twin)]
    assert losses[0].item() == losses[1].item()
    for loss in losses:
        loss.backward()
    assert twin.head is not None
    both = twin.embedding.weight.grad + twin.head.weight.grad  # type: ignore[operator]
    assert torch.allclose(model.embedding.weight.grad, both, atol=1e-4)  # type: ignore[arg-type]


@pytest.mark.parametrize("weights", ["fp32", "bf16"])
@pytest.mark.parametrize("native", [False, None])
def test_it_is_saved_once_and_runs_as_before(tmp_path: Path, weights: str, native: bool | None) -> None:
    model = small_model(small_config(2, tied=True))
    reference = LanguageModel(untied(model), native)
    LanguageModel(model, native).save(tmp_path)
    assert "head.weight" not in load_file(tmp_path / "model.safetensors")
    loaded = LanguageModel.load(tmp_path, weights=weights, native=native)
    assert (loaded.bits("two words") - reference.bits("two words")) == pytest.approx(
        0.0, abs=1e-5 if weights == "fp32" else 0.3
    )
    if weights == "fp32":
        options = {"max_bytes": 20, "temperature": 0, "as_bytes": True}
        assert loaded.generate("two", **options) == reference.generate("two", **options)


def test_it_costs_the_same_and_weighs_less() -> None:
    tied, apart = (small_config(2, tied=tied) for tied in (True, False))
    matrix = 258 * 16
    assert describe(apart).parameters - describe(tied).parameters == matrix
    assert flops_per_byte(tied, 100) == flops_per_byte(apart, 100)
    assert useful_flops_per_byte(tied, 100) == useful_flops_per_byte(apart, 100)
    head = next(part for part in describe(tied).stages[0].parts if part.name == "head")
    assert (head.parameters, head.flops_per_byte) == (16, 6 * matrix)
    assert describe(tied).memory.weights == 4 * describe(tied).parameters


def test_transformers_read_it_too(tmp_path: Path) -> None:
    model = small_model(small_config(2, tied=True))
    hub = AUNetForCausalLM(HubConfig(aunet=model.config))
    hub.load_state_dict(model.state_dict())
    hub.save_pretrained(tmp_path)
    again, ours = AUNetForCausalLM.from_pretrained(tmp_path), LanguageModel.load(tmp_path)
    ids = torch.tensor([[256, 65, 66, 67]])
    assert torch.allclose(again(input_ids=ids).logits, ours.logits(ids), atol=1e-5)
    assert again.get_output_embeddings() is None

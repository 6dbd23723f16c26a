"""`Trainer` fine-tunes a model directory on a real text, and what it saves is a model directory."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
    pipeline,
)

import aunet
from aunet.hf import AUNetConfig, AUNetForCausalLM
from tests.model.packs import small_config

TEXT = (Path(__file__).parents[2] / "docs" / "design.md").read_text()
"""English that has nothing to do with what the model has seen."""


def trainer(directory: Path, out: Path, padding_side: str = "left", **arguments: Any) -> Trainer:
    tokenizer = AutoTokenizer.from_pretrained(directory, padding_side=padding_side)
    paragraphs = Dataset.from_dict({"text": [text for text in TEXT.split("\n\n") if len(text) > 40]})
    rows = paragraphs.map(
        lambda row: tokenizer(row["text"], add_eos=True, truncation=True, max_length=256), remove_columns="text"
    )
    return Trainer(
        model=AutoModelForCausalLM.from_pretrained(directory),
        args=TrainingArguments(
            output_dir=str(out),
            learning_rate=5e-3,
            logging_steps=1,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            seed=0,
            **{"per_device_train_batch_size": 4, **arguments},
        ),
        train_dataset=rows,
        eval_dataset=rows.select(range(5)),
        processing_class=tokenizer,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    )


def losses(run: Trainer) -> list[float]:
    return [entry["loss"] for entry in run.state.log_history if "loss" in entry]


def test_fine_tuning_learns_the_text_and_saves_a_model_directory(trained: Path, tmp_path: Path) -> None:
    before = aunet.load(trained).bits_per_byte(TEXT)
    run = trainer(trained, tmp_path / "run", max_steps=30, save_steps=15, gradient_accumulation_steps=2)
    evaluated = run.evaluate()["eval_loss"]
    run.train()
    assert sum(losses(run)[-5:]) < 0.8 * sum(losses(run)[:5])
    assert run.evaluate()["eval_loss"] < 0.8 * evaluated
    run.save_model(str(tmp_path / "tuned"))
    tuned = aunet.load(tmp_path / "tuned")
    assert tuned.bits_per_byte(TEXT) < 0.8 * before
    generated = pipeline("text-generation", model=str(tmp_path / "tuned"))("The ", max_new_tokens=20, do_sample=False)
    assert generated == [{"generated_text": "The " + tuned.generate("The ", max_bytes=20, temperature=0)}]
    # A checkpoint is a model directory too, and the run goes on from it.
    assert aunet.load(tmp_path / "run" / "checkpoint-15").config == tuned.config
    again = trainer(trained, tmp_path / "again", max_steps=30, save_steps=100, gradient_accumulation_steps=2)
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-15"))
    assert losses(again)[-1] == pytest.approx(losses(run)[-1], rel=1e-4)


@pytest.mark.parametrize(("side", "tolerance"), [("right", 1e-5), ("left", 1e-2)])
def test_what_is_accumulated_is_one_batch(trained: Path, tmp_path: Path, side: str, tolerance: float) -> None:
    # The library counts the first byte behind padding on the left as predicted, which it is not: hence the tolerance.
    whole = trainer(trained, tmp_path / "a", side, max_steps=3, per_device_train_batch_size=4)
    parts = trainer(
        trained, tmp_path / "b", side, max_steps=3, per_device_train_batch_size=1, gradient_accumulation_steps=4
    )
    whole.train()
    parts.train()
    assert losses(parts) == pytest.approx(losses(whole), rel=tolerance)


def test_a_smoothed_loss_predicts_the_next_byte(tmp_path: Path) -> None:
    AUNetForCausalLM(AUNetConfig(aunet=small_config(2))).save_pretrained(tmp_path)
    plain, smoothed = (
        trainer(tmp_path, tmp_path, "right", label_smoothing_factor=factor).evaluate()["eval_loss"]
        for factor in (0.0, 1e-6)
    )
    assert smoothed == pytest.approx(plain, abs=1e-3)


def test_recomputing_activations_is_refused_in_one_line(trained: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(trained)
    with pytest.raises(ValueError, match="does not support activation checkpointing") as caught:
        model.activation_checkpointing_enable()
    assert "\n" not in str(caught.value)


def test_generation_while_training_uses_the_weights_of_the_moment(trained: Path) -> None:
    model: AUNetForCausalLM = AutoModelForCausalLM.from_pretrained(trained).train()
    ids = torch.tensor([[256, *b"She walks under the river"]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(3):
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found = model.generate(ids, max_new_tokens=10)
        assert found.equal(model.generate(ids, max_new_tokens=10, use_cache=False))
    assert model.training

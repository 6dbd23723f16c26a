"""`generate` of transformers on our cache gives what our own generation gives."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, TextIteratorStreamer, TextStreamer, pipeline, set_seed

import aunet
from aunet.bytes import BOS, EOS
from aunet.errors import AUNetError
from aunet.hf import AUNetConfig, AUNetForCausalLM, AUNetTokenizer
from aunet.language_model import LanguageModel
from tests.model.packs import small_config

PAD = 258
PROMPTS = ["She walks under the ", "a", "The caf\xe9 was\n 12", ""]
NEW = 60
TOKENIZER = AUNetTokenizer()


@pytest.fixture(scope="module")
def model(trained: Path) -> AUNetForCausalLM:
    return AutoModelForCausalLM.from_pretrained(trained)


@pytest.fixture(scope="module")
def reference(trained: Path) -> LanguageModel:
    return aunet.load(trained)


def batch_of(prompts: list[str], side: str = "left") -> Any:
    return TOKENIZER(prompts, padding=True, padding_side=side, return_tensors="pt")


def continued(model: AUNetForCausalLM, prompts: list[str], side: str = "left", **options: Any) -> list[bytes]:
    """The new bytes of each prompt."""
    batch = batch_of(prompts, side)
    ids = model.generate(**batch, **options)
    return [TOKENIZER.decode_bytes(row) for row in ids[:, batch["input_ids"].shape[1] :]]


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
def test_greedy_generation_is_our_own(
    model: AUNetForCausalLM, reference: LanguageModel, side: str, use_cache: bool
) -> None:
    expected = reference.generate(PROMPTS, max_bytes=NEW, temperature=0, as_bytes=True)
    assert continued(model, PROMPTS, side, max_new_tokens=NEW, use_cache=use_cache) == expected
    for prompt, alone in zip(PROMPTS, expected, strict=True):
        assert continued(model, [prompt], max_new_tokens=NEW, use_cache=use_cache) == [alone]


def test_cached_logits_are_those_without_a_cache(model: AUNetForCausalLM) -> None:
    options = {"max_new_tokens": 40, "do_sample": True, "output_logits": True, "return_dict_in_generate": True}
    set_seed(3)
    found = model.generate(**batch_of(PROMPTS), **options)
    with torch.no_grad():
        mask = torch.nn.functional.pad(batch_of(PROMPTS)["attention_mask"], (0, 40), value=1)
        logits = model(found.sequences, mask[:, : found.sequences.shape[1]]).logits
    steps = torch.stack(found.logits, 1)
    whole = logits[:, -steps.shape[1] - 1 : -1]
    going = (found.sequences[:, -steps.shape[1] :] != PAD)[..., None]
    assert ((steps - whole) * going).abs().max() < 1e-4


def test_pieces_of_any_length_are_read_as_one(model: AUNetForCausalLM) -> None:
    ids = batch_of(["She walks under the river and 12 dogs, then.", "a b"])
    whole = model(**ids).logits
    cache, found, first = None, [], 0
    for last in (1, 3, 20, 21, 30, ids["input_ids"].shape[1]):
        output = model(ids["input_ids"][:, first:last], ids["attention_mask"][:, :last], cache=cache, use_cache=True)
        cache, first = output.cache, last
        found.append(output.logits)
    assert (torch.cat(found, 1) - whole).abs().max() < 1e-4
    assert cache is not None
    assert cache.get_seq_length() == whole.shape[1]


def test_a_cache_goes_on_from_where_it_was_and_can_be_copied(model: AUNetForCausalLM) -> None:
    first = model.generate(**batch_of(["She walks "]), max_new_tokens=20, return_dict_in_generate=True)
    shared = copy.deepcopy(first.cache)
    for more in (" and the", "\n12 dogs"):
        ids = torch.cat([first.sequences, torch.tensor([list(more.encode())])], 1)
        expected = model.generate(ids, max_new_tokens=30)
        assert model.generate(ids, cache=copy.deepcopy(shared), max_new_tokens=30).equal(expected)
        # The older name of the argument.
        with pytest.warns(FutureWarning, match="past_key_values"):
            found = model.generate(ids, past_key_values=copy.deepcopy(shared), max_new_tokens=30)
        assert found.equal(expected)
    shared.batch_repeat_interleave(2)
    assert model.generate(ids.expand(2, -1), cache=shared, max_new_tokens=30).equal(expected.expand(2, -1))
    with pytest.raises(AUNetError, match=r"^cache: it holds 2 rows, input_ids 1"):
        model(ids, cache=shared)


@pytest.mark.parametrize("read", [5, 6])
def test_a_cache_that_leaves_nothing_to_read_is_one_line(read: int) -> None:
    model = AUNetForCausalLM(AUNetConfig(aunet=small_config(1)))
    ids = torch.tensor([[BOS, *b"abcde"]])
    cache = model(ids[:, :read], use_cache=True).cache
    with pytest.raises(AUNetError, match=rf"^cache: it has read {read} columns already, and input_ids has 5;"):
        model.generate(ids[:, :5], cache=cache, max_new_tokens=3)


@pytest.mark.parametrize("use_cache", [True, False])
def test_sampling_follows_the_seed_and_its_limits(model: AUNetForCausalLM, use_cache: bool) -> None:
    def draw(seed: int, **options: Any) -> list[bytes]:
        set_seed(seed)
        return continued(
            model,
            PROMPTS[:2],
            max_new_tokens=NEW,
            do_sample=True,
            num_return_sequences=3,
            use_cache=use_cache,
            **options,
        )

    first = draw(0, temperature=1.3)
    assert len(first) == 6
    assert len(set(first)) > 3
    assert draw(0, temperature=1.3) == first
    assert draw(1, temperature=1.3) != first
    greedy = [text for text in continued(model, PROMPTS[:2], max_new_tokens=NEW) for _ in range(3)]
    assert draw(0, top_k=1) == greedy
    assert draw(0, top_p=1e-6) == greedy
    assert draw(0, temperature=1e-4) == greedy


def best(reference: LanguageModel, prompt: str, beams: int, new: int) -> list[tuple[float, bytes]]:
    """Plain beam search by whole forward passes, over texts that do not end."""
    going = [(0.0, [BOS, *prompt.encode()])]
    for _ in range(new):
        scored = []
        for score, ids in going:
            steps = reference.logits([ids])[0, -1].log_softmax(-1)
            scored += [(score + steps[byte].item(), [*ids, byte]) for byte in range(256)]
        going = sorted(scored, reverse=True)[:beams]
    return [(score, bytes(ids[1 + len(prompt) :])) for score, ids in going]


def test_beams_are_those_of_a_plain_search(model: AUNetForCausalLM, reference: LanguageModel) -> None:
    prompts = ["She walks under ", "a d"]
    options: dict[str, Any] = {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 0.0}
    found = continued(model, prompts, max_new_tokens=8, suppress_tokens=[BOS, EOS], **options)
    expected = [text for prompt in prompts for _, text in best(reference, prompt, 4, 8)[:2]]
    assert found == expected
    again = continued(model, prompts, max_new_tokens=8, suppress_tokens=[BOS, EOS], use_cache=False, **options)
    assert again == expected
    set_seed(0)
    assert len(continued(model, prompts, max_new_tokens=8, do_sample=True, **options)) == 4


def test_the_end_of_a_document_ends_a_row_and_bos_is_never_drawn(model: AUNetForCausalLM) -> None:
    set_seed(0)
    ids = model.generate(**batch_of(["the "] * 8), max_new_tokens=1500, do_sample=True)
    new = ids[:, 5:]
    assert not new.eq(BOS).any()
    ends = [row.tolist().index(EOS) for row in new if EOS in row]
    assert len(set(ends)) > 1
    for row in new.tolist():
        assert EOS not in row or set(row[row.index(EOS) + 1 :]) <= {PAD}
    assert model.generate(max_new_tokens=4).tolist()[0][0] == BOS


def test_weights_that_changed_are_used(model: AUNetForCausalLM) -> None:
    changed = copy.deepcopy(model)
    batch = batch_of(PROMPTS)
    before = changed.generate(**batch, max_new_tokens=20)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.data.mul_(1.5)
        for parameter in changed.stages[0].upsample.parameters():
            parameter.data.mul_(-2)
    after = changed.generate(**batch, max_new_tokens=20)
    assert after.equal(changed.generate(**batch, max_new_tokens=20, use_cache=False))
    assert not after.equal(before)


def test_stop_strings_are_bytes(model: AUNetForCausalLM) -> None:
    (whole,) = continued(model, ["She walks under the "], max_new_tokens=40)
    stop = whole[10:13]
    batch = batch_of(["She walks under the "])
    for stops in (stop.decode(), stop, ["\xe9\xe9", stop.decode()]):
        found = TOKENIZER.decode_bytes(model.generate(**batch, max_new_tokens=40, stop_strings=stops)[0])
        assert found.endswith(whole[: whole.index(stop) + 3])
    # A character of several bytes, which the untrained model writes when it is made to.
    network = AUNetForCausalLM(AUNetConfig(aunet=small_config(1)))
    options = {"max_new_tokens": 12, "suppress_tokens": [i for i in range(258) if i not in (0xC3, 0xA9)], "top_k": 0}
    for seed in range(20):
        set_seed(seed)
        text = TOKENIZER.decode_bytes(network.generate(**options, do_sample=True, stop_strings="\xe9")[0])
        assert "\xe9".encode() not in text[:-2]
        assert len(text) == 12 or text.endswith("\xe9".encode())
    with pytest.raises(AUNetError, match="stop_strings"):
        model.generate(**batch, max_new_tokens=4, stop_strings="")


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("prompts", [["abc", "d"], ["d", "abc"]])
def test_padding_behind_an_end_has_no_score(prompts: list[str], beams: int) -> None:
    model = AUNetForCausalLM(AUNetConfig(aunet=small_config(1)))
    # The row of "d" ends with its first byte, the other one with its third.
    first = model.generate(**batch_of(["abc"]), max_new_tokens=3)[0, -3:].tolist()
    ends = model.generate(**batch_of(["d"]), max_new_tokens=1)[0, -1:].tolist()
    assert not set(first) & set(ends)
    found = model.generate(
        **batch_of(prompts),
        max_new_tokens=3,
        eos_token_id=ends,
        num_beams=beams,
        return_dict_in_generate=True,
        output_scores=True,
    )
    scores = model.compute_transition_scores(
        found.sequences, found.scores, found.get("beam_indices"), normalize_logits=True
    )
    new = found.sequences[:, -scores.shape[1] :]
    assert scores.lt(0).equal(new.ne(PAD))
    assert new.eq(PAD).any(1).tolist() == [prompt == "d" for prompt in prompts]


def test_processors_of_prompts_take_padding() -> None:
    model = AUNetForCausalLM(AUNetConfig(aunet=small_config(1)))
    options: dict[str, Any] = {
        "max_new_tokens": 4,
        "encoder_repetition_penalty": 3.0,
        "encoder_no_repeat_ngram_size": 2,
    }
    together = continued(model, ["abc", "d"], **options)
    assert together == [continued(model, [prompt], **options)[0] for prompt in ("abc", "d")]


def test_text_streams(model: AUNetForCausalLM, capsys: pytest.CaptureFixture[str]) -> None:
    (whole,) = continued(model, ["She "], max_new_tokens=40)
    streamer = TextIteratorStreamer(TOKENIZER, skip_prompt=True, skip_special_tokens=True)
    model.generate(**batch_of(["She "]), max_new_tokens=40, streamer=streamer)
    assert "".join(streamer) == whole.decode()
    model.generate(**batch_of(["She "]), max_new_tokens=40, streamer=TextStreamer(TOKENIZER, skip_special_tokens=True))
    assert capsys.readouterr().out == f"She {whole.decode()}\n"


@pytest.mark.parametrize(
    "options",
    [
        {"penalty_alpha": 0.6, "top_k": 4},
        {"dola_layers": "low"},
        {"prompt_lookup_num_tokens": 3},
        {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0},
        {"force_words_ids": [[97]], "num_beams": 2},
        {"cache_implementation": "paged"},
    ],
)
@pytest.mark.parametrize("trust", [{}, {"trust_remote_code": True}])
def test_other_ways_of_decoding_are_refused_in_one_line(
    model: AUNetForCausalLM, options: dict[str, Any], trust: dict[str, bool]
) -> None:
    with pytest.raises(AUNetError, match="is not supported") as caught:
        model.generate(**batch_of(PROMPTS), max_new_tokens=4, **options, **trust)
    assert "\n" not in str(caught.value)


def test_an_assistant_is_refused_in_one_line(model: AUNetForCausalLM) -> None:
    with pytest.raises(AUNetError, match="assisted generation is not supported") as caught:
        model.generate(**batch_of(["a"]), max_new_tokens=4, assistant_model=model)
    assert "\n" not in str(caught.value)


def test_an_empty_prompt_is_one_line(model: AUNetForCausalLM) -> None:
    with pytest.raises(AUNetError, match="input_ids: nothing to read"):
        model.generate(torch.zeros(1, 0, dtype=torch.int64), max_new_tokens=4)
    with pytest.raises(AUNetError, match="input_ids: every id"):
        model.generate(torch.tensor([[300]]), max_new_tokens=4)


def test_the_pipeline_takes_a_directory(trained: Path, reference: LanguageModel) -> None:
    generator = pipeline("text-generation", model=str(trained))
    expected = reference.generate(PROMPTS, max_bytes=NEW, temperature=0)
    options = {"max_new_tokens": NEW, "do_sample": False}
    for prompt, text in zip(PROMPTS, expected, strict=True):
        assert generator(prompt, **options) == [{"generated_text": prompt + text}]
        assert generator(prompt, return_full_text=False, **options) == [{"generated_text": text}]
    together = generator(PROMPTS, batch_size=4, **options)
    assert [one[0]["generated_text"] for one in together] == [a + b for a, b in zip(PROMPTS, expected, strict=True)]
    assert generator("She", stop_sequence=" ", **options)[0]["generated_text"].count(" ") <= 1


def test_the_first_things_a_user_tries_work_and_say_nothing_else(trained: Path) -> None:
    program = f"""
import aunet.hf
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline
model = AutoModelForCausalLM.from_pretrained({str(trained)!r})
tokenizer = AutoTokenizer.from_pretrained({str(trained)!r})
ids = model.generate(**tokenizer("She walks", return_tensors="pt"), max_new_tokens=9)
print([tokenizer.decode(ids[0])])
print([pipeline("text-generation", model={str(trained)!r})("She walks", max_new_tokens=9)[0]["generated_text"]])
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, second = result.stdout.splitlines()
    assert first.startswith("['<|bos|>She walks")
    assert second.startswith("['She walks")
    assert "[transformers]" not in result.stderr
    assert "Warning" not in result.stderr

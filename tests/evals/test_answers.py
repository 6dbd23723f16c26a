"""Likelihoods and writings of many requests, against one full forward pass for each."""

import math
import random
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aunet.bytes import BOS
from aunet.config import AUNetConfig
from aunet.errors import ConfigError
from aunet.evals.answers import Continuation, Likelihood, ModelAnswers, Writing
from aunet.infer import scoring
from aunet.infer.native.build import available
from aunet.infer.session import Session
from aunet.infer.state import State
from aunet.language_model import LanguageModel
from tests.model.packs import small_config, small_model
from tests.vocabulary.bpe import token_model, tokens

DOCS = Path(__file__).parents[2] / "docs" / "evaluation.md"
PIECES = ["The cat and the dog ", "wérë under ", "東京の朝 ", "the house.\n\n", "🇪🇺 ", "Answer: ", "1234 ", " "]
SHAPES = ["eager", "native", "mamba", "tokens"]


@cache
def model(shape: str) -> LanguageModel:
    if shape == "tokens":
        return token_model()
    if shape == "mamba":
        stages = [{"dim": 16, "layers": 2, "mixer": "mamba2", "head_dim": 8, "state_dim": 8}]
        return LanguageModel(small_model(AUNetConfig.model_validate({"stages": stages, "splitter": ""})))
    if shape == "native" and not available():
        pytest.skip("the compiled kernels need a C++ compiler")
    return LanguageModel(small_model(small_config(3)), native=shape == "native")


def requests(count: int, seed: int = 0) -> list[Continuation]:
    """Long contexts, shared ones, empty ones; borders inside characters; empty texts; invalid UTF-8; repeats."""
    draw = random.Random(seed)

    def text(most: int) -> bytes:
        return "".join(draw.choices(PIECES, k=draw.randint(0, most))).encode()

    shared = [text(60) for _ in range(3)]
    found: list[Continuation] = []
    while len(found) < count:
        whole = draw.choice([b"", b"", *shared, text(100)]) + text(8) + draw.choice([b"", b"", b"\xff\x80", b"\xe6"])
        border = draw.choice([0, len(whole), draw.randint(0, len(whole)), max(0, len(whole) - draw.randint(0, 20))])
        found.append(Continuation(whole[:border], whole[border:]))
        if whole and draw.random() < 0.3:  # the choices of a question
            found += [Continuation(whole[:border], end) for end in (b" A", b" B", b" A and B", text(2))]
        if draw.random() < 0.1:
            found.append(draw.choice(found))
    draw.shuffle(found)
    return found[:count]


def brute_force(shape: str, one: Continuation) -> Likelihood:
    """One forward pass of the network over prompt and text."""
    ids, first = [*one.prompt, *one.text], len(one.prompt)
    if shape == "tokens":
        ids, first, read = tokens().encode(one.prompt + one.text).tolist(), 0, b""
        for token in ids:
            read += tokens().decode([token])
            if len(read) <= len(one.prompt.rstrip()):
                first += 1
        first = first if one.text else len(ids)
    bos = tokens().bos if shape == "tokens" else BOS
    logprobs = model(shape).logits([[bos, *ids]])[0].double().log_softmax(-1)
    bits = [-float(logprobs[i, ids[i]]) / math.log(2) for i in range(first, len(ids))]
    return Likelihood(sum(bits), all(int(logprobs[i].argmax()) == ids[i] for i in range(first, len(ids))))


def alike(found: Sequence[Likelihood], expected: Sequence[Likelihood]) -> bool:
    return all(
        abs(a.bits - b.bits) < 1e-4 * max(1, b.bits / 10) and a.greedy == b.greedy
        for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_two_hundred_requests_are_those_of_a_full_forward(shape: str) -> None:
    answers = ModelAnswers(model(shape).session())
    asked = requests(190)
    prompts = [one.prompt for one in asked[:10]]
    written = answers.writings([Writing(prompt, 3) for prompt in prompts])
    asked += [Continuation(prompt, text) for prompt, text in zip(prompts, written, strict=True)]
    expected = [brute_force(shape, one) for one in asked]
    assert any(one.greedy for one in expected if one.bits), "no request is what the model would write"
    assert alike(answers.likelihoods(asked), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_batches_and_order_change_nothing(monkeypatch: pytest.MonkeyPatch, shape: str) -> None:
    asked = requests(60, seed=1)
    expected = ModelAnswers(model(shape).session()).likelihoods(asked)
    for batch, together in [(1, 16384), (3, 50), (64, 7)]:
        monkeypatch.setattr(scoring, "TOGETHER", together)
        mixed = random.Random(batch).sample(asked, len(asked))
        answers = dict(zip(mixed, ModelAnswers(model(shape).session(), batch).likelihoods(mixed), strict=True))
        found = [answers[one] for one in asked]
        assert found == expected if shape == "native" else alike(found, expected)


def test_what_the_model_writes_is_greedy() -> None:
    answers = ModelAnswers(model("eager").session())
    (written,) = answers.writings([Writing(b"The cat ", max_bytes=9)])
    other = bytes([written[-1] ^ 1])
    asked = [Continuation(b"The cat ", text) for text in (written, written[:-1], written[:-1] + other, b"")]
    assert [one.greedy for one in answers.likelihoods(asked)] == [len(written) > 0, True, False, True]


def test_a_shared_prompt_is_read_once_and_repeats_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0
    original = Session.extend

    def counted(self: Session, state: State, ids: Any, *rest: Any) -> list[Tensor]:
        nonlocal read
        read += sum(map(len, ids))
        return original(self, state, ids, *rest)

    monkeypatch.setattr(Session, "extend", counted)
    shots = b"Q: two and two? A: four. " * 30
    asked = [
        Continuation(shots + b"Q: %d?" % question, answer)
        for question in range(10, 60)
        for answer in (b" yes", b" no", b" maybe")
    ]
    told: list[int] = []
    ModelAnswers(model("eager").session()).likelihoods(asked * 3, told.append)
    # BOS and shots; "Q: "; tens; ones and "? "; then "ye", "n" and "mayb".
    assert read == 1 + len(shots) + 3 + 5 + 50 * (3 + 2 + 1 + 4)
    assert sum(told) == 3 * len(asked)


def test_white_space_before_the_border_counts_with_the_text_for_tokens() -> None:
    answers = ModelAnswers(token_model().session())
    a, b = answers.likelihoods([Continuation(b"The cat ", b"and the dog"), Continuation(b"The cat", b" and the dog")])
    assert a == b


def test_nothing_asked_is_nothing_answered() -> None:
    answers = ModelAnswers(model("eager").session())
    assert answers.likelihoods([]) == []
    assert answers.writings([]) == []
    assert answers.likelihoods([Continuation(b"", b"")]) == [Likelihood(0.0, True)]
    assert answers.writings([Writing(b"a", max_bytes=0)]) == [b""]


def test_a_batch_of_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch: 0 is not at least 1"):
        ModelAnswers(model("eager").session(), 0)


def always(text: bytes) -> LanguageModel:
    """A byte model that writes this text again and again: no byte of it may occur twice."""
    one = small_model(small_config(1))
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.zero_()
        assert one.head is not None
        for block in one.modules():
            for name, gain in block.named_parameters(recurse=False):
                if gain.dim() == 1:
                    getattr(block, name).fill_(1.0)
        for i, byte in enumerate(text[:16]):
            one.embedding.weight[byte, i] = 1.0
            one.head.weight[text[(i + 1) % len(text)], i] = 1.0
    return LanguageModel(one)


def test_a_stop_string_may_begin_inside_a_character() -> None:
    text = "aé\n".encode()
    answers = ModelAnswers(always(text).session())
    stops = [(), (b"\xa9",), ("é".encode(),), (b"\xa9\n",), (b"zz", b"\n")]
    asked = [Writing(b"a", 4, stop) for stop in stops]
    assert answers.writings([*asked, *asked]) == [b"\xc3\xa9\na", b"\xc3", b"", b"\xc3", b"\xc3\xa9"] * 2


def test_the_snippet_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    model("eager").save(tmp_path / "runs" / "mine")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(snippet, names)
    assert names["answers"].session.model.config == model("eager").config

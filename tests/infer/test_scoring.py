"""Continuations of one prompt, read once, against each text read whole."""

from typing import Any

import numpy as np
import pytest
from torch import Tensor

from aunet.infer import scoring
from aunet.infer.session import Session
from aunet.infer.state import State
from aunet.language_model import LanguageModel
from tests.model.packs import small_config, small_model

PROMPT = b"One two three. " * 9
CONTINUATIONS = [b"four", b"", b" five six", b"4", "n\u00e4".encode(), b"\xff\x00"]


@pytest.mark.parametrize("together", [1, 7, 16384])
@pytest.mark.parametrize("prompt", [b"", PROMPT])
def test_bits_are_those_of_the_whole_text(monkeypatch: pytest.MonkeyPatch, together: int, prompt: bytes) -> None:
    monkeypatch.setattr(scoring, "TOGETHER", together)
    model = LanguageModel(small_model(small_config(3)))
    found = model.continuation_bits(prompt, CONTINUATIONS)
    assert [len(bits) for bits in found] == [len(data) for data in CONTINUATIONS]
    for data, bits in zip(CONTINUATIONS, found, strict=True):
        assert np.allclose(bits, model.bits(prompt + data)[len(prompt) : len(prompt) + len(data)], atol=1e-4)


def test_the_prompt_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = Session.extend

    def counted(self: Session, state: State, ids: Any, *rest: Any) -> list[Tensor]:
        read.append(sum(map(len, ids)))
        return original(self, state, ids, *rest)

    monkeypatch.setattr(Session, "extend", counted)
    LanguageModel(small_model(small_config(2))).continuation_bits(PROMPT, [bytes([i]) * 3 for i in range(50)] * 2)
    assert sum(read) == len(PROMPT) + 1 + 50 * 2

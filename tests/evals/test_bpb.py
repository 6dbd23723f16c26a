"""Bits per byte against the plain forward pass."""

import math
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aunet.bytes import BOS, EOS
from aunet.errors import AUNetError
from aunet.evals.bpb import Score, document_bits, score
from aunet.infer.session import Session
from aunet.language_model import LanguageModel
from tests.model.packs import small_config, small_model

TEXT = "One two, three 1234 naïve! ".encode() * 3 + b"a" * 40 + b"\xff\x80"


@cache
def model(stages: int = 3) -> LanguageModel:
    return LanguageModel(small_model(small_config(stages), seed=1))


@cache
def session(stages: int = 3) -> Session:
    return model(stages).session()


def uncut(data: bytes, stages: int = 3) -> npt.NDArray[np.float64]:
    """Bits of each byte and of EOS by one forward pass over the whole document."""
    scores = model(stages).logits([[BOS, *data]])[0].double().log_softmax(-1)
    return (-scores[range(len(data) + 1), [*data, EOS]] / math.log(2)).numpy()


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
@pytest.mark.parametrize("chunk", [1, 16, len(TEXT), len(TEXT) + 1, 16384])
def test_a_document_read_in_chunks_is_the_document(stages: int, chunk: int) -> None:
    bits = document_bits(session(stages), TEXT, chunk)
    assert bits.shape == (len(TEXT) + 1,)
    assert np.abs(bits - uncut(TEXT, stages)).max() < 1e-4


@settings(max_examples=25, deadline=None)
@given(
    documents=st.lists(st.one_of(st.binary(max_size=50), st.text(max_size=20).map(str.encode)), max_size=6),
    chunk=st.integers(1, 60),
)
def test_documents_together_are_the_documents_alone(documents: list[bytes], chunk: int) -> None:
    found = score(session(), documents, chunk)
    assert abs(found.bits - sum(float(uncut(data).sum()) for data in documents)) < 1e-3
    assert found.bytes == sum(map(len, documents))
    assert found.documents == len(documents)
    assert found.characters == sum(len(data.decode(errors="replace")) for data in documents)


def test_the_end_counts_above_and_never_below() -> None:
    assert model().bits_per_byte(TEXT) == pytest.approx(uncut(TEXT).sum() / len(TEXT), abs=1e-5)
    found = model().score("naïve")
    assert (found.bytes, found.characters, found.documents) == (6, 5, 1)
    assert found.bits_per_character == pytest.approx(found.bits / 5)


def test_an_empty_document_adds_bits_and_no_bytes() -> None:
    one, both = model().score(["words"]), model().score(["words", ""])
    assert (both.bytes, both.documents) == (5, 2)
    assert both.bits - one.bits == pytest.approx(float(uncut(b"")[0]), abs=1e-4)


@pytest.mark.parametrize("documents", [[], [""], ["", ""], ""])
def test_only_empty_documents_have_no_ratio(documents: list[str] | str) -> None:
    with pytest.raises(AUNetError, match="no byte to divide by") as caught:
        model().bits_per_byte(documents)
    assert "\n" not in str(caught.value)
    values = model().score(documents).to_json()
    assert values["bits_per_byte"] is None
    assert values["bits_per_character"] is None
    assert values["bytes"] == 0


def test_scores_add_up() -> None:
    a, b = model().score(["one", "two"]), model().score(["three"])
    assert (a + b).bits == pytest.approx(model().score(["one", "two", "three"]).bits)
    assert a + Score() == a


def test_a_uniform_model_has_log_v_bits_per_symbol() -> None:
    flat = LanguageModel(small_model(small_config(2)))
    with torch.no_grad():
        flat.network.head.weight.zero_()
    assert flat.bits("abc") == pytest.approx([math.log2(258)] * 4)
    assert flat.bits_per_byte(["abc", ""]) == pytest.approx(math.log2(258) * 5 / 3)


def test_short_documents_need_no_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    # Caches are as long as the longest document for each of them: thousands of tiny ones beside it would fill memory.
    monkeypatch.setattr(Session, "start", None)
    assert score(session(), [b"x"] * 2000 + [TEXT]).documents == 2001

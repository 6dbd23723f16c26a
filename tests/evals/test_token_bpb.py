"""Bits per byte of models over tokens, against one uncut forward pass."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aunet.evals.bpb import Score, document_bits, score, score_documents
from aunet.infer import scoring
from aunet.language_model import LanguageModel
from tests.model.packs import small_model
from tests.vocabulary.bpe import TEXTS, token_config, token_model, tokens

TEXT = (TEXTS[0] + TEXTS[1]).encode() + b"\xff\x80 the end"

documents = st.lists(st.one_of(st.binary(max_size=50), st.sampled_from([*map(str.encode, TEXTS), b"the "])), max_size=6)


def uncut(data: bytes) -> npt.NDArray[np.float64]:
    """Bits of each token and of EOS by one forward pass over the whole document."""
    ids = tokens().encode(data).tolist()
    scores = token_model().logits([[tokens().bos, *ids]])[0].double().log_softmax(-1)
    return (-scores[range(len(ids) + 1), [*ids, tokens().eos]] / math.log(2)).numpy()


@pytest.mark.parametrize("chunk", [1, 16, None])
def test_a_document_read_in_chunks_is_the_document(chunk: int | None) -> None:
    bits = document_bits(token_model().session(), TEXT, chunk)
    assert len(bits) == len(tokens().encode(TEXT)) + 1
    assert np.abs(bits - uncut(TEXT)).max() < 1e-4


@settings(max_examples=25, deadline=None)
@given(documents=documents, chunk=st.integers(1, 60))
def test_documents_together_are_the_documents_alone(documents: list[bytes], chunk: int) -> None:
    session = token_model().session()
    each = score_documents(session, documents, chunk)
    for data, found in zip(documents, each, strict=True):
        assert found.bits == pytest.approx(float(uncut(data).sum()), abs=1e-3)
        assert (found.bytes, found.documents) == (len(data), 1)
        assert found.characters == len(data.decode(errors="replace"))
    whole, added = score(session, documents, chunk), sum(each, Score())
    assert whole.bits == pytest.approx(added.bits)
    assert whole.bytes == added.bytes == sum(map(len, documents))


def test_the_bits_of_tokens_and_the_end_are_divided_by_the_bytes() -> None:
    assert token_model().bits_per_byte(TEXT) == pytest.approx(uncut(TEXT).sum() / len(TEXT), abs=1e-5)
    flat = LanguageModel(small_model(token_config()))
    with torch.no_grad():
        assert flat.network.head is not None
        flat.network.head.weight.zero_()
    bits = (len(tokens().encode(TEXT)) + 1) * math.log2(tokens().size)
    assert flat.bits_per_byte(TEXT) == pytest.approx(bits / len(TEXT))


def test_large_vocabularies_are_read_in_smaller_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    session = token_model().session()
    assert scoring.together(session) == scoring.TOGETHER
    monkeypatch.setattr(scoring, "LOGITS", 10 * tokens().size)
    assert scoring.together(session) == 10
    assert score(session, [TEXT]).bits == pytest.approx(float(uncut(TEXT).sum()), abs=1e-3)


def test_continuations_are_tokens_of_their_own() -> None:
    prompt, continuations = "The cat and", [" the dog were", "", " 東京の", b" \xff the"]
    ids = [tokens().encode(text if isinstance(text, bytes) else text.encode()).tolist() for text in continuations]
    before = [tokens().bos, *tokens().encode(prompt.encode()).tolist()]
    for found, new in zip(token_model().continuation_bits(prompt, continuations), ids, strict=True):
        logprobs = token_model().logits([[*before, *new]])[0].double().log_softmax(-1) / math.log(2)
        expected = [-float(logprobs[len(before) - 1 + i, token]) for i, token in enumerate(new)]
        assert found == pytest.approx(expected, abs=1e-4)

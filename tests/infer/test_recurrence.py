"""Mamba-2 stages read through their states: equal to one uncut forward pass, wherever the text is cut."""

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aunet.bytes import BOS
from aunet.errors import ConfigError
from aunet.evals.bpb import document_bits, score
from aunet.infer.drafts import Drafts
from aunet.infer.engine import Engine
from aunet.infer.request import Request
from aunet.infer.sampling import Sampling
from aunet.language_model import AUNetConfig, LanguageModel
from tests.model.packs import small_model

TOLERANCE = 1e-4
TEXT = b"One two, three 1234567 four!? " * 20
MAMBA = {"dim": 16, "layers": 2, "mixer": "mamba2", "head_dim": 8, "state_dim": 12}
ATTENTION = {"dim": 24, "layers": 1, "head_dim": 8, "window": 70}
SHAPES = {
    "mamba": [MAMBA],
    "mamba with look-ups": [{**MAMBA, "lookup": {"ngrams": [2, 5], "buckets": 97}}],
    "mamba first": [MAMBA, ATTENTION],
    "mamba last": [ATTENTION, {**MAMBA, "dim": 32}],
}


@cache
def model(shape: str) -> LanguageModel:
    stages = SHAPES[shape]
    values = {"stages": stages, "splitter": "word1" if len(stages) > 1 else "", "offsets": 4}
    return LanguageModel(small_model(AUNetConfig.model_validate(values), seed=1))


@cache
def uncut(shape: str, data: bytes) -> Tensor:
    return model(shape).logits([[BOS, *data]])[0]


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and float((a - b).abs().max()) < TOLERANCE


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=12, deadline=None)
@given(sizes=st.lists(st.sampled_from([1, 1, 2, 3, 4, 63, 64, 65, 130]), min_size=1, max_size=12))
def test_any_cut_gives_the_logits_of_the_whole(shape: str, sizes: list[int]) -> None:
    session, ids = model(shape).session(), [BOS, *TEXT]
    state, found, first = session.start(1), [], 0
    for size in [*sizes, len(ids)]:
        found += session.extend(state, [ids[first : first + size]])
        first = min(len(ids), first + size)
    assert close(torch.cat(found), uncut(shape, TEXT))


@pytest.mark.parametrize("shape", SHAPES)
def test_sequences_at_different_points_share_a_batch(shape: str) -> None:
    session = model(shape).session()
    texts = [TEXT[:200], TEXT[7:90], TEXT[3:150]]
    state, read, found = session.start(3), [0, 0, 0], [[], [], []]  # type: ignore[var-annotated]
    for sizes in ([1, 40, 7], [30, 0, 30], *[[1, 1, 1]] * 20, [200, 200, 200]):
        pieces = [[BOS, *text][at : at + size] for text, at, size in zip(texts, read, sizes, strict=True)]
        for rows, logits in zip(found, session.extend(state, pieces), strict=True):
            rows.append(logits)
        read = [at + size for at, size in zip(read, sizes, strict=True)]
    for text, rows in zip(texts, found, strict=True):
        assert close(torch.cat(rows), uncut(shape, text))


@pytest.mark.parametrize("shape", SHAPES)
def test_copies_go_on_by_themselves(shape: str) -> None:
    session = model(shape).session()
    state = session.start(1)
    session.extend(state, [[BOS, *TEXT[:80]]])
    copies = state.copy([0, 0])
    ends = [TEXT[80:120], b"#" * 9]
    for data, found in zip(ends, session.extend(copies, [list(end) for end in ends]), strict=True):
        assert close(found, uncut(shape, TEXT[:80] + data)[-len(data) :])
    assert close(session.extend(state, [list(TEXT[80:90])])[0], uncut(shape, TEXT[:90])[-10:])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kept", [1, 2, 5, 11, 12])
def test_what_was_tried_out_is_taken_back(shape: str, kept: int) -> None:
    session, guessed = model(shape).session(), list(b"xy z, w. 123")
    (context,) = (state := session.start(1)).contexts
    session.extend(state, [[BOS, *TEXT[:75]]])
    levels = session.levels(context.copy(), guessed)
    (tried,), (rewind,) = session.try_out([context], [guessed], [levels])
    assert close(tried, uncut(shape, TEXT[:75] + bytes(guessed))[-12:])
    rewind.keep(kept)
    text = TEXT[:75] + bytes(guessed[:kept]) + b" and on"
    assert close(session.extend(state, [list(b" and on")])[0], uncut(shape, text)[-7:])


@pytest.mark.parametrize("shape", SHAPES)
def test_the_engine_writes_what_each_request_gets_alone(shape: str) -> None:
    session = model(shape).session()
    prompts = [b"", TEXT[:30], TEXT[:30], TEXT[:590], b"#" * 70]
    requests = [Request(prompt, 20, Sampling(1.0, seed=i)) for i, prompt in enumerate(prompts)]

    def written(engine: Engine, together: list[Request]) -> list[bytes]:
        tickets = [engine.submit(request) for request in together]
        data = dict.fromkeys(tickets, b"")
        while engine.busy:
            for event in engine.step():
                data[event.index] += event.data
        return list(data.values())

    alone = [written(Engine(session, prompt_cache=0), [request])[0] for request in requests]
    assert written(Engine(session), requests) == alone
    assert written(Engine(session, drafts=Drafts()), requests) == alone


def test_the_prompt_cache_counts_states() -> None:
    engine = Engine(model("mamba").session(), prompt_cache=40_000)
    for i in range(12):
        engine.submit(Request(bytes([65 + i]) * 30, 1))
        while engine.busy:
            engine.step()
        assert engine.prompts.size <= 40_000
    # Two blocks of 56 channels times 4 inputs and of 4 heads times 8 times 12, in fp32; 258 scores and 30 ids.
    size = 2 * 4 * (56 * 4 + 4 * 8 * 12) + 4 * 258 + 4 * 30
    assert engine.prompts.size == len(engine.prompts) * size
    assert len(engine.prompts) == 40_000 // size


def test_long_documents_are_scored_piece_by_piece() -> None:
    network, data = model("mamba"), TEXT * 30
    with torch.no_grad():
        logits_TV = uncut("mamba", data)
        targets = torch.tensor([*data, 257])
        bits = torch.nn.functional.cross_entropy(logits_TV, targets, reduction="none") / torch.log(torch.tensor(2.0))
    assert torch.allclose(torch.from_numpy(document_bits(network.session(), data, 5000)).float(), bits, atol=1e-3)
    assert score(network.session(), [data], 5000).bits == pytest.approx(float(bits.sum()), rel=1e-5)
    assert score(network.session(), [data, data[:100]]).bits_per_byte == pytest.approx(
        (float(bits.sum()) + network.score(data[:100]).bits) / (len(data) + 100), rel=1e-5
    )


def test_compiled_kernels_are_left_out_or_refused() -> None:
    assert not model("mamba").native
    with pytest.raises(ConfigError, match="native: the compiled kernels have no Mamba-2"):
        LanguageModel(model("mamba").network, native=True)


@pytest.mark.parametrize("weights", ["bf16", "int8"])
def test_other_weights_read_and_write(weights: str) -> None:
    one = LanguageModel.random(model("mamba").config, seed=1, weights=weights)
    assert len(one.generate(TEXT[:70], max_bytes=8, seed=0, as_bytes=True)) <= 8
    assert abs(one.bits_per_byte(TEXT) - LanguageModel.random(one.config, seed=1).bits_per_byte(TEXT)) < 0.1

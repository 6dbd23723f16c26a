"""Guesses, and that they change how fast is written but never what."""

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aunet.bytes import BOS
from aunet.errors import ConfigError
from aunet.infer.drafts import Drafts, _place, _places
from aunet.infer.engine import Engine
from aunet.infer.native.build import available
from aunet.infer.request import Request
from aunet.infer.sampling import Sampling
from aunet.infer.session import Session
from aunet.language_model import LanguageModel
from tests.model.packs import RULES, small_config, small_model, with_lookups

TEXT = b"The cat sat on the mat. The dog sat on the log. " * 20


def test_places_of_a_text_are_those_of_its_ends() -> None:
    import numpy as np

    data = TEXT[:50]
    for n in (3, 5, 8):
        found = _places(np.frombuffer(data, dtype=np.uint8), n)
        assert found.tolist() == [_place(data[: i + n], n) for i in range(len(data) - n + 1)]


@pytest.mark.parametrize("by_byte", [False, True])
def test_what_was_read_is_guessed(by_byte: bool) -> None:
    drafts = Drafts()
    assert drafts.guess(b"The cat ", 8) == []
    if by_byte:
        for i in range(len(TEXT)):
            drafts.follow(TEXT[:i][-8:], TEXT[i])
    else:
        drafts.read(TEXT)
    # What follows " the " is a toss-up, for which the newest is taken or nothing.
    assert bytes(drafts.guess(b"The dog sat on", 9)) == (b" the log." if by_byte else b" the ")
    assert bytes(drafts.guess(b"at on the l", 3)) == b"og."
    assert bytes(drafts.guess(b"at on the m", 2)) == b"at"
    assert drafts.guess(b"zzzzzzzz", 8) == []
    assert drafts.guess(b"", 8) == []


def test_what_follows_now_replaces_what_followed_once() -> None:
    drafts = Drafts()
    drafts.read(b"12345678a")
    assert drafts.guess(b"12345678", 1) == [ord("a")]
    for _ in range(3):
        drafts.follow(b"12345678", ord("b"))
    assert drafts.guess(b"12345678", 1) == [ord("b")]


@cache
def model(stages: int, native: bool, lookups: bool = False) -> LanguageModel:
    config = small_config(stages, splitter=RULES[stages - 1])
    return LanguageModel(small_model(with_lookups(config) if lookups else config, seed=2), native=native)


class Always(Drafts):
    """Guesses given bytes, right or wrong."""

    def __init__(self, guesses: list[bytes]) -> None:
        super().__init__()
        self.guesses = guesses

    def guess(self, before: bytes, count: int) -> list[int]:
        self.guesses.append(self.guesses.pop(0))
        return list(self.guesses[-1][:count])


def written(engine: Engine, requests: list[Request]) -> list[bytes]:
    tickets = [engine.submit(request) for request in requests]
    found: dict[int, bytes] = dict.fromkeys(tickets, b"")
    while engine.busy:
        for event in engine.step():
            found[event.index] += event.data
    return list(found.values())


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("stages", [1, 2, 4])
@settings(max_examples=6, deadline=None)
@given(guesses=st.lists(st.binary(max_size=12), min_size=1, max_size=5), seed=st.integers(0, 5))
def test_wrong_guesses_change_nothing(stages: int, native: bool, guesses: list[bytes], seed: int) -> None:
    if native and not available():
        pytest.skip("the compiled kernels need a C++ compiler")
    requests = [
        Request(prompt, 40, Sampling(1.0, seed=seed + i), stop=(b"qz",))
        for i, prompt in enumerate([b"", b"One two. ", TEXT[:150]])
    ]
    session = model(stages, native).session()
    expected = written(Engine(session, prompt_cache=0), requests)
    # Some of what will be written is guessed too, so that guesses are kept and taken back anywhere.
    engine = Engine(session, prompt_cache=0, drafts=Always([*guesses, *(text[9:20] for text in expected)]))
    assert written(engine, requests) == expected


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("stages", [1, 3, 4])
@pytest.mark.parametrize("lookups", [False, True])
def test_a_context_that_went_back_reads_on_as_if_it_had_not(stages: int, native: bool, lookups: bool) -> None:
    if native and not available():
        pytest.skip("the compiled kernels need a C++ compiler")
    session: Session = model(stages, native, lookups).session()
    start = b"a b c dd " * 7
    for kept in range(1, 12):
        (context,) = (state := session.start(1)).contexts
        session.extend(state, [[BOS, *start]])
        guessed = list(b"xy z, w. 123"[:12])
        levels = session.levels(context.copy(), guessed)
        _, (rewind,) = session.try_out([context], [guessed], [levels])
        rewind.keep(kept)
        found = session.extend(state, [list(b" and on, 4")])[0]
        whole = model(stages, native, lookups).logits([[BOS, *start, *guessed[:kept], *b" and on, 4"]])[0]
        assert float((found - whole[-10:]).abs().max()) < 1e-4


def test_a_repetitive_text_takes_fewer_passes() -> None:
    class Text(Sampling):
        def generator(self) -> Any:
            return iter(TEXT)

        def draw(self, logits_V: Any, generator: Any) -> int:
            return int(next(generator))

    engine = Engine(model(2, False).session(), drafts=Drafts(), guesses=8)
    assert written(engine, [Request(b"", 600, Text())]) == [TEXT[:600]]
    assert engine.counters.passes < 600 / 3
    assert engine.counters.accepted_bytes > 400
    assert engine.counters.new_bytes == 600
    assert engine.counters.guessed_bytes >= engine.counters.accepted_bytes


def test_bad_guesses_are_one_line() -> None:
    for guesses in (0, 65):
        with pytest.raises(ConfigError, match=r"^guesses: "):
            Engine(model(2, False).session(), drafts=Drafts(), guesses=guesses)
    assert torch.is_inference_mode_enabled() is False

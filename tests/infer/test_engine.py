"""Any schedule of joins, leaves and shared prompts gives what each request gives alone."""

import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aunet.bytes import BOS
from aunet.errors import ConfigError
from aunet.infer import engine as engine_module
from aunet.infer.engine import HOLD, Engine
from aunet.infer.request import Event, Request
from aunet.infer.sampling import Sampling
from aunet.infer.session import Session
from aunet.infer.state import State
from aunet.language_model import LanguageModel
from tests.model.packs import RULES, small_config, small_model, with_lookups

KERNELS = "eager"
"""What `model` reads with; the fixture sets it."""


@pytest.fixture(autouse=True)
def _kernels(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "KERNELS", kernels)


def model(stages: int = 3, lookups: bool = False) -> LanguageModel:
    return _model(stages, lookups, KERNELS == "native")


@cache
def _model(stages: int, lookups: bool, native: bool) -> LanguageModel:
    config = small_config(stages, splitter=RULES[stages - 1])
    return LanguageModel(small_model(with_lookups(config) if lookups else config, seed=2), native=native)


def run(engine: Engine, events: list[Event] | None = None) -> dict[int, list[Event]]:
    """Everything until nothing is left to do, by ticket."""
    found: dict[int, list[Event]] = {}
    waiting = list(events or [])
    while engine.busy or waiting:
        for event in waiting or engine.step():
            found.setdefault(event.index, []).append(event)
        waiting = []
    return found


def data(events: list[Event]) -> bytes:
    assert events[-1].finish
    assert not any(event.finish for event in events[:-1])
    return b"".join(event.data for event in events)


def alone(request: Request, stages: int = 3) -> bytes:
    engine = Engine(model(stages).session(), prompt_cache=0)
    engine.submit(request)
    (events,) = run(engine).values()
    return data(events)


SHARED = b"One two three, 1234567. " * 30
PROMPTS = [b"", b"One", SHARED, SHARED + b"and more", SHARED[:600] + b"another end", b"\xff\xfe", "naïve 漢字".encode()]
requests = st.builds(
    Request,
    prompt=st.sampled_from(PROMPTS),
    max_bytes=st.integers(0, 30),
    sampling=st.builds(Sampling, temperature=st.sampled_from([0.0, 1.0]), seed=st.integers(0, 3)),
)


@settings(max_examples=25, deadline=None)
@given(
    asked=st.lists(requests, min_size=1, max_size=9),
    arrivals=st.lists(st.integers(0, 40), min_size=9, max_size=9),
    slots=st.integers(1, 8),
    prompt_cache=st.sampled_from([0, 100_000, 1 << 30]),
    piece=st.sampled_from([16, 512]),
    invariant=st.booleans(),
)
def test_any_schedule_writes_what_each_request_writes_alone(
    asked: list[Request], arrivals: list[int], slots: int, prompt_cache: int, piece: int, invariant: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_module, "PIECE", piece)
        patch.setattr(engine_module, "PROMPT_IDS", 4 * piece)
        engine = Engine(model().session(), slots, prompt_cache, invariant)
        waiting = sorted(zip(arrivals, range(len(asked)), strict=False))
        tickets: dict[int, Request] = {}
        found: dict[int, list[Event]] = {}
        for time in range(10_000):
            while waiting and waiting[0][0] <= time:
                request = asked[waiting.pop(0)[1]]
                tickets[engine.submit(request)] = request
            if not waiting and not engine.busy:
                break
            for event in engine.step():
                found.setdefault(event.index, []).append(event)
            assert engine.running <= slots
        assert not engine.busy
    for ticket, request in tickets.items():
        assert data(found[ticket]) == alone(request)


@pytest.mark.parametrize(("stages", "lookups"), [(1, False), (2, False), (4, False), (3, True)])
def test_logits_are_those_of_the_forward_pass(monkeypatch: pytest.MonkeyPatch, stages: int, lookups: bool) -> None:
    """Also of requests that join late, share a prompt, or take the place of one that left."""
    checked: list[int] = []
    original = Session.extend

    def compared(self: Session, state: State, ids: Any, *rest: Any) -> list[Tensor]:
        found = original(self, state, ids, *rest)
        for context, new, logits in zip(state.contexts, ids, found, strict=True):
            history = texts.setdefault(id(context), [])
            if not history and context.seen > len(new):
                history += [BOS, *next(p for p in PROMPTS if len(p) + 1 == context.seen - len(new))]
            history += new
            whole = model(stages, lookups).logits([history])[0]
            assert float((logits - whole[-len(new) :]).abs().max()) < 1e-4
            checked.append(len(new))
            kept.append(context)
        return found

    texts: dict[int, list[int]] = {}
    kept: list[Any] = []
    monkeypatch.setattr(Session, "extend", compared)
    engine = Engine(model(stages, lookups).session(), slots=3)
    for i, prompt in enumerate([b"One", SHARED, SHARED, b"One", SHARED + b"and more"]):
        engine.submit(Request(prompt, 12, Sampling(1.0, seed=i)))
        engine.step()
        engine.step()
    run(engine)
    assert len(checked) > 20
    assert engine.counters.cached_prompt_bytes >= 2 * len(SHARED)


@pytest.mark.parametrize("lookups", [False, True])
def test_invariant_reading_gives_the_same_bits_in_any_company(monkeypatch: pytest.MonkeyPatch, lookups: bool) -> None:
    seen: list[bytes] = []
    original = Sampling.draw

    def noted(self: Sampling, logits_V: Any, generator: Any) -> int:
        if self.seed == 77:
            seen.append(logits_V.tobytes())
        return original(self, logits_V, generator)

    monkeypatch.setattr(Sampling, "draw", noted)
    wanted = Request(SHARED + b"end", 20, Sampling(0.0, seed=77))
    histories = []
    for company in (0, 5):
        engine = Engine(model(lookups=lookups).session(), invariant=True)
        for i in range(company):
            engine.submit(Request(PROMPTS[i], 25, Sampling(1.0, seed=i)))
            engine.step()
        engine.submit(wanted)
        run(engine)
        histories.append(list(seen))
        seen.clear()
    assert histories[0] == histories[1]
    assert len(histories[0]) > 1


def test_a_shared_prompt_is_read_once() -> None:
    engine = Engine(model().session())
    for seed in range(6):
        engine.submit(Request(SHARED, 5, Sampling(1.0, seed=seed)))
    found = run(engine)
    assert len({data(events) for events in found.values()}) > 1
    assert engine.counters.cached_prompt_bytes == 5 * len(SHARED)
    # Another end: everything up to the last piece that both have.
    engine.submit(Request(SHARED[:700] + b"#" * 50, 1))
    run(engine)
    assert engine.counters.cached_prompt_bytes == 5 * len(SHARED) + 512


def test_prompts_of_those_who_wait_are_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And again when nobody reads any more what they wait for."""
    compared: list[int] = []
    original = engine_module._kept_in_common

    def counted(a: list[int], b: list[int]) -> int:
        compared.append(len(a))
        return original(a, b)

    monkeypatch.setattr(engine_module, "_kept_in_common", counted)
    engine = Engine(model().session())
    asked = [Request(SHARED * 6, 5, Sampling(1.0, seed=seed)) for seed in range(5)]
    tickets = [engine.submit(request) for request in asked]
    for _ in range(4):
        assert not engine.step()
    assert (engine.running, engine.waiting, len(compared)) == (1, 4, 4)
    engine.cancel(tickets[0])
    found = run(engine)
    assert len(compared) == 4 + 3
    assert [data(found[ticket]) for ticket in tickets[1:]] == [alone(request) for request in asked[1:]]


def test_a_long_prompt_is_packed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not as far as it was read for every piece, which took most of the time of very long ones."""
    packed: list[int] = []
    original = engine_module.pack

    def counted(ids: list[int]) -> bytes:
        packed.append(len(ids))
        return original(ids)

    monkeypatch.setattr(engine_module, "pack", counted)
    engine, prompt = Engine(model().session()), bytes(i * i % 251 for i in range(2000))
    engine.submit(Request(prompt, 1))
    run(engine)
    assert packed == [len(prompt)]
    assert [read.count for read in engine.prompts._read.values()] == [512, 1024, 1536, 2000]


def test_the_prompt_cache_keeps_within_its_bound() -> None:
    engine = Engine(model().session(), prompt_cache=400_000)
    sizes = []
    for i in range(20):
        engine.submit(Request(bytes([65 + i]) * 600, 1))
        run(engine)
        sizes.append(engine.prompts.size)
    assert max(sizes) <= 400_000
    assert len(engine.prompts) >= 2
    reads = engine.prompts._read
    pages = {id(page): page.nbytes for read in reads.values() for page in read.context.kept()}
    own = sum(len(key) + read.logits_V.nbytes for key, read in reads.items())
    assert engine.prompts.size == sum(pages.values()) + own


def test_a_cancelled_request_frees_its_place() -> None:
    engine = Engine(model().session(), slots=1)
    first, second = (engine.submit(Request(b"abc", 200, Sampling(1.0, seed=i))) for i in range(2))
    events = [event for _ in range(5) for event in engine.step()]
    assert {event.index for event in events} == {first}
    assert (engine.running, engine.waiting) == (1, 1)
    engine.cancel(first)
    engine.cancel(999)
    assert {event.index for event in engine.step()} <= {second}
    third = engine.submit(Request(b"abc", 5))
    engine.cancel(third)
    assert set(run(engine)) <= {second}
    assert not engine.busy


def test_nobody_waits_long_for_others_that_complete_a_unit() -> None:
    engine = Engine(model(2).session())
    ends = engine.submit(Request(b"a b c d e f g h", 60, Sampling(1.0, seed=1)))
    for i in range(7):
        engine.submit(Request(b"a" * i, 60, Sampling(1.0, seed=i)))
    gaps, last = [], 0
    for number in range(1, 1000):
        events = engine.step()
        mine = [event for event in events if event.index == ends]
        if mine:
            gaps.append(number - last)
            last = number
        if any(event.finish for event in mine):
            break
    assert max(gaps) <= HOLD + 2


def units_of_reads(monkeypatch: pytest.MonkeyPatch, hold: int) -> list[int]:
    """Units of each read in which eight sequences go on and the trunk runs."""
    session, found = Session(model(2).network, model(2).splitter, model(2).session().kernels), []
    original = session.kernels.read

    def noted(contexts: Any, *rest: Any) -> Any:
        logits_TV, outputs = original(contexts, *rest)
        if len(outputs) > 1 and len(logits_TV) <= 8:
            found.append(len(outputs[1]))
        return logits_TV, outputs

    with monkeypatch.context() as patch:
        patch.setattr(session.kernels, "read", noted)
        patch.setattr(engine_module, "HOLD", hold)
        engine = Engine(session, prompt_cache=0)
        for i in range(8):
            engine.submit(Request(b"start " * (i + 2), 60, Sampling(1.0, seed=i)))
        run(engine)
    return found


def test_units_are_read_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for each other, the sequences of a batch run the deeper stages less often, for more of them at a time."""
    at_once, waited = units_of_reads(monkeypatch, 0), units_of_reads(monkeypatch, HOLD)
    assert sum(at_once) == sum(waited)
    assert len(waited) < len(at_once)


@pytest.mark.parametrize("stop", [(), (b"e",)])
def test_scores_are_log_probabilities_of_the_model(stop: tuple[bytes, ...]) -> None:
    engine = Engine(model().session())
    request = Request(b"Some words", 20, Sampling(1.0, seed=3), stop, alternatives=3, echo=True)
    engine.submit(request)
    (events,) = run(engine).values()
    text = data(events)
    assert text.startswith(b"Some words")
    scores = [score for event in events for score in event.scores]
    assert [score.id for score in scores] == list(text)
    logprobs = model().logits([[BOS, *text]])[0].log_softmax(-1)
    for i, (score, row) in enumerate(zip(scores, logprobs, strict=False)):
        assert math.isclose(score.logprob, float(row[text[i]]), abs_tol=1e-4)
        assert np.allclose([p for _, p in score.top], row.topk(3).values, atol=1e-4)
    engine.submit(replace(request, alternatives=None))
    (plain,) = run(engine).values()
    assert data(plain) == text
    assert not any(event.scores for event in plain)
    engine.submit(replace(request, echo=False, alternatives=0))
    (bare,) = run(engine).values()
    assert data(bare) == text[10:]
    assert all(score.top == () for event in bare for score in event.scores)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"max_bytes": -1}, "max_bytes"),
        ({"max_bytes": 2.5}, "max_bytes"),
        ({"stop": (b"",)}, "stop"),
        ({"alternatives": -1}, "alternatives"),
    ],
)
def test_bad_requests_are_one_line(options: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=f"^{key}: .+") as caught:
        Request(b"x", **options)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"^slots: "):
        Engine(model().session(), slots=0)
    with pytest.raises(ConfigError, match=r"^prompt_cache: "):
        Engine(model().session(), prompt_cache=-1)


def test_forks_share_pages_and_do_not_write_to_each_others() -> None:
    session = model().session()
    state = session.start(1)
    session.extend(state, [[BOS, *b"a b c d " * 50]])
    (original,), (fork, other) = state.contexts, state.copy([0, 0]).contexts
    # As bits: what was never written may be anything, also no number.
    kept = [page.data.view(torch.int32).clone() for page in original.kept()]
    session.extend(State([fork, other]), [list(b"e f "), list(b"x y ")])
    for page, before in zip(original.kept(), kept, strict=True):
        assert torch.equal(page.data.view(torch.int32), before)
    mine, theirs = original.memories[2].pages, fork.memories[2].pages  # of the trunk, which has no window
    assert len(mine) > 1
    assert all(a is b for a, b in zip(mine[:-1], theirs, strict=False))
    assert mine[-1] not in theirs


def test_pages_that_nobody_sees_any_more_are_let_go() -> None:
    session = model().session()
    state = session.start(1)
    for _ in range(40):
        session.extend(state, [list(b"a b c d " * 20)])
    windowed = [memory for memory in state.contexts[0].memories if memory.window]
    assert windowed
    assert all(len(memory.pages) <= 4 + (memory.window or 0) // 64 for memory in windowed)

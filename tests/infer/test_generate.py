"""Generation: what is drawn, when it ends, what is given out."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aunet.bytes import BOS, EOS, VOCAB_SIZE
from aunet.errors import AUNetError, ConfigError
from aunet.infer.engine import Engine
from aunet.infer.generate import Generated, collect, generate
from aunet.infer.request import Event, Request
from aunet.infer.sampling import Sampling
from aunet.infer.state import State
from aunet.infer.writer import Writer, score_of
from aunet.language_model import LanguageModel
from aunet.splitting import splitter
from aunet.vocabulary import BYTES
from tests.model.packs import small_config, small_model


@cache
def model() -> LanguageModel:
    return LanguageModel(small_model(small_config(2), seed=3))


class Script:
    """Stands in for a session: every sequence is continued by given ids, in the order in which they start."""

    vocabulary = BYTES

    class kernels:
        invariant = True

    class Context:
        seen = 0
        stream = splitter("").stream()

        def __init__(self, script: list[int]) -> None:
            self.script = script

        def copy(self) -> "Script.Context":
            return self

        def kept(self) -> list[Any]:
            return []

    def __init__(self, *scripts: Sequence[int]) -> None:
        self.scripts = [list(script) for script in scripts]

    def context(self) -> "Script.Context":
        return self.Context(self.scripts.pop(0))

    def levels(self, context: "Script.Context", ids: Sequence[int]) -> list[int]:
        return [0] * len(ids)

    def extend(self, state: State, ids: Sequence[Sequence[int]], levels: Any) -> list[Tensor]:
        found = []
        contexts: list[Any] = list(state.contexts)
        for context, new in zip(contexts, ids, strict=True):
            assert new[0] == BOS if not context.seen else new[0] < BOS
            context.seen += len(new)
            rows = torch.zeros(len(new), VOCAB_SIZE)
            rows[-1, context.script.pop(0)] = 9.0
            found.append(rows)
        return found


def play(*scripts: Sequence[int], **options: Any) -> tuple[list[Event], list[Generated]]:
    """Events and results of scripted continuations."""
    endless = [[*script, *[ord("~")] * 300] for script in scripts]
    session: Any = Script(*endless)
    # Prompts that share nothing: each is read by itself.
    prompts = [bytes([i]) for i in range(len(scripts))]
    events = list(generate(session, prompts, sampling=Sampling(temperature=0), **options))
    return events, collect(events)


def test_a_sequence_in_a_batch_draws_what_it_draws_alone() -> None:
    prompts: list[str | bytes] = ["One", "", b"\xff\xfe", "A longer prompt, 12345 "]
    options: dict[str, Any] = {"max_bytes": 40, "temperature": 1.0, "as_bytes": True}
    together = model().generate(prompts, seed=5, **options)
    assert together == [model().generate(prompt, seed=5 + i, **options) for i, prompt in enumerate(prompts)]
    assert together == model().generate(prompts, seed=5, **options)
    assert together != model().generate(prompts, seed=6, **options)


def test_each_prompt_may_have_its_own_sampling() -> None:
    each = [Sampling(seed=1), Sampling(temperature=0), Sampling(seed=1)]
    found = collect(generate(model().session(), ["ab", "ab", "ab"], 20, each))
    assert found[0] == found[2] != found[1]
    assert found[1].data == model().generate("ab", max_bytes=20, temperature=0, as_bytes=True)


@pytest.mark.parametrize("greedy", [{"temperature": 0}, {"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-60}])
def test_ways_to_take_the_likeliest_byte(greedy: dict[str, Any]) -> None:
    ids = [BOS, *b"Some words"]
    for _ in range(12):
        scores = model().logits([ids])[0, -1]
        scores[BOS] = -torch.inf
        ids.append(int(scores.argmax()))
    expected = bytes(ids[11:]) if EOS not in ids else bytes(ids[11 : ids.index(EOS)])
    for seed in (0, 1):
        found = model().generate("Some words", max_bytes=12, seed=seed, as_bytes=True, **greedy)
        assert found == expected


def test_greedy_is_deterministic_whatever_the_seed() -> None:
    assert len({model().generate("x", max_bytes=30, temperature=0, seed=s, as_bytes=True) for s in range(3)}) == 1


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint64])
def test_numbers_of_numpy_are_numbers(kind: type[np.integer[Any]]) -> None:
    options = {"max_bytes": 20, "top_k": 9, "seed": 7}
    expected = model().generate("x", as_bytes=True, **options)
    assert model().generate("x", as_bytes=True, **{name: kind(value) for name, value in options.items()}) == expected


@pytest.mark.parametrize("count", [0, 1, 7])
def test_max_bytes(count: int) -> None:
    _, (found,) = play([97] * 10, max_bytes=count)
    assert found == Generated("a" * count, b"a" * count, "length")
    assert len(model().generate("x", max_bytes=count, as_bytes=True)) <= count


@pytest.mark.parametrize(
    ("script", "stop", "finish"),
    [(b"ab", b"bc", "eos"), (b"", b"x", "eos"), (b"abcdef", b"x", "length"), (b"abc", b"bc", "stop")],
)
def test_an_end_is_scored_where_it_is_drawn(script: bytes, stop: bytes, finish: str) -> None:
    """One score for every draw, as those who count scores expect; nothing was drawn at a limit."""
    session: Any = Script([*script, EOS, EOS])
    engine = Engine(session)
    engine.submit(Request(b"", 6, Sampling(temperature=0), (stop,), alternatives=1))
    events = []
    while engine.busy:
        events += engine.step()
    data = b"".join(event.data for event in events)
    assert events[-1].finish == finish
    assert [score.id for event in events for score in event.scores] == [*data, *([EOS] if finish == "eos" else [])]


def test_marks_are_never_given_out() -> None:
    scores = np.zeros(VOCAB_SIZE, dtype=np.float32)
    scores[BOS] = 50.0
    drawing = Sampling(temperature=1.0)
    generator = drawing.generator()
    drawn = {drawing.draw(scores, generator) for _ in range(3000)}
    assert BOS not in drawn
    assert EOS in drawn
    assert len(drawn) > 250
    assert scores[BOS] == 50.0  # what the caller has is left alone
    assert Sampling(temperature=0).draw(scores, generator) == 0


def test_bos_is_no_alternative() -> None:
    """However likely a model holds it, as one that was not trained may: it is never drawn."""
    logits_V = np.zeros(VOCAB_SIZE, dtype=np.float32)
    logits_V[[BOS, 97, EOS]] = 4, 3, 2
    found = score_of(logits_V, 97, 2)
    assert [i for i, _ in found.top] == [97, EOS]
    assert found.logprob == found.top[0][1] == pytest.approx(3 - np.log(np.exp(logits_V).sum()))
    assert {i for i, _ in score_of(logits_V, 97, VOCAB_SIZE).top} == set(range(VOCAB_SIZE))


def test_top_k_and_top_p_cut_where_they_say() -> None:
    weights = np.full(VOCAB_SIZE, 1e-6, dtype=np.float32)
    weights[[10, 20, 30]] = 0.5, 0.3, 0.19
    scores = np.log(weights)

    def drawn(**options: Any) -> set[int]:
        sampling = Sampling(temperature=1.0, **options)
        generator = sampling.generator()
        return {sampling.draw(scores, generator) for _ in range(400)}

    assert drawn(top_k=2) == drawn(top_p=0.7) == drawn(top_p=0.51) == {10, 20}
    assert drawn(top_p=0.4) == drawn(top_k=1) == {10}
    assert drawn(top_k=2, top_p=0.01) == {10}
    assert {10, 20, 30} <= drawn(top_p=1.0)
    assert {10, 20, 30} <= drawn(top_k=1000)


@pytest.mark.parametrize("temperature", [1e-320, 1e-40, 1e-3, 1.0, 1e30])
def test_no_temperature_breaks_the_drawing(temperature: float) -> None:
    scores = np.linspace(-80, 80, VOCAB_SIZE, dtype=np.float32)
    sampling = Sampling(temperature=temperature)
    drawn = sampling.draw(scores, sampling.generator())
    assert 0 <= drawn < VOCAB_SIZE
    assert drawn != BOS
    assert drawn == EOS or temperature >= 1


def test_eos_on_the_first_byte_ends() -> None:
    events, (found,) = play([EOS])
    assert events == [Event(0, "", b"", "eos")]
    assert found == Generated("", b"", "eos")
    ending = LanguageModel(small_model(small_config(2)))
    with torch.no_grad():
        # Every row of the head but that of EOS is 0, and its score is positive and large.
        ending.network.head.weight[:] = 0
        ending.network.norm.weight[:] = 0
        ending.network.norm.weight[0] = 1.0
        ending.network.head.weight[EOS, 0] = 1000.0 * _sign_of_first_feature(ending)
    assert ending.generate("ab", temperature=0) == ""
    assert [event.finish for event in ending.stream(["ab", "ab"], temperature=0)] == ["eos", "eos"]


@torch.no_grad()
def _sign_of_first_feature(ending: LanguageModel) -> float:
    ending.network.head.weight[EOS, 0] = 1.0
    return float(ending.logits([[BOS, *b"ab"]])[0, -1, EOS].sign())


def test_sequences_that_end_leave_the_others_going() -> None:
    _, found = play([97, EOS], [98] * 9, [EOS], [99, 99, EOS], max_bytes=5)
    assert [(one.data, one.finish) for one in found] == [
        (b"a", "eos"),
        (b"bbbbb", "length"),
        (b"", "eos"),
        (b"cc", "eos"),
    ]


def test_a_stop_string_on_the_first_byte() -> None:
    events, _ = play(b"abc", stop=["a"])
    assert events == [Event(0, "", b"", "stop")]


def test_a_stop_string_across_events_is_never_given_out() -> None:
    events, (found,) = play(b"one END two", stop=["END"])
    assert found == Generated("one ", b"one ", "stop")
    assert [event.data for event in events] == [b"o", b"n", b"e", b" ", b""]


def test_what_only_began_like_a_stop_string_is_given_out() -> None:
    events, (found,) = play(b"EEND.", stop=["ENDED"], max_bytes=6)
    assert found == Generated("EEND.~", b"EEND.~", "length")
    assert [event.data for event in events] == [b"E", b"END.", b"~"]
    # The end comes while a beginning is held back.
    assert play([*b"xEN", EOS], stop=["END"])[1][0] == Generated("xEN", b"xEN", "eos")
    assert play(b"xENDED", stop=["ENDED!"], max_bytes=4)[1][0] == Generated("xEND", b"xEND", "length")


def test_several_stop_strings_and_overlaps() -> None:
    assert play(b"aaab", stop=["aab"])[1][0].data == b"a"
    assert play(b"hello", stop=["lo", "ll", "x"])[1][0].data == b"he"
    assert play(b"hello", stop="ll")[1][0].data == b"he"
    assert play(b"hello", stop=bytearray(b"ll"))[1][0].data == b"he"
    assert play([*b"hello", EOS], stop=None)[1][0].data == b"hello"
    assert play(b"abcd", stop=["bcd", "c"])[1][0].data == b"ab"
    # They end at the same byte: their order does not matter.
    assert [play(b"hello", stop=stops)[1][0].data for stops in (["l", "el"], ["el", "l"])] == [b"h", b"h"]


def test_a_stop_string_inside_a_character() -> None:
    events, (found,) = play("aéb".encode(), stop=[b"\xa9"])
    assert found == Generated("a\N{REPLACEMENT CHARACTER}", b"a\xc3", "stop")
    assert events[-1].text == "\N{REPLACEMENT CHARACTER}"
    assert play("é漢".encode(), stop=["漢"])[1][0] == Generated("é", "é".encode(), "stop")


@settings(max_examples=150, deadline=None)
@given(
    data=st.one_of(st.binary(max_size=30), st.text(max_size=12).map(str.encode)),
    stops=st.lists(st.one_of(st.binary(min_size=1, max_size=3), st.sampled_from([b"a", b"ab", b"aab"])), max_size=3),
    ended=st.booleans(),
)
def test_streamed_text_is_the_decoded_bytes(data: bytes, stops: list[bytes], ended: bool) -> None:
    script = [*data, EOS] if ended or not data else list(data)
    writer = Writer(0, Request(b"", 99 if ended or not data else len(data), Sampling(temperature=0), tuple(stops)))
    events: list[Event] = []
    for chosen in script:
        events.append(writer.take(chosen))
        if events[-1].finish:
            break
    assert events[-1].finish
    (found,) = collect(events)
    assert found.text == found.data.decode(errors="replace")
    # A text ends where the first stop string ends.
    ends = [end for end in range(1, len(data) + 1) if any(data[:end].endswith(stop) for stop in stops)]
    if ends:
        assert found.finish == "stop"
        assert found.data in {data[: ends[0] - len(stop)] for stop in stops if data[: ends[0]].endswith(stop)}
    else:
        assert found.data == data
        assert found.finish == ("eos" if ended or not data else "length")
    given_out = b""
    for event in events[:-1]:
        given_out += event.data
        assert not any(stop in given_out for stop in stops)


def test_prompts_that_are_empty_or_not_utf8() -> None:
    for prompt in ("", b"", b"\xff\x80\xe2", "\ud800"):
        assert len(model().generate(prompt, max_bytes=3, as_bytes=True)) <= 3
    assert model().generate([]) == []
    assert isinstance(model().generate(b"\xc3", max_bytes=3), str)


def test_the_bytes_are_those_of_the_events() -> None:
    events = list(model().stream(["a", "b"], max_bytes=25, temperature=1.2))
    for i, found in enumerate(collect(events)):
        assert found.data == b"".join(event.data for event in events if event.index == i)
        assert found.text == found.data.decode(errors="replace")
        assert found.to_json()["bytes_hex"] == found.data.hex()
    assert sum(event.finish is not None for event in events) == 2


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_k", 0),
        ("top_k", 2.5),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_p", float("nan")),
        ("max_bytes", -1),
        ("stop", ""),
        ("stop", ["a", ""]),
        ("seed", 2**70),
        ("seed", 1.5),
    ],
)
def test_bad_options_are_one_line(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{option}: .+") as caught:
        model().generate("x", **{option: value})
    assert "\n" not in str(caught.value)


def test_a_model_that_gives_no_numbers_is_one_line() -> None:
    scores = np.full(VOCAB_SIZE, np.nan, dtype=np.float32)
    for sampling in (Sampling(), Sampling(temperature=0)):
        with pytest.raises(AUNetError, match="not a finite number"):
            sampling.draw(scores, sampling.generator())

"""Generation by models over tokens: a drawn id gives several bytes."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aunet.errors import ConfigError
from aunet.infer import scoring
from aunet.infer.drafts import Drafts
from aunet.infer.engine import Engine
from aunet.infer.generate import collect, generate
from aunet.infer.request import Event, Request
from aunet.infer.sampling import Sampling
from aunet.infer.writer import Writer
from aunet.language_model import LanguageModel
from tests.vocabulary.bpe import TEXTS, token_config, token_model, tokens

PROMPT = "The cat and the"


def greedy(model: LanguageModel, count: int) -> bytes:
    """What follows the prompt, by the full forward pass, each time anew."""
    ids = [tokens().bos, *tokens().encode(PROMPT.encode()).tolist()]
    start = len(ids)
    while len(ids) < start + count and ids[-1] != tokens().eos:
        scores = model.logits([ids])[0, -1]
        scores[tokens().bos] = -torch.inf
        ids.append(int(scores.argmax()))
    return tokens().decode(ids[start:])


@pytest.mark.parametrize("native", [False, None])
@pytest.mark.parametrize("tied", [False, True])
def test_greedy_is_the_full_forward(native: bool | None, tied: bool) -> None:
    model = LanguageModel(token_model(tied=tied).network, native)
    expected = greedy(model, 12)
    found = model.generate(PROMPT, max_bytes=len(expected), temperature=0, as_bytes=True)
    assert found == expected
    assert len(expected) > 12


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 20])
def test_max_bytes_counts_bytes_and_may_cut_a_token(count: int) -> None:
    whole = greedy(token_model(), 25)
    assert len(whole) > 20
    (found,) = collect(token_model().stream(PROMPT, max_bytes=count, temperature=0))
    assert (found.data, found.finish) == (whole[:count], "length")


def test_seeds_batches_and_shared_prompts() -> None:
    model, options = token_model(), {"max_bytes": 30, "temperature": 1.0, "as_bytes": True}
    prompts: list[str | bytes] = [PROMPT, "", b"\xff\xfe", "東京の朝 1234", PROMPT * 3, PROMPT * 3]
    together = model.generate(prompts, seed=5, **options)
    assert together == [model.generate(prompt, seed=5 + i, **options) for i, prompt in enumerate(prompts)]
    assert len(set(together)) > 3


def written(engine: Engine, request: Request) -> bytes:
    engine.submit(request)
    found = b""
    while engine.busy:
        found += b"".join(event.data for event in engine.step())
    return found


def test_a_prompt_is_read_once_and_counted_in_bytes() -> None:
    # The second prompt begins with the bytes of the first, and with all of its tokens.
    engine, prompt = Engine(token_model().session()), (TEXTS[0] * 20).encode()
    longer = prompt + b"The dog"
    assert tokens().encode(longer).tolist()[: len(tokens().encode(prompt))] == tokens().encode(prompt).tolist()
    first = written(engine, Request(prompt, 10, Sampling(seed=1)))
    assert engine.counters.cached_prompt_bytes == 0
    assert written(engine, Request(prompt, 10, Sampling(seed=1))) == first
    assert engine.counters.cached_prompt_bytes == len(prompt)
    second = written(engine, Request(longer, 10, Sampling(seed=2)))
    assert engine.counters.cached_prompt_bytes == 2 * len(prompt)
    assert second == written(Engine(token_model().session()), Request(longer, 10, Sampling(seed=2)))
    assert engine.counters.prompt_bytes == 2 * len(prompt) + len(longer)
    assert engine.counters.new_bytes == len(first) * 2 + len(second)


def test_the_vocabulary_bounds_how_much_is_read_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each id that is read gives as many logits as there are tokens: with large vocabularies gigabytes."""
    session = token_model().session()
    requests = [Request(bytes(97 + (i * j) % 26 for j in range(1500)), 5, Sampling(seed=i)) for i in range(1, 9)]
    alone = [written(Engine(session), request) for request in requests]
    sizes: list[int] = []
    read = session.kernels.read

    def watched(contexts: Any, ids: Any, levels: Any, new: Any) -> Any:
        sizes.append(len(ids))
        return read(contexts, ids, levels, new)

    monkeypatch.setattr(session.kernels, "read", watched)
    monkeypatch.setattr(scoring, "LOGITS", 600 * session.vocabulary.size)
    engine, found = Engine(session), dict.fromkeys(range(1, 9), b"")
    for request in requests:
        engine.submit(request)
    while engine.busy:
        for event in engine.step():
            found[event.index] += event.data
    assert list(found.values()) == alone
    assert max(sizes) <= 600


def test_bytes_in_common_are_not_tokens_in_common() -> None:
    # "the ri" is a beginning of "the river", which has other tokens; what was read for it is not taken.
    engine = Engine(token_model().session())
    for prompt in (b"the ri", b"the river"):
        expected = written(Engine(token_model().session()), Request(prompt, 20, Sampling(seed=1)))
        assert written(engine, Request(prompt, 20, Sampling(seed=1))) == expected


class Given:
    """Plays ids to a writer."""

    def __init__(self, text: bytes, **options: Any) -> None:
        self.writer = Writer(0, Request(b"", options.pop("max_bytes", 1000), **options), tokens())
        self.events: list[Event] = []
        for i in [*tokens().encode(text).tolist(), tokens().eos]:
            self.events.append(self.writer.take(i))
            if self.events[-1].finish:
                break

    @property
    def data(self) -> bytes:
        return b"".join(event.data for event in self.events)

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events)


documents = st.lists(st.sampled_from([" the", " river", "東京", "é", " 1", "\n", "34", "he"]), max_size=8).map("".join)


@settings(max_examples=100, deadline=None)
@given(text=documents, stop=st.sampled_from(["he", "river", "e r", "\n", "京", "34", "xx"]), most=st.integers(1, 40))
def test_stop_strings_and_limits_are_those_of_the_bytes(text: str, stop: str, most: int) -> None:
    data = text.encode()
    before, found, _ = data.partition(stop.encode())
    played = Given(data, stop=(stop.encode(),), max_bytes=most)
    if found and len(before) + len(stop.encode()) <= most:
        assert (played.data, played.events[-1].finish) == (before, "stop")
    else:
        assert (played.data, played.events[-1].finish) == (data[:most], "eos" if len(data) < most else "length")
    assert played.text == played.data.decode(errors="replace")


def test_text_is_given_out_in_whole_characters() -> None:
    data = "東京 naïve".encode()
    played = Given(data[:4] + b" x" + data)
    assert all(event.text.isprintable() for event in played.events)
    assert played.text == (data[:4] + b" x" + data).decode(errors="replace")
    assert played.data == data[:4] + b" x" + data


def test_what_only_models_over_bytes_can_do() -> None:
    session = token_model().session()
    with pytest.raises(ConfigError, match="drafts: bytes are guessed"):
        Engine(session, drafts=Drafts())
    with pytest.raises(ConfigError, match="alternatives: bytes are scored"):
        Engine(session).submit(Request(b"", alternatives=3))


def test_bos_is_never_drawn() -> None:
    model = LanguageModel.random(token_config(), seed=0)
    with torch.no_grad():
        assert model.network.head is not None
        model.network.head.weight.zero_()
    events = list(generate(model.session(), [""] * 20, 200, Sampling(temperature=1.0, seed=1)))
    assert all(one.finish in ("eos", "length") for one in collect(events))

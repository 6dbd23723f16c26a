"""OpenAI's own client against a real server."""

import asyncio
from itertools import pairwise
from typing import Any

import openai
import pytest

import aunet
from tests.serve.processes import Server

PROMPT = "the old house, 12 "


def complete(server: Server, **options: Any) -> Any:
    return server.client().completions.create(**{"model": server.name, "prompt": PROMPT, "max_tokens": 40, **options})


def data(choice: Any) -> bytes:
    """The raw bytes of a choice."""
    return bytes(choice.aunet["bytes"])


def test_the_likeliest_bytes_are_those_of_the_library(server: Server, model: aunet.LanguageModel) -> None:
    found = complete(server, temperature=0)
    expected = model.generate(PROMPT, max_bytes=40, temperature=0, as_bytes=True)
    assert data(found.choices[0]) == expected
    assert found.choices[0].text == expected.decode(errors="replace")
    assert found.object == "text_completion"
    assert found.model == server.name


def test_a_seed_gives_the_same_bytes_and_choices_differ(server: Server, model: aunet.LanguageModel) -> None:
    found = complete(server, seed=5, temperature=0.9, n=3)
    assert [choice.index for choice in found.choices] == [0, 1, 2]
    for i, choice in enumerate(found.choices):
        alone = model.generate(PROMPT, max_bytes=40, temperature=0.9, seed=5 + i, as_bytes=True)
        assert data(choice) == alone
    assert len({data(choice) for choice in found.choices}) == 3


def test_without_a_seed_answers_differ(server: Server) -> None:
    assert len({data(complete(server).choices[0]) for _ in range(3)}) > 1


def test_several_prompts_and_bytes_that_are_no_text(server: Server, model: aunet.LanguageModel) -> None:
    found = complete(server, prompt=["one ", "two "], seed=1, temperature=1, n=2)
    for index, (prompt, seed) in enumerate([("one ", 1), ("one ", 2), ("two ", 1), ("two ", 2)]):
        expected = model.generate(prompt, max_bytes=40, temperature=1, seed=seed, as_bytes=True)
        assert data(found.choices[index]) == expected
    raw = complete(server, prompt=[255, 0, 65], temperature=0)
    assert data(raw.choices[0]) == model.generate(b"\xff\0A", max_bytes=40, temperature=0, as_bytes=True)
    both = complete(server, prompt=[[255], [66]], temperature=0)
    assert data(both.choices[1]) == model.generate("B", max_bytes=40, temperature=0, as_bytes=True)


def test_an_empty_prompt_begins_a_document(server: Server, model: aunet.LanguageModel) -> None:
    found = complete(server, prompt="", temperature=0)
    assert data(found.choices[0]) == model.generate("", max_bytes=40, temperature=0, as_bytes=True)
    assert found.usage.prompt_tokens == 0


def test_usage_counts_bytes(server: Server) -> None:
    usage = complete(server, prompt="é", temperature=0, n=2, echo=True).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (2, 80, 82)


def test_it_stops_before_a_string(server: Server, model: aunet.LanguageModel) -> None:
    whole = model.generate(PROMPT, max_bytes=200, temperature=0)
    stop = next(c for c in whole if c.isascii() and c != whole[0])
    for given in (stop, ["never there", stop]):
        choice = complete(server, temperature=0, stop=given, max_tokens=200).choices[0]
        assert choice.text == whole[: whole.index(stop)]
        assert choice.finish_reason == "stop"
    assert complete(server, temperature=0).choices[0].finish_reason == "length"


def test_a_stream_is_the_whole_in_pieces(server: Server) -> None:
    whole = complete(server, seed=3, n=2).choices
    chunks = list(complete(server, seed=3, n=2, stream=True))
    for index in (0, 1):
        pieces = [chunk.choices[0] for chunk in chunks if chunk.choices[0].index == index]
        assert "".join(piece.text for piece in pieces) == whole[index].text
        assert b"".join(map(data, pieces)) == data(whole[index])
        assert [piece.finish_reason for piece in pieces][-1] == whole[index].finish_reason
        assert not any(piece.finish_reason for piece in pieces[:-1])
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


def test_the_usage_of_a_stream(server: Server) -> None:
    *chunks, last = complete(server, temperature=0, stream=True, stream_options={"include_usage": True})
    assert last.choices == []
    assert last.usage.completion_tokens == sum(len(data(chunk.choices[0])) for chunk in chunks) == 40


def test_levels_are_those_of_the_splitter(server: Server, model: aunet.LanguageModel) -> None:
    choice = complete(server, seed=2, echo=True).choices[0]
    assert choice.aunet["levels"] == model.splitter.levels(data(choice)).tolist()
    new = [piece.choices[0] for piece in complete(server, seed=2, stream=True)]
    levels = [level for piece in new for level in piece.aunet["levels"]]
    assert levels == choice.aunet["levels"][len(PROMPT) :]


class TestLogprobs:
    def test_they_are_those_of_the_model(self, server: Server, model: aunet.LanguageModel) -> None:
        """The end is asked for too, so that the whole text is scored."""
        choice = complete(server, seed=4, logprobs=3, echo=True).choices[0]
        found, text = choice.logprobs, data(choice)
        assert len(found.tokens) == len(text) == len(found.token_logprobs) == len(found.top_logprobs)
        ids = [256, *text]
        expected = model.logits([ids[:-1]])[0].log_softmax(-1)
        for i, byte in enumerate(text):
            assert found.token_logprobs[i] == pytest.approx(float(expected[i, byte]), abs=1e-4)
            assert found.tokens[i] == (chr(byte) if byte < 128 else f"bytes:\\x{byte:02x}")
            best = sorted(found.top_logprobs[i].values(), reverse=True)
            assert best == pytest.approx(expected[i].topk(3).values.tolist(), abs=1e-4)

    def test_scores_of_a_text_without_new_bytes(self, server: Server, model: aunet.LanguageModel) -> None:
        found = complete(server, max_tokens=0, echo=True, logprobs=0)
        assert found.choices[0].text == PROMPT
        bits = model.bits(PROMPT)[:-1]
        assert found.choices[0].logprobs.token_logprobs == pytest.approx((-bits * 0.6931472).tolist(), abs=1e-4)
        assert found.usage.completion_tokens == 0

    def test_offsets_point_at_characters(self, server: Server) -> None:
        choice = complete(server, prompt="aé漢!", max_tokens=30, seed=1, echo=True, logprobs=0).choices[0]
        offsets = choice.logprobs.text_offset
        assert offsets[:7] == [0, 1, 1, 2, 2, 2, 3]
        assert all(0 <= b - a <= 1 for a, b in pairwise(offsets))
        for token, offset in zip(choice.logprobs.tokens, offsets, strict=True):
            if len(token) == 1:
                assert choice.text[offset] == token

    def test_pieces_of_a_stream_fit_together(self, server: Server) -> None:
        whole = complete(server, seed=6, logprobs=2).choices[0].logprobs
        pieces = [chunk.choices[0].logprobs for chunk in complete(server, seed=6, logprobs=2, stream=True)]
        for name in ("tokens", "text_offset"):
            assert [x for piece in pieces for x in getattr(piece, name)] == getattr(whole, name)


def test_the_asynchronous_client(server: Server) -> None:
    async def both() -> tuple[bytes, bytes]:
        async with server.async_client() as client:
            options: dict[str, Any] = {"model": server.name, "prompt": PROMPT, "max_tokens": 40, "seed": 8}
            whole = await client.completions.create(**options)
            stream = await client.completions.create(**options, stream=True)
            return data(whole.choices[0]), b"".join([data(chunk.choices[0]) async for chunk in stream])

    whole, streamed = asyncio.run(both())
    assert whole == streamed


@pytest.mark.parametrize(
    ("options", "param", "words"),
    [
        ({"prompt": []}, "prompt", "no list may be empty"),
        ({"prompt": ["a"] * 129}, "prompt", "at most 128"),
        ({"prompt": [256]}, "prompt", "0..255"),
        ({"prompt": [["a"]]}, "prompt", "list"),
        ({"temperature": -1}, "temperature", "greater than or equal to 0"),
        ({"temperature": "hot"}, "temperature", "number"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"max_tokens": -1}, "max_tokens", "greater than or equal to 0"),
        ({"max_tokens": 5000}, "max_tokens", "at most 4096"),
        ({"max_tokens": True}, "max_tokens", "integer"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"n": 100, "prompt": ["a", "b"]}, "n", "at most 128"),
        ({"n": 100, "logprobs": 1, "max_tokens": 200}, "logprobs", "at most 16384"),
        ({"logprobs": 21}, "logprobs", "20"),
        ({"stop": ""}, "stop", "1 to 256 characters"),
        ({"stop": ["a"] * 17}, "stop", "at most 16"),
        ({"seed": 2**63 + 1}, "seed", "less than or equal"),
        ({"presence_penalty": 0.5}, "presence_penalty", "expected 0, because it is not supported"),
        ({"extra_body": {"best_of": 2}}, "best_of", "expected 1, because more is not supported"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream"),
        ({"extra_body": {"top_q": 1}}, "top_q", "not permitted"),
        ({"prompt": "a" * 65_537}, "prompt", "at most 65536"),
        ({"prompt": "a" * 2000, "echo": True, "n": 40}, "prompt", "at most 65536"),
    ],
)
def test_what_is_refused(server: Server, options: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        complete(server, **options)
    assert caught.value.param == param
    assert words in caught.value.message
    assert caught.value.body["message"].startswith(f"{param}")  # type: ignore[index]


def test_an_unknown_model(server: Server) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        complete(server, model="gpt-4")
    assert caught.value.code == "model_not_found"
    assert server.name in caught.value.message

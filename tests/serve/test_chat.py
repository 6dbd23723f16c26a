"""Chat through OpenAI's client."""

from typing import Any

import openai
import pytest

import aunet
from tests.serve.processes import Server

MESSAGES = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": [{"type": "text", "text": "Hello "}, {"type": "text", "text": "there"}]},
    {"role": "assistant", "content": "Hi"},
    {"role": "user", "content": "Who are you?"},
]
PROMPT = "System: Be kind.\n\nUser: Hello there\n\nAssistant: Hi\n\nUser: Who are you?\n\nAssistant: "


def chat(server: Server, **options: Any) -> Any:
    given = {"model": server.name, "messages": MESSAGES, "max_tokens": 30, **options}
    return server.client().chat.completions.create(**given)


def test_an_answer_is_what_follows_the_template(server: Server, model: aunet.LanguageModel) -> None:
    found = chat(server, seed=2, n=2, temperature=0.7)
    for i, choice in enumerate(found.choices):
        expected = model.generate(PROMPT, max_bytes=30, temperature=0.7, seed=2 + i, stop="\n\nUser:")
        assert choice.message.content == expected
        assert choice.message.role == "assistant"
    assert found.usage.prompt_tokens == len(PROMPT)


def test_a_stream(server: Server) -> None:
    whole = chat(server, seed=2).choices[0]
    chunks = list(chat(server, seed=2, stream=True, stream_options={"include_usage": True}))
    deltas = [chunk.choices[0].delta for chunk in chunks[:-1]]
    assert deltas[0].role == "assistant"
    assert not any(delta.role for delta in deltas[1:])
    assert "".join(delta.content for delta in deltas) == whole.message.content
    assert chunks[-2].choices[0].finish_reason == whole.finish_reason
    assert chunks[-1].usage.prompt_tokens == len(PROMPT)


def test_log_probabilities(server: Server) -> None:
    content = chat(server, seed=3, logprobs=True, top_logprobs=2, max_completion_tokens=10, max_tokens=openai.omit)
    found = content.choices[0].logprobs.content
    assert bytes(one.bytes[0] for one in found).decode(errors="replace") == content.choices[0].message.content
    assert all(len(one.top_logprobs) == 2 for one in found)
    assert all(one.logprob <= one.top_logprobs[0].logprob <= 0 for one in found)


def test_a_stop_string_of_the_client(server: Server) -> None:
    whole = chat(server, temperature=0).choices[0].message.content
    stop = next(c for c in whole if c.isascii())
    assert chat(server, temperature=0, stop=[stop]).choices[0].message.content == whole[: whole.index(stop)]


def test_an_answer_can_be_sent_back(server: Server) -> None:
    """As the client's own object, and with every field of it."""
    answer = chat(server, seed=2).choices[0].message
    bare = chat(server, seed=4, messages=[*MESSAGES, {"role": "assistant", "content": answer.content}, *MESSAGES[-1:]])
    for message in (answer, answer.model_dump(), {**answer.to_dict(), "annotations": [], "tool_calls": []}):
        again = chat(server, seed=4, messages=[*MESSAGES, message, *MESSAGES[-1:]])
        assert again.choices[0].message == bare.choices[0].message


def test_neutral_values_change_nothing(server: Server) -> None:
    neutral = {
        "n": None,
        "response_format": {"type": "text"},
        "modalities": ["text"],
        "tools": [],
        "tool_choice": "none",
        "store": False,
        "metadata": {},
        "top_logprobs": 0,
    }
    assert chat(server, seed=2, **neutral).choices == chat(server, seed=2).choices


@pytest.mark.parametrize(
    ("options", "param", "words"),
    [
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages", "messages.0.role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages", "messages.0.content: expected a string"),
        ({"messages": [{"role": "user", "content": "a" * 65_536}]}, "messages", "at most 65536"),
        ({"top_logprobs": 2}, None, "needs logprobs"),
        ({"max_completion_tokens": 5}, None, "give one"),
        ({"max_completion_tokens": 5000, "max_tokens": None}, "max_completion_tokens", "at most 4096"),
        ({"tools": [{"type": "function"}]}, "tools", "at most 0"),
        ({"response_format": {"type": "json_object"}}, "response_format", "'text'"),
        ({"messages": [{"role": "assistant", "content": None}]}, "messages", "messages.0.content: expected a string"),
        ({"messages": [{"role": "assistant", "content": "", "refusal": "no"}]}, "messages", "messages.0.refusal"),
        ({"reasoning_effort": "low"}, "reasoning_effort", "not permitted"),
        ({"store": True}, "store", "should be false"),
        ({"store": 0}, "store", "boolean"),
    ],
)
def test_what_is_refused(server: Server, options: dict[str, Any], param: str | None, words: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        chat(server, **options)
    assert words in caught.value.message
    if param is not None:
        assert caught.value.param == param

"""What comes in and what goes out, in OpenAI's shapes; a token is a byte.

A field that this server cannot honour is not taken in silence: it may have its neutral value only.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

MOST_SEQUENCES = 128
"""Prompts times choices of one request."""
MOST_ALTERNATIVES = 20


@dataclass(frozen=True)
class Expected:
    """One message for a field of several types; what is wrong with it as each of them helps nobody."""

    what: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The schema of the field with this message."""
        return core_schema.custom_error_schema(
            handler(source), "expected", custom_error_message=f"expected {self.what}"
        )


Byte = Annotated[int, Field(ge=0, le=255)]
ByteList = Annotated[list[Byte], Field(min_length=1)]
StopString = Annotated[str, Field(min_length=1, max_length=256)]
Stop = Annotated[
    StopString | Annotated[list[StopString], Field(max_length=16)],
    Expected("a string or a list of at most 16 strings, each of 1 to 256 characters"),
]
Prompt = Annotated[
    str
    | Annotated[list[str], Field(min_length=1, max_length=MOST_SEQUENCES)]
    | ByteList
    | Annotated[list[ByteList], Field(min_length=1, max_length=MOST_SEQUENCES)],
    Expected(
        f"a string, a list of byte values 0..255, or a list of at most {MOST_SEQUENCES} of either; no list may be empty"
    ),
]
Nothing = Annotated[float, Field(ge=0, le=0), Expected("0, because it is not supported")]
NoItems = Annotated[list[Any], Field(max_length=0)]
NoKeys = Annotated[dict[str, Any], Field(max_length=0)]


def _refuse(value: bool) -> bool:
    if value:
        raise ValueError("Input should be false")
    return value


# Literals of pydantic take what is equal to them: 0 for False, True for 1.
One = Annotated[int, Field(ge=1, le=1), Expected("1, because more is not supported")]
Off = Annotated[bool, AfterValidator(_refuse), WithJsonSchema({"const": False, "type": "boolean"})]


class Incoming(BaseModel):
    """No coercion, no unknown field, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class StreamOptions(Incoming):
    """Of a streamed answer."""

    include_usage: bool = Field(default=False, description="one more chunk at the end, with the usage")
    include_obfuscation: Off = Field(default=False, description="not supported")


class Generation(Incoming):
    """What both kinds of completion have in common."""

    model: str | None = Field(default=None, max_length=256, description="the name under /v1/models; may be left out")
    n: int | None = Field(
        default=None,
        ge=1,
        le=MOST_SEQUENCES,
        description="choices for each prompt, 1 if left out; choice i draws with seed + i",
    )
    stream: bool | None = Field(default=None, description="server-sent events as the bytes come")
    stream_options: StreamOptions | None = None
    stop: Stop | None = Field(default=None, description="the text ends before it; looked for in the new bytes only")
    seed: int | None = Field(
        default=None,
        ge=-(2**63),
        le=2**63,
        description="the same seed gives the same bytes, with compiled kernels in any company; random if left out",
    )
    temperature: float | None = Field(default=None, ge=0, le=2, description="1 if left out; 0 takes the likeliest byte")
    top_p: float | None = Field(default=None, gt=0, le=1, description="only the likeliest bytes of this total")
    top_k: int | None = Field(default=None, ge=1, le=256, description="only the k likeliest bytes (an extension)")
    frequency_penalty: Nothing | None = Field(default=None, description="not supported: 0")
    presence_penalty: Nothing | None = Field(default=None, description="not supported: 0")
    logit_bias: NoKeys | None = Field(default=None, description="not supported: an empty object")
    user: str | None = Field(default=None, max_length=1024, description="ignored")


class CompletionRequest(Generation):
    """Body of /v1/completions."""

    prompt: Prompt = Field(description="one text or several; an empty string begins a document")
    max_tokens: int | None = Field(default=None, ge=0, description="new bytes at most; 256 if left out")
    logprobs: int | None = Field(
        default=None,
        ge=0,
        le=MOST_ALTERNATIVES,
        description="log-probabilities of each byte and of this many likeliest",
    )
    echo: bool | None = Field(default=None, description="the prompt too, with its log-probabilities if asked for")
    best_of: One | None = Field(default=None, description="not supported: 1")
    suffix: Literal[""] | None = Field(default=None, description="not supported: empty")


class TextPart(Incoming):
    """A part of a message."""

    type: Literal["text"]
    text: str


Content = Annotated[str | list[TextPart], Expected("a string, or a list of parts of type text")]


class Message(Incoming):
    """What somebody said. Clients send answers back as they came, or with every field that OpenAI's have."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    name: str | None = Field(default=None, max_length=256, description="ignored")
    refusal: None = Field(default=None, description="not supported: null")
    annotations: NoItems | None = Field(default=None, description="not supported: an empty list")
    audio: None = Field(default=None, description="not supported: null")
    function_call: None = Field(default=None, description="not supported: null")
    tool_calls: NoItems | None = Field(default=None, description="not supported: an empty list")


class PlainText(Incoming):
    """The format of an answer that has none."""

    type: Literal["text"]


class ChatRequest(Generation):
    """Body of /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1, max_length=1024)
    max_tokens: int | None = Field(default=None, ge=0, description="new bytes at most; 256 if left out")
    max_completion_tokens: int | None = Field(default=None, ge=0, description="the newer name of max_tokens")
    logprobs: bool | None = Field(default=None, description="log-probabilities of each byte")
    top_logprobs: int | None = Field(
        default=None,
        ge=0,
        le=MOST_ALTERNATIVES,
        description="and of this many likeliest; needs logprobs, unless it is 0",
    )
    response_format: PlainText | None = Field(default=None, description="not supported: of type text")
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = Field(
        default=None, description="not supported: text alone"
    )
    tools: NoItems | None = Field(default=None, description="not supported: an empty list")
    tool_choice: Literal["none"] | None = Field(default=None, description="not supported: none")
    store: Off | None = Field(default=None, description="not supported: false")
    metadata: NoKeys | None = Field(default=None, description="not supported: an empty object")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("max_tokens and max_completion_tokens are the same; give one")
        return self


class InspectRequest(Incoming):
    """Body of /v1/inspect."""

    text: Annotated[str | list[Byte], Expected("a string or a list of byte values 0..255")] = Field(
        description="a string, or a list of byte values 0..255, which need not be UTF-8"
    )
    splitter: str | None = Field(
        default=None, max_length=64, description="another rule than the model's, for the levels"
    )
    alternatives: int = Field(default=5, ge=0, le=MOST_ALTERNATIVES, description="likeliest ids at each byte")
    score: bool = Field(default=True, description="false: levels only")


class Usage(BaseModel):
    """Bytes of all prompts, and new bytes of all choices."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Reading(BaseModel):
    """An extension: the raw bytes, of which a text can only show valid UTF-8, and how the model splits them."""

    bytes: list[int]
    levels: list[int] = Field(description="poolings that each byte survives")


class Logprobs(BaseModel):
    """Of every byte of a choice, and of `<eos>` where the model ended it. A byte beyond ASCII is `bytes:\\xNN`."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int] = Field(description="where the character of each byte begins in the text of the choice")


Finish = Literal["stop", "length"]


class CompletionChoice(BaseModel):
    """One text, or a piece of it."""

    index: int
    text: str
    logprobs: Logprobs | None = None
    finish_reason: Finish | None = None
    aunet: Reading


class Completion(BaseModel):
    """An answer of /v1/completions; in a stream, a piece of it."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None


class TopLogprob(BaseModel):
    """A byte that could have come."""

    token: str
    bytes: list[int] | None
    logprob: float


class TokenLogprob(TopLogprob):
    """A byte that came."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    """Of every byte of an answer."""

    content: list[TokenLogprob]
    refusal: None = None


class Answer(BaseModel):
    """A whole answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Delta(BaseModel):
    """A piece of an answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    message: Answer
    logprobs: ChatLogprobs | None = None
    finish_reason: Finish


class ChatChunkChoice(BaseModel):
    """A piece of one answer."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: Finish | None = None


class Chat(BaseModel):
    """An answer of /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class ChatChunk(BaseModel):
    """A piece of a streamed one."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None


Alternative = Annotated[list[int | float], Field(min_length=2, max_length=2)]
"""An id and its probability. A tuple would do, if the description of one were not of an old kind."""


class Inspection(BaseModel):
    """A text as the model reads it."""

    splitter: str = Field(description="the rule of the levels")
    stages: int
    bytes: list[int]
    levels: list[int] = Field(description="poolings that each byte survives")
    bits: list[float] | None = Field(description="of each byte and, last, of the end of the document")
    alternatives: list[list[Alternative]] | None = Field(
        description="likeliest ids and their probabilities, at each byte and at the end; 257 is the end of the document"
    )


class ModelFacts(BaseModel):
    """An extension: what a page needs to know."""

    splitter: str
    stages: int
    max_prompt_bytes: int
    max_new_bytes: int
    max_scored_bytes: int


class Model(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "aunet"
    aunet: ModelFacts


class ModelList(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[Model]


class Health(BaseModel):
    """Whether requests are answered."""

    status: Literal["ok", "not_started", "stopping", "failed"]

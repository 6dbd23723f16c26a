"""Every error that a client sees: one JSON shape, one sentence.

{"error": {"message": ..., "type": ..., "param": ..., "code": ...}}
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from aunet.errors import AUNetError


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str = Field(description="one sentence")
    type: str = Field(description="invalid_request_error, authentication_error, rate_limit_error or server_error")
    param: str | None = Field(description="the field at fault")
    code: str | None = Field(description="a short name of this error")


class ErrorBody(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail


class APIError(AUNetError):
    """A request that gets no result: a status, and what the body says."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.headers = status, code, param, dict(headers or {})

    @property
    def body(self) -> ErrorBody:
        """As the client reads it."""
        return ErrorBody(
            error=ErrorDetail(
                message=str(self),
                type=_TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error"),
                param=self.param,
                code=self.code,
            )
        )

    def response(self) -> JSONResponse:
        """The whole answer."""
        return JSONResponse(self.body.model_dump(), self.status, self.headers)


_TYPES = {401: "authentication_error", 429: "rate_limit_error"}

_NO_RETRY = {"x-should-retry": "false"}
"""OpenAI's clients would send a request that took too long twice more."""


def invalid(message: str, param: str | None = None, code: str = "invalid_value") -> APIError:
    """A request that cannot be understood or is beyond a limit."""
    return APIError(400, message, code, param)


def too_many(seconds: int) -> APIError:
    """The queue is full."""
    return APIError(
        429, f"all places are taken and the queue is full; try again in {seconds} s", "queue_full", None,
        {"Retry-After": str(seconds)},
    )  # fmt: skip


def too_slow(seconds: float) -> APIError:
    """The request took longer than the server allows."""
    message = f"not finished within {seconds:g} s, the limit of this server; ask for fewer bytes"
    return APIError(504, message, "time_limit", None, _NO_RETRY)


def stopping() -> APIError:
    """The server is on its way down."""
    return APIError(503, "the server is stopping; send the request again", "stopping", None, {"Retry-After": "1"})


def not_started() -> APIError:
    """Nobody has run the application's lifespan, as an application around it has to."""
    message = "the engine has not been started: the application's lifespan events were not sent"
    return APIError(503, message, "not_started", None, _NO_RETRY)


def failed() -> APIError:
    """The engine is broken; the reason is in the server's log."""
    return APIError(500, "the engine has failed; the server's log says why", "engine_failed", None, _NO_RETRY)


def outcome(status: int) -> str:
    """The name of a status in the metrics."""
    names = {401: "unauthorized", 429: "rejected", 499: "disconnected", 503: "stopped", 504: "timeout"}
    return names.get(status, "ok" if status < 400 else "invalid" if status < 500 else "failed")


def of_http(error: HTTPException) -> APIError:
    """An error of the framework: no such path, a method that it does not take, JSON at which the parser gives up."""
    if error.status_code == 400:
        message = "the body is not JSON that can be read: too deeply nested, or a number of too many digits"
        return invalid(message, None, "not_json")
    return APIError(error.status_code, str(error.detail).lower(), "http_error", None, error.headers)


def of_validation(errors: Sequence[Mapping[str, Any]]) -> APIError:
    """Everything that a schema refused; `errors` are pydantic's, whose places begin with `body` or `path`."""
    problems: dict[str, str] = {}
    for error in errors:
        place = [str(part) for part in error["loc"][1:]]
        if error["type"] == "json_invalid":
            return invalid(f"the body is not JSON: {error['ctx']['error']} at character {place[0]}", None, "not_json")
        if not place and error["type"] in ("missing", "model_attributes_type"):
            return invalid("the body must be a JSON object, sent with Content-Type: application/json", None, "not_json")
        message = str(error["msg"]).removeprefix("Value error, ")
        problems.setdefault(".".join(place), f"{message[0].lower()}{message[1:]}")
    sentences = [f"{place}: {message}" if place else message for place, message in problems.items()]
    return invalid("; ".join(sentences)[:1000], next(iter(problems)).split(".")[0] or None)

"""What a request has to pass before it is understood: the key, the size of its body, characters that are none."""

import hmac
import json
import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aunet.serve.errors import APIError, invalid
from aunet.serve.paths import path_of
from aunet.serve.patience import PATIENCE, Patience

DISCARD = 64 << 20
"""Bytes of a body that is too large which are read and dropped, so that its sender gets to read the answer."""

SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
"""Half of a character outside the basic plane, as JSON may write it; the other half has to follow."""


class Gate:
    """ASGI middleware for everything under /v1."""

    def __init__(self, app: ASGIApp, api_key: str | None, max_body_bytes: int, max_seconds: float) -> None:
        self._app, self._most, self._seconds = app, max_body_bytes, max_seconds
        self._key = None if api_key is None else api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the whole body, then hand it on; or answer with an error."""
        if scope["type"] != "http" or not path_of(scope).startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        patience = scope[PATIENCE] = Patience(scope, receive, self._seconds)
        try:
            self._check_key(scope)
            body = await patience.in_time(self._body(receive))
            _check_characters(body)
        except APIError as error:
            await error.response()(scope, receive, send)
        else:
            await self._app(scope, _replay(body, receive), send)

    def _check_key(self, scope: Scope) -> None:
        if self._key is None:
            return
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        # Names of schemes are compared without their case (RFC 9110).
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode("latin-1", "replace"), self._key):
            raise APIError(
                401,
                "the API key is missing or wrong; send Authorization: Bearer KEY",
                "invalid_api_key",
                None,
                {"WWW-Authenticate": "Bearer"},
            )

    async def _body(self, receive: Receive) -> Message:
        parts, size, more = [], 0, True
        while more and size <= self._most + DISCARD:
            message = await receive()
            if message["type"] != "http.request":
                return message
            size += len(message.get("body", b""))
            if size <= self._most:
                parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        if size > self._most:
            raise APIError(413, f"the body is larger than {self._most} bytes, the most this server reads", "too_large")
        return {"type": "http.request", "body": b"".join(parts), "more_body": False}


def _check_characters(message: Message) -> None:
    """Strings with half a character have no bytes, and could not even be quoted in an error."""
    body = message.get("body", b"")
    try:
        plain = "\0" not in body.decode()
    except UnicodeDecodeError:
        plain = False
    if not plain:  # the parser would take other encodings, and halves of characters that are written as bytes
        raise invalid("the body is not JSON: it is not UTF-8", None, "not_json")
    if not SURROGATE.search(body):
        return
    try:
        json.dumps(json.loads(body), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):x}"
        raise invalid(
            f"the body holds {half}, half of a surrogate pair, which is no character", None, "not_text"
        ) from None
    except (ValueError, RecursionError):
        return  # whoever parses it next has a better message


def _replay(message: Message, receive: Receive) -> Receive:
    """Gives a message that has been read once more, then what follows."""
    first: list[Message] = [message]

    async def again() -> Message:
        return first.pop() if first else await receive()

    return again

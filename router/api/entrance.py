"""What a raw endpoint does before its own work and around it, the same for all: keys, sizes, clients that leave,
errors in the surface's shape. Nothing here knows what is asked."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import structlog

from router.api.encodings import unpacked
from router.api.wire import (
    AsgiSink,
    ClientLeft,
    Receive,
    Scope,
    Send,
    Watch,
    admit,
    encoding_of,
    headers_of,
    read_body,
    send_error,
)
from router.drain import Drain
from router.errors import (
    BadRequest,
    HeadersTooLarge,
    LocumError,
    NotFound,
    ShuttingDown,
    TooLarge,
    TooManyStreams,
    TooSlow,
    Unauthorized,
    UnknownEncoding,
)
from router.limits import ClientKeys
from router.metrics import Rejection
from router.settings import Limits

Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
ErrorShape = Callable[[LocumError, str], dict[str, Any]]
"""An error and the request's id -> the body that tells it."""

CAUSES: Mapping[type[LocumError], Rejection] = {
    Unauthorized: "unauthorized",
    TooLarge: "body_too_large",
    TooSlow: "body_too_slow",
    UnknownEncoding: "unknown_encoding",
    HeadersTooLarge: "headers_too_large",
    TooManyStreams: "too_many_streams",
    NotFound: "not_found",
    ShuttingDown: "shutting_down",
    BadRequest: "bad_request",
}

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Arrived:
    """A request that came in: its whole body, its headers (names in lower case; the last of a repeated one),
    and the way out for its answer. ``owner``: whose it is (``ClientKeys.check``)."""

    request_id: str
    owner: str
    headers: Mapping[bytes, bytes]
    content: bytes
    sink: AsgiSink


Work = Callable[[Arrived], Coroutine[Any, Any, None]]
"""Answers a request through its sink. Raises LocumError for what the client is to be told instead."""


def openai_shape(error: LocumError, _: str) -> dict[str, Any]:
    return error.body()


class Entrance:
    """Who and what may come in. ``rejected`` is told the cause of every request that may not."""

    def __init__(self, keys: ClientKeys, limits: Limits, rejected: Callable[[Rejection], None], drain: Drain) -> None:
        self._keys, self._limits, self._rejected, self._drain = keys, limits, rejected, drain
        self._ids = random.Random()  # seeded by the system once; asking it each time is a system call

    def endpoint(self, work: Work, error: ErrorShape = openai_shape, *, max_body_bytes: int | None = None) -> Asgi:
        """The ASGI application that does ``work`` for what may come in."""
        most = max_body_bytes or self._limits.body_bytes

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            sink, request_id = AsgiSink(send), self._request_id()
            with self._drain:
                try:
                    headers, owner = self._admitted(scope)
                    content = await read_body(
                        headers, receive, limit_bytes=most, limit_seconds=self._limits.body_seconds
                    )
                    if b"content-encoding" in headers:
                        content = await unpacked(encoding_of(scope), content, most)
                    with Watch(receive, sink):
                        await work(Arrived(request_id, owner, headers, content, sink))
                except ClientLeft:
                    return
                except asyncio.CancelledError:
                    if not self._drain.over:
                        raise
                    await _tell(sink, ShuttingDown(), request_id, error)
                except LocumError as e:
                    if cause := next((cause for kind, cause in CAUSES.items() if isinstance(e, kind)), None):
                        self._rejected(cause)
                    await _tell(sink, e, request_id, error)
                except Exception:  # the top level of a request: one's failure must not be told in server internals
                    log.exception("request_failed", request=request_id)
                    unknown = LocumError("internal error; the proxy's log has the details")
                    await _tell(sink, unknown, request_id, error)

        return serve

    def _admitted(self, scope: Scope) -> tuple[Mapping[bytes, bytes], str]:
        """The headers, and whose they are. Raises HeadersTooLarge, Unauthorized and ShuttingDown."""
        if sum(map(len, chain.from_iterable(scope["headers"]))) > self._limits.header_bytes:
            raise HeadersTooLarge(f"the headers are longer than {self._limits.header_bytes} bytes")
        headers = headers_of(scope)
        owner = self._keys.check(given_key(headers))
        admit(scope)
        if self._drain.began:
            raise ShuttingDown
        return headers, owner

    def _request_id(self) -> str:
        """In the order of time, so that the records' index grows at its end: milliseconds, then randomness."""
        return f"req_{int(time.time() * 1000):012x}{self._ids.getrandbits(48):012x}"


def given_key(headers: Mapping[bytes, bytes]) -> str | None:
    """The client's key: a bearer token, or Anthropic's ``x-api-key``."""
    if (authorization := headers.get(b"authorization")) is not None:
        scheme, _, key = authorization.decode("latin-1").partition(" ")
        return key.strip() if scheme.lower() == "bearer" else None
    key_header = headers.get(b"x-api-key")
    return key_header.decode("latin-1") if key_header is not None else None


async def _tell(sink: AsgiSink, error: LocumError, request_id: str, shape: ErrorShape) -> None:
    headers = [(b"x-locum-request-id", request_id.encode()), *error.headers()]
    await send_error(sink, error.status, shape(error, request_id), headers)

"""One request over raw ASGI: who and what may come in, its body, the way out of its answer, its errors in the
surface's shape, a client that leaves. Nothing here knows what is asked."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import orjson
import structlog

from router.api.admission import ClientKeys
from router.api.encodings import unpacked
from router.cascade.drain import Drain
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
from router.metrics.labels import Rejection
from router.settings import Limits
from router.wire.chat import JSON, Headers
from router.wire.threads import aside

SLOWEST = 1000
"""Bytes a second that a client sends or takes at least: a slower one holds memory, and perhaps a backend, for
others."""
ADMITTED = "locum.admitted"
"""The ASGI extension by which the application says that who sent a request may ask."""


Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

WATCH_SECONDS = 0.05


class ClientLeft(Exception):
    """The client was gone before its request had arrived."""


def headers_of(scope: Scope) -> Mapping[bytes, bytes]:
    """The request's headers, names in lower case; the last of a repeated one."""
    return dict(scope["headers"])


def encoding_of(scope: Scope) -> str:
    """How the body is packed, by all headers that say so."""
    return ", ".join(value.decode("latin-1") for name, value in scope["headers"] if name == b"content-encoding")


def admit(scope: Scope) -> None:
    """Tells the server that who sent this request may ask: its connection is no stranger's any more."""
    if (told := scope.get("extensions", {}).get(ADMITTED)) is not None:
        told["tell"]()


async def read_body(
    headers: Mapping[bytes, bytes], receive: Receive, *, limit_bytes: int, limit_seconds: float
) -> bytes:
    """The whole body.

    Raises:
        TooLarge: it is longer than ``limit_bytes``, by its header or in truth.
        TooSlow: it was not there in ``limit_seconds`` and as many more as ``SLOWEST`` grants what came.
        ClientLeft: the connection broke before its end.
    """
    announced = headers.get(b"content-length", b"0")
    if announced.isdigit() and int(announced) > limit_bytes:
        raise TooLarge(f"the request is longer than {limit_bytes} bytes")
    try:
        async with asyncio.timeout(limit_seconds) as patience:
            return await _read(receive, limit_bytes, patience)
    except TimeoutError:
        raise TooSlow("the request's body came too slowly") from None


async def _read(receive: Receive, limit_bytes: int, patience: asyncio.Timeout) -> bytes:
    parts: list[bytes] = []
    size, due = 0, patience.when() or 0.0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit_bytes:
            raise TooLarge(f"the request is longer than {limit_bytes} bytes")
        if not message.get("more_body"):
            return await aside(partial(b"".join, [*parts, part]), size) if parts else part
        parts.append(part)
        patience.reschedule(due + size / SLOWEST)


class AsgiSink:
    """An answer's way out (``router.wire.chat.Sink``)."""

    __slots__ = ("_send", "ended", "started")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        self.ended = False

    async def start(self, status: int, headers: Headers) -> None:
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """An answer at once, its length told: without it every answer would go out chunked."""
        headers = [*headers, (b"content-length", b"%d" % len(body))]
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        self.ended = True
        await self._send({"type": "http.response.body", "body": body})

    async def send(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        self.ended = True
        await self._send({"type": "http.response.body", "body": data})


async def send_error(sink: AsgiSink, status: int, body: Mapping[str, Any], headers: Headers) -> None:
    """An error as an answer; nothing where one is already under way."""
    if not sink.started:
        await sink.whole(status, [*headers, *JSON], orjson.dumps(body))


class ClientWatch:
    """A context manager around the work for one request: cancels it once the client has left, since what it waits
    for has no use then. The cancellation ends with the work.

    Whether the client is there is looked at from ``WATCH_SECONDS`` on: a task of its own for each request
    would cost the quick ones a tenth of all they cost.
    """

    __slots__ = ("_left", "_receive", "_serving", "_sink", "_task", "_timer")

    def __init__(self, receive: Receive, sink: AsgiSink) -> None:
        self._receive, self._sink = receive, sink
        self._task: asyncio.Task[None] | None = None
        self._left = False

    def __enter__(self) -> None:
        serving = asyncio.current_task()
        assert serving is not None  # every request is served in one
        self._serving: asyncio.Task[Any] = serving
        self._timer = asyncio.get_running_loop().call_later(WATCH_SECONDS, self._begin)

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        if self._left and isinstance(error, asyncio.CancelledError):
            self._serving.uncancel()
            return True
        return False

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._sink.ended:
            self._left = True
            self._serving.cancel()


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
class Arrival:
    """A request that came in: its whole body, its headers (names in lower case; the last of a repeated one),
    and the way out for its answer. ``owner``: whose it is (``ClientKeys.check``)."""

    request_id: str
    owner: str
    headers: Mapping[bytes, bytes]
    content: bytes
    sink: AsgiSink


Work = Callable[[Arrival], Coroutine[Any, Any, None]]
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
                    with ClientWatch(receive, sink):
                        await work(Arrival(request_id, owner, headers, content, sink))
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

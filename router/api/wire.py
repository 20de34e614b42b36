"""Raw ASGI, as far as it is needed: reading a body, sending an answer, noticing that the client left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import orjson

from router.errors import TooLarge, TooSlow
from router.exchange import JSON, Headers
from router.protocol import ADMITTED, SLOWEST

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
            return b"".join([*parts, part]) if parts else part
        parts.append(part)
        patience.reschedule(due + size / SLOWEST)


class AsgiSink:
    """An answer's way out (``router.exchange.Sink``)."""

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


class Watch:
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

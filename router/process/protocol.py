"""uvicorn's HTTP protocol, with an end to everything that a client may let the proxy wait for."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from router.api.asgi import ADMITTED, SLOWEST
from router.errors import BadRequest, HeadersTooLarge, LocumError, TooSlow
from router.settings import Limits

LINGER_SECONDS = 5.0


def bounded_http(limits: Limits) -> type[BoundedHttp]:
    """The protocol with these limits, as uvicorn wants it: a class."""
    return type("BoundedHttp", (BoundedHttp,), {"limits": limits, "strangers": {}})


class BoundedHttp(HttpToolsProtocol):
    """One connection. The server calls ``look`` about once a second; that ends a connection

    - whose request line and headers go on for more than ``header_bytes``, or for more than ``head_seconds``,
    - on which nothing is asked for ``idle_seconds``,
    - whose client takes too little of an answer in ``stall_seconds``.

    How long a body may take is the application's to watch, which can say so in the surface's own form. Where an answer
    begins before the request has come whole, the connection ends with it. Of ``strangers``, which have shown no key
    yet, there are so many at most: the one that came first makes room.
    """

    limits: Limits
    strangers: dict[BoundedHttp, None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._open_bytes = 0
        self._open = True  # a head is under way
        self._ended = False  # the last answer has left, and what still comes is thrown away
        self._due = self.loop.time() + self.limits.head_seconds
        self._stalled: tuple[float, int] | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.strangers[self] = None
        if len(self.strangers) > self.limits.strangers:
            next((s for s in self.strangers if not s.busy), self).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.strangers.pop(self, None)
        super().connection_lost(exc)

    @property
    def busy(self) -> bool:
        """Whether a request has come that is not answered yet."""
        return self.cycle is not None and not self.cycle.response_complete

    def admitted(self) -> None:
        self.strangers.pop(self, None)

    def on_message_begin(self) -> None:
        if self.cycle is not None:
            self._due = self.loop.time() + self.limits.head_seconds
        self._open = True
        super().on_message_begin()
        self.scope["extensions"] = {ADMITTED: {"tell": self.admitted}}

    def on_headers_complete(self) -> None:
        self._open, self._open_bytes = False, 0
        super().on_headers_complete()
        cycle = self.cycle
        cycle.__class__ = Cycle  # before its task has begun
        cycle.keep_alive = self.parser.should_keep_alive()
        cycle.linger = self._linger  # type: ignore[attr-defined]

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():  # else the parser leaves the body, if there is one, to us
            super().on_message_complete()

    def on_response_complete(self) -> None:
        self._due = self.loop.time() + (self.limits.head_seconds if self._open else self.limits.idle_seconds)
        super().on_response_complete()

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._stay(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("what came is no HTTP request")
        if self._open and not self._ended:
            self._open_bytes += len(data)
            if self._open_bytes > self.limits.header_bytes:
                self._refuse(HeadersTooLarge(f"the headers are longer than {self.limits.header_bytes} bytes"))

    def send_400_response(self, msg: str) -> None:
        self._refuse(BadRequest(msg))

    def look(self, now: float) -> None:
        """Ends the connection where its client has let it wait for too long. ``now`` is the loop's time."""
        if self._stalls(now):
            self.transport.abort()
        elif now < self._due or (self.busy and not self._ended) or self.transport.is_closing():
            return
        elif self._open and self._open_bytes:
            self._refuse(TooSlow(f"the headers did not come within {self.limits.head_seconds} s"))
        else:
            self.transport.close()

    def excuse(self, seconds: float) -> None:
        """So long the server did not listen: its client may take that much longer."""
        self._due += seconds
        if self._stalled:
            self._stalled = self._stalled[0] + seconds, self._stalled[1]

    def _stalls(self, now: float) -> bool:
        """Whether of what waits to be sent the client has taken too little for too long."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent or not (self.flow.write_paused or self.transport.is_closing()):
            self._stalled = None
            return False
        since, before = self._stalled = self._stalled or (now, unsent)
        if now - since < self.limits.stall_seconds:
            return False
        self._stalled = now, unsent
        return before - unsent < SLOWEST * self.limits.stall_seconds

    def _stay(self, rest: bytes) -> None:
        """Another protocol was offered (h2c by Java's client, say): nobody has to take it up, and HTTP goes on. The
        parser would not, so that another one goes on after this head."""
        framing = [b"%b: %b\r\n" % (k, v) for k, v in self.headers if k in (b"content-length", b"transfer-encoding")]
        self.parser = httptools.HttpRequestParser(_Rest(self))
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self.data_received(b"POST / HTTP/1.1\r\n%b\r\n%b" % (b"".join(framing), rest))

    def _refuse(self, error: LocumError) -> None:
        """Tells what was wrong where it can be told, and ends the connection."""
        if self.transport.is_closing():
            return
        if self.busy:
            if self.pipeline or self.cycle.response_started:  # nothing may be written into another answer
                self.transport.close()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = orjson.dumps(error.body())
        self.transport.write(
            b"%bcontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
            % (STATUS_LINE[error.status], len(body), body)
        )
        self._linger()

    def _linger(self) -> None:
        """Ends the connection for the client, and throws away for a moment what still comes: to close at once would
        reset it, and the client might never read what it was told."""
        self._ended, self._open = True, False
        self._due = self.loop.time() + LINGER_SECONDS
        self.flow.resume_reading()
        self._unset_keepalive_if_required()
        if not self.transport.is_closing():
            self.transport.write_eof()


class _Rest:
    """Tells a connection what a parser finds after the first head, which is known."""

    def __init__(self, connection: BoundedHttp) -> None:
        self._connection, self._known = connection, True
        self.on_body = connection.on_body
        self.on_message_complete = connection.on_message_complete

    def on_message_begin(self) -> None:
        if not self._known:
            self._connection.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._known:
            self._connection.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._known:
            self._connection.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._known:
            self._connection.on_headers_complete()
        self._known = False


class Cycle(RequestResponseCycle):
    """One request and its answer, which begins as the version of HTTP and the state of the request allow.

    ``RequestResponseCycle`` takes no subclass of itself from outside; a cycle becomes one of these once it is made.
    """

    linger: Callable[[], None]
    early = False
    unframed = False

    def send(self, message: Any) -> Coroutine[Any, Any, None]:
        if message["type"] == "http.response.start":
            message = self._beginning(message)
        elif self.unframed:
            self.expected_content_length = len(message.get("body", b""))
        if self.early and message["type"] == "http.response.body" and not message.get("more_body"):
            self.keep_alive, self.on_response = True, self.linger  # not closed at once
        return super().send(message)

    def _beginning(self, message: Any) -> Any:
        if self.more_body:
            self.early, self.keep_alive = True, False
        if self.scope["http_version"] != "1.0":
            return message
        headers = list(message["headers"])
        if not any(name.lower() == b"content-length" for name, _ in headers):
            self.chunked_encoding, self.unframed, self.keep_alive = False, True, False  # its end is the connection's
        elif self.keep_alive:
            headers.append((b"connection", b"keep-alive"))
        return {**message, "headers": headers}

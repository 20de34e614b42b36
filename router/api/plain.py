"""An endpoint beside the cascade: one request in, one whole answer out. Raw ASGI, as the cascade's endpoint is,
so that bodies are bounded, clients that left are noticed and errors have OpenAI's shape."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable

import structlog

from router.api.endpoint import MAX_BODY_BYTES, given_key
from router.api.wire import (
    AsgiSink,
    ClientLeft,
    Receive,
    Scope,
    Send,
    headers_of,
    read_body,
    send_error,
    while_connected,
)
from router.errors import LocumError, UpstreamRefused
from router.limits import ClientKeys
from router.upstream.base import Reply

log = structlog.get_logger(__name__)

Answering = Callable[[bytes, str], Awaitable[Reply]]
"""A body and the request's id -> the answer. Raises LocumError."""


class Plain:
    """Answers with what ``answering`` makes of a body of at most ``max_body_bytes``."""

    def __init__(self, answering: Answering, keys: ClientKeys, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._answering, self._keys, self._max_body_bytes = answering, keys, max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id, sink = f"req_{secrets.token_hex(12)}", AsgiSink(send)
        try:
            self._keys.check(given_key(headers_of(scope)))
            content = await read_body(scope, receive, self._max_body_bytes)
            await while_connected(receive, sink, self._answer(content, request_id, sink))
        except ClientLeft:
            return
        except LocumError as error:
            await _fail(sink, error, request_id)
        except Exception:  # the top level of a request: one's failure must not be told in server internals
            log.exception("request_failed", request=request_id)
            await _fail(sink, LocumError("internal error; the proxy's log has the details"), request_id)

    async def _answer(self, content: bytes, request_id: str, sink: AsgiSink) -> None:
        reply = await self._answering(content, request_id)
        await sink.whole(reply.status, list(reply.headers), reply.body)


async def _fail(sink: AsgiSink, error: LocumError, request_id: str) -> None:
    headers = [(b"x-locum-request-id", request_id.encode())]
    if isinstance(error, UpstreamRefused) and not sink.started:
        await sink.whole(error.reply_status, [*headers, *error.reply_headers], error.reply_body)
    else:
        await send_error(sink, error.status, error.body(), headers)

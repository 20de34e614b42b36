"""``POST /v1/messages/count_tokens``: how long a request is, before it is sent."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import orjson
import structlog

from router.api.endpoint import MAX_BODY_BYTES, given_key, json_object
from router.api.messages.errors import of
from router.api.messages.request import chat_of
from router.api.models import Catalog
from router.api.wire import JSON, AsgiSink, ClientLeft, Receive, Scope, Send, headers_of, read_body, send_error
from router.errors import LocumError
from router.limits import ClientKeys
from router.scoring.features import extract

log = structlog.get_logger(__name__)


class CountTokens:
    """An estimate, the one that routing goes by: four bytes of text or of a tool's definition a token, a fixed
    number an image; a PDF counts nothing. Which model will answer, and so whose tokens they would be, is not
    known before the request is routed."""

    def __init__(self, catalog: Callable[[], Catalog], keys: ClientKeys, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._catalog, self._keys, self._max_body_bytes = catalog, keys, max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sink, request_id = AsgiSink(send), f"req_{uuid.uuid4().hex[:24]}"
        headers = [(b"x-locum-request-id", request_id.encode())]
        try:
            self._keys.check(given_key(headers_of(scope)))
            content = await read_body(scope, receive, self._max_body_bytes)
            await sink.whole(200, [*headers, *JSON], orjson.dumps({"input_tokens": self._count(content)}))
        except ClientLeft:
            return
        except LocumError as error:
            await send_error(sink, error.status, of(error, request_id), headers)
        except Exception:  # the top level of a request: one's failure must not be told in server internals
            log.exception("request_failed", request=request_id)
            hidden = LocumError("internal error; the proxy's log has the details")
            await send_error(sink, hidden.status, of(hidden, request_id), headers)

    def _count(self, content: bytes) -> int:
        chat = chat_of(json_object(content), counting=True)
        self._catalog().resolve(chat["model"])
        return extract(chat).input_tokens

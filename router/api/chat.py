"""``POST /v1/chat/completions``: the hot path, raw ASGI. Parses once, then hands over to the cascade."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import orjson
import structlog

from router.api.models import Catalog
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
from router.cascade import Cascade
from router.contracts.decision import Tier
from router.conversations import conversation_id
from router.errors import BadRequest, LocumError
from router.exchange import ChatRequest
from router.limits import ClientKeys

PATH = "/v1/chat/completions"
MAX_BODY_BYTES = 64 * 2**20

log = structlog.get_logger(__name__)


class ChatCompletions:
    """The endpoint. ``catalog()`` says which models there are at the moment."""

    def __init__(self, catalog: Callable[[], Catalog], keys: ClientKeys, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._catalog, self._keys, self._max_body_bytes = catalog, keys, max_body_bytes
        self._ids = random.Random()  # seeded by the system once; asking it each time is a system call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id, sink = f"req_{self._ids.getrandbits(96):024x}", AsgiSink(send)
        own = [(b"x-locum-request-id", request_id.encode())]
        try:
            headers = headers_of(scope)
            self._keys.check(headers.get(b"authorization", b"").decode("latin-1"))
            body = parse(await read_body(scope, receive, self._max_body_bytes))
            cascade, chat = self._understood(request_id, headers, body)
            await while_connected(receive, sink, cascade.serve(chat, sink))
        except ClientLeft:
            return
        except LocumError as error:
            await send_error(sink, error, own)
        except Exception:  # the top level of a request: one's failure must not be told in server internals
            log.exception("request_failed", request=request_id)
            await send_error(sink, LocumError("internal error; the proxy's log has the details"), own)

    def _understood(
        self, request_id: str, headers: Mapping[bytes, bytes], body: Mapping[str, Any]
    ) -> tuple[Cascade, ChatRequest]:
        cascade, tier = self._catalog().resolve(body["model"])
        metadata = body.get("metadata")
        named = headers.get(b"x-locum-conversation")
        return cascade, ChatRequest(
            request_id=request_id,
            conversation_id=conversation_id(body, named.decode("latin-1") if named else None),
            body=body,
            tier=forced_tier(headers) or tier,
            user=_label(body.get("user")),
            task=_label(metadata.get("task")) if isinstance(metadata, dict) else None,
        )


def parse(content: bytes) -> dict[str, Any]:
    """The request as far as the proxy itself relies on it; everything else is the backends' to judge.

    Raises:
        BadRequest: it is no JSON object, or ``model``, ``messages`` or ``stream`` are not what they must be.
    """
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError as e:
        raise BadRequest(f"the request is not valid JSON: {e}") from e
    if not isinstance(body, dict):
        raise BadRequest("the request must be a JSON object")
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise BadRequest("'model' must be given, as a string", param="model")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("'messages' must be a list of at least one message", param="messages")
    for n, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise BadRequest(f"'messages[{n}]' must be an object with a 'role'", param=f"messages[{n}]")
    if not isinstance(body.get("stream"), bool | None):
        raise BadRequest("'stream' must be true or false", param="stream")
    if not isinstance(body.get("stream_options"), dict | None):
        raise BadRequest("'stream_options' must be an object", param="stream_options")
    return body


def forced_tier(headers: Mapping[bytes, bytes]) -> Tier | None:
    """The tier that the client asks for by header.

    Raises:
        BadRequest: it names none.
    """
    value = headers.get(b"x-locum-tier", b"").decode("latin-1").strip().lower()
    if not value:
        return None
    if value not in (Tier.STUDENT, Tier.TEACHER):
        raise BadRequest("the header 'x-locum-tier' must be 'student' or 'teacher'", param="x-locum-tier")
    return Tier(value)


def _label(value: object) -> str | None:
    return value[:128] if isinstance(value, str) and value else None

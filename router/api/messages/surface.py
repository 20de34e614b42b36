"""``POST /v1/messages``: the surface, and an answer's way out through it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import orjson

from router.api.asgi import Arrival, Asgi, Message, Receive, Scope, Send
from router.api.messages.answer import MessageContext, message_of
from router.api.messages.errors import from_openai
from router.api.messages.request import chat_of, wants_thinking
from router.api.messages.stream import MessageStream
from router.api.schemas import COUNT, FLAG, LIMIT, NAME, TEXT, TEXT_OR_NULL, Operation, Schema, listed, record
from router.api.sessions import conversation_named
from router.api.surface import AskedChat
from router.scoring.text.features import extract
from router.served.catalog import Catalog
from router.wire.body import json_object
from router.wire.chat import IN_OWN_WORDS, JSON, Dialect, Headers, Native, Sink
from router.wire.json_text import dumps, loads
from router.wire.sse import split, work
from router.wire.threads import aside

PATH = "/v1/messages"
COUNT_PATH = "/v1/messages/count_tokens"


def _conversation(model: Schema) -> dict[str, Schema]:
    turn = record("role", "content", role={"enum": ["user", "assistant"]}, content=NAME)
    return {"messages": listed(turn, at_least=1), "model": model, "system": TEXT}


MESSAGE = record(
    "id", "type", "role", "content", "model", "stop_reason", "usage", id=TEXT, type={"const": "message"},
    role={"const": "assistant"}, content=listed(record("type", type=TEXT)), model=TEXT, stop_reason=TEXT_OR_NULL,
    usage=record("input_tokens", "output_tokens", input_tokens=COUNT, output_tokens=COUNT),
)  # fmt: skip
FAILURE = (
    "AnthropicError",
    record("type", "error", type={"const": "error"}, error=record("type", "message", type=TEXT, message=TEXT)),
)
DOCUMENT = {
    PATH: Operation(
        "Messages",
        (
            "MessagesRequest",
            lambda model: record(
                "model", "messages", "max_tokens", **_conversation(model), max_tokens=LIMIT, stream=FLAG
            ),
        ),
        ("Message", MESSAGE),
        streams=True,
        error=FAILURE,
    ),
    COUNT_PATH: Operation(
        "Estimates a request's tokens",
        ("CountRequest", lambda model: record("model", "messages", **_conversation(model))),
        ("TokenCount", record("input_tokens", input_tokens=COUNT)),
        error=FAILURE,
    ),
}
_BETAS = re.compile(r"[A-Za-z0-9_.-]{1,100}(?:, ?[A-Za-z0-9_.-]{1,100}){0,31}")


class Messages:
    """Anthropic's form. Claude gets the request as it came, other models in translation; what ``anthropic-beta``
    asks for is nothing to those."""

    async def asked(self, content: bytes, request_id: str, headers: Mapping[bytes, bytes]) -> AskedChat:
        body, chat = await aside(partial(_read, content), len(content))
        question = MessageContext(request_id, chat, wants_thinking(body))
        native = Native(Dialect.ANTHROPIC, body, betas(headers))
        named = conversation_named(headers, body)
        return AskedChat(chat, lambda sink: MessageSink(sink, question), named=named, native=native)


def _read(content: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """The request as it came, and as a chat request."""
    body = json_object(content)
    return body, chat_of(body)


def betas(headers: Mapping[bytes, bytes]) -> dict[str, str]:
    """The header ``anthropic-beta``, where it is one: names, with commas between them."""
    given = headers.get(b"anthropic-beta", b"").decode("latin-1")
    return {"anthropic-beta": given} if _BETAS.fullmatch(given) else {}


class MessageSink:
    """Takes a chat answer and sends a Message through ``sink``."""

    def __init__(self, sink: Sink, question: MessageContext) -> None:
        self._sink, self._question = sink, question
        self._stream = MessageStream(question)
        self._size = 0
        self.started = False

    async def start(self, status: int, headers: Headers) -> None:
        self.started = True
        await self._sink.start(status, headers)

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        message = await aside(partial(self._message, status, body), len(body))
        self.started = True
        kept = [(k, v) for k, v in headers if k != b"content-type"]
        await self._sink.whole(status, [*kept, *JSON], message)

    def _message(self, status: int, body: bytes) -> bytes:
        if status >= 400:
            return orjson.dumps(from_openai(status, body, self._question.request_id))
        answer, _ = loads(body)
        if isinstance(own := answer.get(IN_OWN_WORDS), str):
            return own.encode()
        return dumps(message_of(answer, self._question))

    async def send(self, data: bytes) -> None:
        self._size += len(data)
        if out := await aside(partial(self._taken, data), work(data)):
            await self._sink.send(out)

    async def end(self, data: bytes = b"") -> None:
        last = await aside(lambda: self._taken(data) + self._stream.finish(), self._size + len(data))
        await self._sink.end(last)

    def _taken(self, data: bytes) -> bytes:
        return b"".join(map(self._stream.take, split(data)))


def telling_request_id(endpoint: Asgi) -> Asgi:
    """The endpoint, with the request's id also in the header ``request-id``, where Anthropic's clients look."""

    async def told(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                ids = [v for k, v in message["headers"] if k == b"x-locum-request-id"]
                message["headers"] = [*message["headers"], *((b"request-id", v) for v in ids[:1])]
            await send(message)

        await endpoint(scope, receive, sending)

    return told


class CountTokens:
    """An estimate, the one that routing goes by: four bytes of text or of a tool's definition a token, a fixed
    number an image; a PDF counts nothing. Which model will answer, and so whose tokens they would be, is not
    known before the request is routed."""

    def __init__(self, catalog: Callable[[], Catalog]) -> None:
        self._catalog = catalog

    async def __call__(self, arrived: Arrival) -> None:
        headers = [(b"x-locum-request-id", arrived.request_id.encode()), *JSON]
        count = await aside(partial(self._count, arrived.content), len(arrived.content))
        await arrived.sink.whole(200, headers, orjson.dumps({"input_tokens": count}))

    def _count(self, content: bytes) -> int:
        chat = chat_of(json_object(content), counting=True)
        self._catalog().resolve(chat["model"])
        return extract(chat).input_tokens

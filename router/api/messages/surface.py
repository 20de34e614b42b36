"""``POST /v1/messages``: the surface, and an answer's way out through it."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from router.api.endpoint import Asked
from router.api.entrance import Asgi
from router.api.messages.answer import Question, message_of
from router.api.messages.errors import from_openai
from router.api.messages.request import chat_of, wants_thinking
from router.api.messages.stream import MessageStream
from router.api.wire import Message, Receive, Scope, Send
from router.bodies import json_object
from router.exchange import JSON, Headers, Sink
from router.upstream.sse import split

PATH = "/v1/messages"
COUNT_PATH = "/v1/messages/count_tokens"


class Messages:
    """Anthropic's form. The headers ``anthropic-version`` and ``anthropic-beta`` ask for nothing here."""

    async def asked(self, content: bytes, request_id: str, headers: Mapping[bytes, bytes]) -> Asked:
        body = json_object(content)
        chat = chat_of(body)
        question = Question(request_id, chat, wants_thinking(body))
        return Asked(chat, lambda sink: MessageSink(sink, question))


class MessageSink:
    """Takes a chat answer and sends a Message through ``sink``."""

    def __init__(self, sink: Sink, question: Question) -> None:
        self._sink, self._question = sink, question
        self._stream = MessageStream(question)
        self.started = False

    async def start(self, status: int, headers: Headers) -> None:
        self.started = True
        await self._sink.start(status, headers)

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        if status >= 400:
            found = from_openai(status, body, self._question.request_id)
        else:
            found = message_of(orjson.loads(body), self._question)
        self.started = True
        kept = [(k, v) for k, v in headers if k != b"content-type"]
        await self._sink.whole(status, [*kept, *JSON], orjson.dumps(found))

    async def send(self, data: bytes) -> None:
        if out := self._taken(data):
            await self._sink.send(out)

    async def end(self, data: bytes = b"") -> None:
        await self._sink.end(self._taken(data) + self._stream.finish())

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

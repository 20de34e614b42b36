"""``POST /v1/messages``: Claude, asked in its client's own words where those are Anthropic's, in translation else."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import orjson

from router.backends.anthropic.answer import calls_in, chat_of, is_whole, truly_ended
from router.backends.anthropic.errors import in_words, status_of
from router.backends.anthropic.passage import own_headers, own_words
from router.backends.anthropic.request import messages_body
from router.backends.anthropic.stream import Chunks
from router.backends.anthropic.tools import custom_tools
from router.backends.base import Backend, Reply, WaitingTime
from router.backends.events import LONGEST_EVENT_BYTES
from router.backends.faults import bound, fault, too_long
from router.backends.openai import OpenAIStream, OpenAIWire
from router.errors import UpstreamError, UpstreamRefused
from router.wire.chat import IN_OWN_WORDS, Native
from router.wire.json_text import dumps, loads
from router.wire.sse import Cutter, split, work
from router.wire.threads import aside

PATH = "/v1/messages"
VERSION = {"anthropic-version": "2023-06-01"}
PUBLIC_URL = "https://api.anthropic.com"
URL_VARIABLES = ("ANTHROPIC_API_BASE", "ANTHROPIC_BASE_URL")


def base_url(env: Mapping[str, str]) -> str:
    """Where Anthropic's API is, by the environment; with or without its path, as litellm takes it."""
    given = next((env[name] for name in URL_VARIABLES if env.get(name)), PUBLIC_URL)
    return given.rstrip("/").removesuffix("/messages").removesuffix("/v1")


class AnthropicWire:
    """Speaks Messages to a backend of this dialect, over ``http``, whose owner closes it."""

    def __init__(self, http: OpenAIWire) -> None:
        self._http = http

    async def complete(self, backend: Backend, body: Mapping[str, Any], waited: WaitingTime) -> Reply:
        asked, headers, native = await aside(partial(_asked, backend, body), waited.size)
        try:
            reply = await self._http.complete(backend, asked, waited, path=PATH, headers=headers)
        except (UpstreamError, UpstreamRefused) as e:
            raise in_words(e, native=native) from e.__cause__
        telling = partial(_told, backend, body, reply.body, native=native)
        content, whole = await aside(telling, len(reply.body))
        return Reply(reply.status, content, reply.headers, whole=whole)

    async def embed(self, backend: Backend, body: Mapping[str, Any], waited: WaitingTime) -> Reply:
        raise UpstreamError(f"{backend.label} gives no embeddings")

    async def open(self, backend: Backend, body: Mapping[str, Any], waited: WaitingTime) -> AnthropicStream:
        asked, headers, native = await aside(partial(_asked, backend, body), waited.size)
        try:
            raw = await self._http.open(backend, asked | {"stream": True}, waited, path=PATH, headers=headers)
        except (UpstreamError, UpstreamRefused) as e:
            raise in_words(e, native=native) from e.__cause__
        stream = AnthropicStream(backend, raw, Chunks(native=native, custom=custom_tools(body)))
        try:
            await stream.begin()
        except BaseException:
            await stream.close()
            raise
        return stream

    async def close(self) -> None:
        """The connections are ``http``'s."""


class AnthropicStream:
    """A streamed Message under way, as chat's events (``router.backends.base.Stream``)."""

    def __init__(self, backend: Backend, raw: OpenAIStream, chunks: Chunks) -> None:
        self._backend, self._raw, self._chunks, self.headers = backend, raw, chunks, raw.headers
        self._cutter, self._first = Cutter(), b""

    async def begin(self) -> None:
        """Waits for the first of an answer. An error that comes instead of it is one, whatever the status was.

        Raises:
            UpstreamError, UpstreamRefused: as for the status that it would have had.
        """
        while not self._chunks.begun:
            piece = await self._piece()
            if piece is None:
                return  # cut short: who reads on notices
            self._first += piece
            if self._chunks.error is not None and not self._chunks.begun:
                raise _failed(self._backend, self._chunks.error, native=self._chunks.native)

    async def read(self) -> bytes:
        first, self._first = self._first, b""
        if first:
            return first
        while not (piece := await self._piece()):
            if piece is None:
                return b""
        return piece

    async def _piece(self) -> bytes | None:
        """What the next bytes add; None at the end."""
        if raw := await self._raw.read():
            events = self._cutter.feed(raw)
            if self._cutter.size > LONGEST_EVENT_BYTES:
                raise too_long(self._backend, f"{LONGEST_EVENT_BYTES} bytes")
        elif not (events := self._cutter.rest()).strip():
            return None
        return await aside(partial(self._taken, events), work(events))

    def _taken(self, events: bytes) -> bytes:
        bound(self._backend, events)
        return b"".join(map(self._chunks.take, split(events)))

    async def close(self, *, done: bool = False) -> None:
        await self._raw.close(done=done)


def _asked(backend: Backend, body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str], bool]:
    """(the request as Claude gets it, its headers, whether it is in the client's own words)."""
    native = body.get(IN_OWN_WORDS)
    if isinstance(native, Native):
        return own_words(native.body) | {"model": backend.model}, {**VERSION, **own_headers(native.headers)}, True
    return messages_body(body, backend.model), dict(VERSION), False


def _told(backend: Backend, body: Mapping[str, Any], content: bytes, *, native: bool) -> tuple[bytes, bool]:
    """(a Message as the chat completion that says the same, whether it says all). Raises UpstreamError."""
    try:
        message, readable = loads(content)
        ended = truly_ended(message, calls_in(message)) if isinstance(message, dict) else message
        found = chat_of(ended, custom_tools(body))
    except (ValueError, UpstreamError) as e:
        raise UpstreamError(f"{backend.label} answered something that is no message") from e
    if native:
        own = content if ended is message else dumps(ended)
        found[IN_OWN_WORDS] = own.decode("utf-8", "replace")
    return dumps(found), readable and is_whole(message)


def _failed(backend: Backend, error: dict[str, Any], *, native: bool) -> UpstreamError | UpstreamRefused:
    """What an error that came as an event means: the same as with the status that it did not have."""
    return in_words(fault(backend, status_of(error), orjson.dumps({"error": error}), {}), native=native)

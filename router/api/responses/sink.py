"""The way out: takes a chat answer's bytes and gives the client a response, whole or as its events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from router.api.responses.answer import Response, Turn, item_status, response_of, usage_of
from router.api.responses.output import Event
from router.wire.calls import number
from router.wire.chat import Headers, Sink
from router.wire.json_text import dumps, loads
from router.wire.sse import COMMENT, parse, split, work
from router.wire.threads import aside

Keep = Callable[[Turn, Response], Awaitable[bool]]

FAILED = "server_error"
RATE_LIMITED = "rate_limit_exceeded"


class ResponseSink:
    """``keep`` is done before the client has its last byte: its next request may build on this one at once."""

    def __init__(self, sink: Sink, turn: Turn, keep: Keep) -> None:
        self.started = False
        self._sink, self._turn, self._keep = sink, turn, keep
        self._output = turn.output()
        self._sequence = 0
        self._size = turn.size  # each response repeats much of its request
        self._seen: dict[str, Any] = {}
        self._error: dict[str, Any] | None = None

    async def start(self, status: int, headers: Headers) -> None:
        self.started = True
        await self._sink.start(status, [*headers, *self._turn.headers])

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        if status == 200:
            size = self._size + len(body)
            response = await self._kept(await aside(partial(_response, self._turn, body), size))
            body = await aside(partial(dumps, response), size)
        self.started = True
        await self._sink.whole(status, [*headers, *self._turn.headers], body)

    async def send(self, data: bytes) -> None:
        self._size += len(data)
        if shown := await aside(partial(self._taken, data), work(data) if self._sequence else self._size):
            await self._sink.send(shown)

    async def end(self, data: bytes = b"") -> None:
        """The answer's end, or that it broke off: then the last events say so, and nothing is kept."""
        self._size += len(data)
        shown = await aside(partial(self._last, data), self._size)
        if self._error is None:
            finish = self._output.assembly.finish_reason
            response = await self._kept(self._turn.ended(finish, self._named, self._output.items, **self._seen))
            ended = [{"type": f"response.{response['status']}", "response": response}]
            shown += await aside(partial(self._tell, ended), self._size)
        await self._sink.end(shown)

    def _last(self, data: bytes) -> bytes:
        """All that is told before the end."""
        shown = self._taken(data)
        if self._error is None:
            shown += self._begun() + self._tell(self._output.close(item_status(self._output.assembly.finish_reason)))
        return shown

    def _taken(self, data: bytes) -> bytes:
        """The client's events for some of the chat answer's; comments stay what they are, and what cannot be read is
        none."""
        shown: list[bytes] = []
        for event in split(data):
            if self._error is not None:
                break
            if event.startswith(COMMENT):
                shown.append(event)
            elif (chunk := parse(event)) is not None:
                shown.append(self._chunk(chunk))
        return b"".join(shown)

    def _chunk(self, chunk: dict[str, Any]) -> bytes:
        if isinstance(error := chunk.get("error"), dict):
            return self._failed(error)
        assembly = self._output.assembly
        assembly.note(chunk)
        shown = [self._begun()]
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and (number(choice.get("index")) or 0) == 0:
                shown.append(self._tell(self._output.add(choice)))
        tier = chunk.get("service_tier")
        told = (("usage", usage_of(assembly.usage_told)), ("service_tier", tier))
        self._seen |= {key: value for key, value in told if value is not None}
        return b"".join(shown)

    @property
    def _named(self) -> str:
        """The model that answers; before it says so, the name that was asked for."""
        return str(self._output.assembly.model or self._turn.body["model"])

    def _begun(self) -> bytes:
        """The first two events, once: as soon as it is known which model answers."""
        if self._sequence:
            return b""
        response = self._turn.response("in_progress", self._named)
        return self._tell([{"type": f"response.{k}", "response": response} for k in ("created", "in_progress")])

    def _failed(self, error: dict[str, Any]) -> bytes:
        """An error that came after the start: the event that SDKs raise, then the response's last state."""
        self._error = error
        message, code = str(error.get("message") or "the stream broke off"), error.get("code")
        told = {"type": "error", "code": code, "message": message, "param": error.get("param"), "error": error}
        self._output.cut()
        why = {"code": code if code == RATE_LIMITED else FAILED, "message": message}
        response = self._turn.response("failed", self._named, error=why, output=self._output.items, store=False)
        return self._begun() + self._tell([told, {"type": "response.failed", "response": response}])

    def _tell(self, events: list[Event]) -> bytes:
        shown = []
        for event in events:
            event["sequence_number"] = self._sequence
            self._sequence += 1
            shown.append(b"event: %s\ndata: %s\n\n" % (event["type"].encode(), dumps(event)))
        return b"".join(shown)

    async def _kept(self, response: Response) -> Response:
        """The response as it leaves: kept where that was asked for, and saying whether it is."""
        if self._turn.terms is not None and not await self._keep(self._turn, response):
            response["store"] = False
        return response


def _response(turn: Turn, body: bytes) -> Response:
    return response_of(turn, loads(body)[0])

"""A streamed chat answer as Anthropic's events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from router.api.messages.answer import (
    Question,
    call_id,
    estimated,
    signed_in,
    stop_of,
    text_in,
    thinking_in,
    usage_body,
)
from router.api.messages.errors import in_stream
from router.contracts.records import Usage
from router.upstream.base import IN_OWN_WORDS
from router.upstream.sse import DONE, parse, payload, usage_of

Key = tuple[str, int]
"""What a block holds: ``text``, ``thinking``, ``redacted`` (thinking), or ``call`` and which of them."""

_DELTAS = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "call": ("input_json_delta", "partial_json"),
}


def event(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))


PING = event("ping")


class MessageStream:
    """Turns chat's events into Anthropic's, one by one as they come.

    One block is open at a time. Where a server mixes the pieces of several tool calls, the first goes out
    live and what belongs to the others waits, since a block that was closed cannot be added to.
    """

    def __init__(self, question: Question) -> None:
        self._question = question
        self._begun = self._ended = self._refused = False
        self._index = -1
        self._open: Key | None = None
        self._arguments = ""
        self._calls = 0
        self._closed: set[Key] = set()
        self._waiting: dict[Key, tuple[dict[str, Any], list[str]]] = {}
        self._choice: dict[str, Any] = {}
        self._usage: Usage | None = None
        self._bytes = 0
        self._out: list[bytes] = []

    def take(self, raw: bytes) -> bytes:
        """What leaves for one whole event of a chat stream."""
        data = payload(raw)
        if self._ended or not data:
            return b"" if self._ended else PING
        if data == DONE:
            return self.finish()
        chunk = parse(raw) or {}
        if isinstance(own := chunk.get(IN_OWN_WORDS), str):
            self._ended = bool(chunk.get("error") or chunk.get("usage"))  # with either it ends
            return own.encode()
        if chunk.get("error"):
            self._ended = True
            return event("error", **_without_type(in_stream(chunk, self._question.request_id)))
        if chunk:
            self._chunk(chunk)
        return self._left()

    def finish(self) -> bytes:
        """What leaves at the end: nothing where the message is complete, or broke off with an error."""
        if self._ended:
            return b""
        self._begin({})
        self._flush()
        self._ended = True
        usage = self._usage or estimated(self._question, self._bytes)
        stop = stop_of(self._choice, self._question, calls=self._calls > 0, refused=self._refused)
        self._out.append(event("message_delta", delta=stop, usage=usage_body(usage)))
        self._out.append(event("message_stop"))
        return self._left()

    def _left(self) -> bytes:
        out, self._out = self._out, []
        return b"".join(out)

    def _begin(self, chunk: Mapping[str, Any]) -> None:
        """The message's start. Its counts are 0: what is true is known at the end, and told there."""
        if self._begun:
            return
        self._begun = True
        message = {
            "id": self._question.message_id,
            "type": "message",
            "role": "assistant",
            "model": chunk.get("model") or self._question.chat["model"],
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_body(Usage()),
        }
        self._out += [event("message_start", message=message), PING]

    def _chunk(self, chunk: Mapping[str, Any]) -> None:
        self._begin(chunk)
        self._usage = usage_of(chunk) or self._usage
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and choice.get("index", 0) == 0:
                if isinstance(choice.get("delta"), dict):
                    self._delta(choice["delta"])
                if choice.get("finish_reason"):
                    self._choice = {k: v for k, v in choice.items() if k != "delta"}
                    self._flush()

    def _delta(self, delta: Mapping[str, Any]) -> None:
        if self._question.thinking:
            self._thinking(delta)
        refusal = text_in(delta.get("refusal"))
        self._refused = self._refused or bool(refusal)
        if text := text_in(delta.get("content")) + refusal:
            self._put(("text", 0), {"type": "text", "text": ""}, text)
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, dict) and isinstance(call.get("function"), dict):
                self._call(call, call["function"])

    def _thinking(self, delta: Mapping[str, Any]) -> None:
        """Thinking, and its signature, which comes last: with it the block is complete."""
        block = {"type": "thinking", "thinking": "", "signature": ""}
        if thought := thinking_in(delta):
            self._put(("thinking", 0), block, thought)
        for piece in signed_in(delta):
            if piece.get("type") == "redacted_thinking":
                self._put(("redacted", 0), piece, "")
            else:
                self._put(("thinking", 0), block, "")
                signature = {"type": "signature_delta", "signature": piece["signature"]}
                self._out.append(event("content_block_delta", index=self._index, delta=signature))
            self._stop()

    def _call(self, call: Mapping[str, Any], function: Mapping[str, Any]) -> None:
        at = call.get("index")
        if not isinstance(at, int):  # some servers send each call whole and number none
            at = self._calls if call.get("id") or not self._calls else self._calls - 1
        self._calls = max(self._calls, at + 1)
        name, arguments = str(function.get("name") or ""), text_in(function.get("arguments"))
        block = {"type": "tool_use", "id": call_id(call.get("id"), self._question, at), "name": name, "input": {}}
        self._put(("call", at), block, arguments)

    def _put(self, key: Key, block: dict[str, Any], text: str) -> None:
        """One piece of a block, which it opens where it is the first."""
        self._bytes += len(text)
        if key != self._open:
            if key in self._closed:
                return
            if self._waiting or self._unfinished():
                self._waiting.setdefault(key, (block, []))[1].append(text)
                return
            self._start(key, block)
        self._add(text)

    def _unfinished(self) -> bool:
        """Whether a tool call is open whose arguments are not all there."""
        if self._open is None or self._open[0] != "call":
            return False
        try:
            orjson.loads(self._arguments)
        except orjson.JSONDecodeError:
            return True
        return False

    def _start(self, key: Key, block: dict[str, Any]) -> None:
        self._stop()
        self._open, self._index, self._arguments = key, self._index + 1, ""
        self._out.append(event("content_block_start", index=self._index, content_block=block))

    def _add(self, text: str) -> None:
        if not text or self._open is None:
            return
        kind, field = _DELTAS[self._open[0]]
        if self._open[0] == "call":
            self._arguments += text
        self._out.append(event("content_block_delta", index=self._index, delta={"type": kind, field: text}))

    def _stop(self) -> None:
        if self._open is None:
            return
        if self._open[0] == "call":
            self._closed.add(self._open)
        self._out.append(event("content_block_stop", index=self._index))
        self._open = None

    def _flush(self) -> None:
        """Closes the open block, and lets out what waited for that."""
        self._stop()
        waiting, self._waiting = self._waiting, {}
        for key, (block, texts) in waiting.items():
            self._start(key, block)
            self._add("".join(texts))
            self._stop()


def _without_type(body: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in body.items() if k != "type"}

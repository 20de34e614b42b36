"""A streamed chat answer as Anthropic's events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from router.api.messages.answer import MessageContext, call_id, estimated, signed_in, stop_of, usage_body
from router.api.messages.errors import in_stream
from router.contracts.records import Usage
from router.wire.assembly import Assembly, BlockOrder, Piece
from router.wire.calls import Call, number
from router.wire.chat import IN_OWN_WORDS
from router.wire.estimates import usage_or
from router.wire.json_text import dumps
from router.wire.sse import DONE, parse, payload, piece_of

Key = tuple[str, Call | None]
"""What a block holds: ``text``, ``thinking``, ``redacted`` (thinking), or ``call`` and which of them."""

_DELTAS = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "call": ("input_json_delta", "partial_json"),
}


def event(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), dumps({"type": kind, **fields}))


PING = event("ping")


class MessageStream:
    """Turns chat's events into Anthropic's, one by one as they come.

    One block is open at a time, and one that was closed cannot be added to (``BlockOrder``).
    """

    def __init__(self, question: MessageContext) -> None:
        self._question = question
        self._begun = self._ended = self._refused = False
        self._index = -1
        self._open: Key | None = None
        self._calls = 0
        self._assembly = Assembly()
        self._order = BlockOrder(self._assembly)
        self._choice: dict[str, Any] = {}
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
        self._begin()
        self._flush()
        self._ended = True
        usage = usage_or(self._assembly.usage, lambda: estimated(self._question, self._assembly.message))
        stop = stop_of(self._choice, self._question, calls=self._calls > 0, refused=self._refused)
        self._out.append(event("message_delta", delta=stop, usage=usage_body(usage)))
        self._out.append(event("message_stop"))
        return self._left()

    def _left(self) -> bytes:
        out, self._out = self._out, []
        return b"".join(out)

    def _begin(self) -> None:
        """The message's start. Its counts are 0: what is true is known at the end, and told there."""
        if self._begun:
            return
        self._begun = True
        message: dict[str, Any] = {
            "id": self._question.message_id,
            "type": "message",
            "role": "assistant",
            "model": self._assembly.model or self._question.chat["model"],
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_body(Usage()),
        }
        self._out += [event("message_start", message=message), PING]

    def _chunk(self, chunk: Mapping[str, Any]) -> None:
        self._assembly.note(chunk)
        self._begin()
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and (number(choice.get("index")) or 0) == 0:
                self._said(choice)
                if choice.get("finish_reason"):
                    self._choice = {k: v for k, v in choice.items() if k != "delta"}
                    self._flush()

    def _said(self, choice: Mapping[str, Any]) -> None:
        pieces = self._assembly.add_choice(choice)
        if self._question.thinking:
            self._put(self._order.add(p for p in pieces if p.kind == "reasoning"))
            self._sign(piece_of(choice))
        self._put(self._order.add(p for p in pieces if p.kind != "reasoning"))

    def _sign(self, delta: Mapping[str, Any]) -> None:
        """The signature of a thought, which comes last: with it the block is complete."""
        for signed in signed_in(delta):
            if signed.get("type") == "redacted_thinking":
                self._start(("redacted", None), signed)
            else:
                if self._open != ("thinking", None):
                    self._start(("thinking", None), _block("reasoning"))
                signature = {"type": "signature_delta", "signature": signed["signature"]}
                self._out.append(event("content_block_delta", index=self._index, delta=signature))
            self._stop()

    def _put(self, pieces: Iterable[Piece]) -> None:
        """Pieces of blocks, each opened where its first piece comes."""
        for kind, text, call in pieces:
            self._refused = self._refused or kind == "refusal"
            key: Key = ("call" if call else "thinking" if kind == "reasoning" else "text", call)
            if key != self._open:
                self._start(key, self._tool_use(call) if call else _block(kind))
            self._add(text)

    def _tool_use(self, call: Call) -> dict[str, Any]:
        self._calls += 1
        made = call_id(call.id, self._question, self._calls - 1)
        return {"type": "tool_use", "id": made, "name": call.name, "input": {}}

    def _start(self, key: Key, block: dict[str, Any]) -> None:
        self._stop()
        self._open, self._index = key, self._index + 1
        self._out.append(event("content_block_start", index=self._index, content_block=block))

    def _add(self, text: str) -> None:
        if not text or self._open is None:
            return
        kind, field = _DELTAS[self._open[0]]
        self._out.append(event("content_block_delta", index=self._index, delta={"type": kind, field: text}))

    def _stop(self) -> None:
        if self._open is not None:
            self._out.append(event("content_block_stop", index=self._index))
            self._open = None

    def _flush(self) -> None:
        """Lets out what waited, and closes the last block."""
        self._put(self._order.rest())
        self._stop()


def _block(kind: str) -> dict[str, Any]:
    return (
        {"type": "thinking", "thinking": "", "signature": ""} if kind == "reasoning" else {"type": "text", "text": ""}
    )


def _without_type(body: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in body.items() if k != "type"}

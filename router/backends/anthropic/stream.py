"""A streamed Message as chat chunks, event by event."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from router.backends.anthropic.answer import (
    FINISHES,
    finish_of,
    input_of,
    is_known,
    is_signed,
    thought_of,
    truly_ended,
    usage_of,
)
from router.backends.anthropic.errors import chat_error
from router.wire.calls import number
from router.wire.chat import IN_OWN_WORDS
from router.wire.sse import LOST, UNREADABLE, encode, payload, read
from router.wire.usage import USAGE_SO_FAR, merged, tells_end

DONE = b"data: [DONE]\n\n"
QUIET = b": ping\n\n"

_UNSAID = ("citations_delta", "compaction_delta")
_TEXTS = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": "partial_json",
}


@dataclass(slots=True)
class _Block:
    """A block under way: what was told of it, the pieces of its input, and which of the calls it is."""

    told: dict[str, Any] = field(default_factory=dict)
    input: list[str] = field(default_factory=list)
    call: int = -1


class Chunks:
    """Turns Anthropic's events into chat's. ``native``: each goes along in its own words too, for a client that
    speaks them; ``begun`` once there is something to answer with, ``error`` what came instead of it."""

    def __init__(self, *, native: bool, custom: Iterable[str] = ()) -> None:
        self.begun, self.native = False, native
        self.error: dict[str, Any] | None = None
        self._custom = frozenset(custom)
        self._base: dict[str, Any] = {"object": "chat.completion.chunk", "created": int(time.time())}
        self._usage: dict[str, Any] = {}
        self._counted = False
        self._blocks: dict[int | None, _Block] = {}
        self._calls = self._thoughts = 0
        self._ended = False

    def take(self, event: bytes) -> bytes:
        """The chunks for one whole event; with ``LOST`` where they do not say all that it does, and ``UNREADABLE``
        where nobody knows what it says."""
        found, readable = read(event)
        if found is None:
            return b"" if readable or self._ended else UNREADABLE if payload(event) else LOST
        if not self._ended and not self._has_place(found):
            return UNREADABLE
        known = readable and _is_known(found)
        if found.get("type") == "message_delta":
            delta = _dict(found.get("delta"))
            if (ended := truly_ended(delta, self._calls > 0)) is not delta:
                known = known and self._calls > 0
                found = {**found, "delta": ended}
                event = b"event: message_delta\n" + encode(found)
        lost = b"" if known or self._ended else LOST
        return lost + self._told(found, event)

    def _has_place(self, found: Mapping[str, Any]) -> bool:
        """Whether what an event says of a block can be put there: the block was started, and a text is one. Over
        anything else Anthropic's own clients trip."""
        begun, said = _dict(found.get("content_block")), _dict(found.get("delta"))
        match found.get("type"):
            case "content_block_start":
                kind = begun.get("type")
                return kind not in ("text", "thinking") or isinstance(begun.get(kind), str)
            case "content_block_delta":
                name = _field(said)
                return number(found.get("index")) in self._blocks and (name is None or isinstance(said.get(name), str))
            case "content_block_stop":
                return number(found.get("index")) in self._blocks
        return True

    def _told(self, found: dict[str, Any], event: bytes) -> bytes:
        choices, more = self._read(found)
        own = {IN_OWN_WORDS: event.decode("utf-8", "replace")} if self.native else {}
        end = DONE if found.get("type") == "message_stop" else b""
        self._ended = self._ended or bool(end)
        if not choices and not more and not own:
            return QUIET if found.get("type") == "ping" else b""
        chunks: list[dict[str, Any]] = [{**self._base, "choices": [_choice(c)]} for c in choices]
        if not chunks:
            chunks = [{**self._base, "choices": []}]
        chunks[-1] |= more | own
        return b"".join(map(encode, chunks)) + end

    def _read(self, found: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The choices that an event adds to, and other fields of its chunk."""
        choices: list[dict[str, Any]] = []
        more: dict[str, Any] = {}
        at = number(found.get("index"))
        match found.get("type"):
            case "message_start":
                message = _dict(found.get("message"))
                self._base |= {"id": message.get("id"), "model": message.get("model")}
                self._usage |= _dict(message.get("usage"))
                choices = [_delta({"role": "assistant", "content": ""})]
                more = {USAGE_SO_FAR: usage_of(self._usage)}
            case "content_block_start":
                self.begun, self._blocks[at] = True, _Block(dict(_dict(found.get("content_block"))))
                choices = self._started(self._blocks[at])
            case "content_block_delta" if at in self._blocks:
                choices = self._added(self._blocks[at], _dict(found.get("delta")))
            case "content_block_stop" if at in self._blocks:
                choices = self._stopped(self._blocks[at])
                self._blocks[at] = _Block()
            case "message_delta":
                self.begun, choices = True, [finish_of(_dict(found.get("delta")))]
                self._count(_dict(found.get("usage")))
                more = {USAGE_SO_FAR: self._told_usage}  # it is owed, whether or not the end comes
            case "message_stop":
                more = {"usage": self._told_usage}
            case "error":
                self.error = chat_error(found)
                more = {"error": self.error}
        return choices, more

    def _count(self, told: Mapping[str, Any]) -> None:
        self._usage = merged(self._usage, {name: value for name, value in told.items() if value is not None})
        self._counted = self._counted or tells_end(told)

    @property
    def _told_usage(self) -> dict[str, Any] | None:
        """What the start told of the answer's length is no more than a place for it."""
        return usage_of(self._usage if self._counted else {**self._usage, "output_tokens": None})

    def _started(self, started: _Block) -> list[dict[str, Any]]:
        block = started.told
        match block.get("type"):
            case "text" if isinstance(text := block.get("text"), str) and text:
                return [_delta({"content": text})]
            case "thinking" if isinstance(thought := block.get("thinking"), str) and thought:
                return [_delta({"reasoning_content": thought})]
            case "tool_use":
                started.call, self._calls = self._calls, self._calls + 1
                name = str(block.get("name") or "")
                if name in self._custom:
                    return [_call(started, {"id": block.get("id"), "type": "custom", "custom": {"name": name}})]
                function = {"name": name, "arguments": ""}
                return [_call(started, {"id": block.get("id"), "type": "function", "function": function})]
            case _:
                return []

    def _added(self, grown: _Block, delta: Mapping[str, Any]) -> list[dict[str, Any]]:
        kind, block = delta.get("type"), grown.told
        if kind == "input_json_delta" and isinstance(part := delta.get("partial_json"), str):
            grown.input.append(part)
            if block.get("type") != "tool_use" or str(block.get("name")) in self._custom or not part:
                return []
            return [_call(grown, {"function": {"arguments": part}})]
        name = _field(delta)
        text = delta.get(name) if name else None
        if name is None or not isinstance(text, str) or not text:
            return []
        if name == "text":
            return [_delta({"content": text})]
        before = block.get(name)
        block[name] = before + text if isinstance(before, str) else text
        return [_delta({"reasoning_content": text})] if name == "thinking" else []

    def _stopped(self, ended: _Block) -> list[dict[str, Any]]:
        block = ended.told
        if is_signed(block):
            self._thoughts += 1  # numbered, since OpenAI's client puts no list together without
            return [_delta({"thinking_blocks": [{"index": self._thoughts - 1, **thought_of(block)}]})]
        if block.get("type") != "tool_use":
            return []
        if str(block.get("name")) in self._custom:
            return [_call(ended, {"custom": {"input": _custom_input("".join(ended.input))}})]
        given = block.get("input")
        if given and not any(ended.input):  # told whole, at the start
            return [_call(ended, {"function": {"arguments": orjson.dumps(given).decode()}})]
        return []


def _call(block: _Block, part: dict[str, Any]) -> dict[str, Any]:
    return _delta({"tool_calls": [{"index": block.call, **part}]})


def _is_known(found: Mapping[str, Any]) -> bool:
    """Whether all that an event may say is of a form that is known here."""
    delta = _dict(found.get("delta"))
    match found.get("type"):
        case "content_block_start":
            return is_known(found.get("content_block"))
        case "content_block_delta":
            return delta.get("type") in _UNSAID or _field(delta) is not None
        case "message_delta":
            reason = delta.get("stop_reason")
            return reason is None or (isinstance(reason, str) and reason in FINISHES)
        case "message_start":
            return _dict(found.get("message")).get("role") in (None, "assistant")
        case kind:
            return kind in ("content_block_stop", "message_stop", "ping", "error")


def _field(delta: Mapping[str, Any]) -> str | None:
    """Where a delta has its text; None for one of no known kind."""
    kind = delta.get("type")
    return _TEXTS.get(kind) if isinstance(kind, str) else None


def _delta(said: dict[str, Any]) -> dict[str, Any]:
    return {"delta": said}


def _choice(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"index": 0, "delta": {}, "finish_reason": None, **fields}


def _custom_input(written: str) -> str:
    try:
        return input_of(orjson.loads(written))
    except orjson.JSONDecodeError:
        return written


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}

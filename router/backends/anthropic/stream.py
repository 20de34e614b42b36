"""A streamed Message as chat chunks, event by event."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
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
from router.wire.chat import IN_OWN_WORDS
from router.wire.sse import LOST, UNREADABLE, encode, payload, read
from router.wire.usage import USAGE_SO_FAR

DONE = b"data: [DONE]\n\n"
QUIET = b": ping\n\n"

_UNSAID = ("citations_delta", "compaction_delta")
_TEXTS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}


class Chunks:
    """Turns Anthropic's events into chat's. ``native``: each goes along in its own words too, for a client that
    speaks them; ``begun`` once there is something to answer with, ``error`` what came instead of it."""

    def __init__(self, *, native: bool, custom: Iterable[str] = ()) -> None:
        self.begun, self.native = False, native
        self.error: dict[str, Any] | None = None
        self._custom = frozenset(custom)
        self._base: dict[str, Any] = {"object": "chat.completion.chunk", "created": int(time.time())}
        self._usage: dict[str, Any] = {}
        self._block: dict[str, Any] = {}
        self._input: list[str] = []
        self._calls = self._thoughts = 0
        self._ended = False

    def take(self, event: bytes) -> bytes:
        """The chunks for one whole event; with ``LOST`` where they do not say all that it does, and ``UNREADABLE``
        where nobody knows what it says."""
        found, readable = read(event)
        if found is None:
            return b"" if readable or self._ended else UNREADABLE if payload(event) else LOST
        known = readable and _is_known(found)
        if found.get("type") == "message_delta":
            delta = _dict(found.get("delta"))
            if (ended := truly_ended(delta, self._calls > 0)) is not delta:
                known = known and self._calls > 0
                found = {**found, "delta": ended}
                event = b"event: message_delta\n" + encode(found)
        lost = b"" if known or self._ended else LOST
        return lost + self._told(found, event)

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
        match found.get("type"):
            case "message_start":
                message = _dict(found.get("message"))
                self._base |= {"id": message.get("id"), "model": message.get("model")}
                self._usage |= _dict(message.get("usage"))
                choices = [_delta({"role": "assistant", "content": ""})]
                more = {USAGE_SO_FAR: usage_of(self._usage)}
            case "content_block_start":
                self.begun, choices = True, self._started(dict(_dict(found.get("content_block"))))
            case "content_block_delta":
                choices = self._added(_dict(found.get("delta")))
            case "content_block_stop":
                choices = self._stopped()
            case "message_delta":
                self.begun, choices = True, [finish_of(_dict(found.get("delta")))]
                self._usage |= {k: v for k, v in _dict(found.get("usage")).items() if v is not None}
            case "message_stop":
                more = {"usage": usage_of(self._usage)}
            case "error":
                self.error = chat_error(found)
                more = {"error": self.error}
        return choices, more

    def _started(self, block: dict[str, Any]) -> list[dict[str, Any]]:
        self._block, self._input = block, []
        match block.get("type"):
            case "text" if isinstance(text := block.get("text"), str) and text:
                return [_delta({"content": text})]
            case "thinking" if isinstance(thought := block.get("thinking"), str) and thought:
                return [_delta({"reasoning_content": thought})]
            case "tool_use":
                self._calls += 1
                name = str(block.get("name") or "")
                if name in self._custom:
                    return [self._call({"id": block.get("id"), "type": "custom", "custom": {"name": name}})]
                function = {"name": name, "arguments": ""}
                return [self._call({"id": block.get("id"), "type": "function", "function": function})]
            case _:
                return []

    def _added(self, delta: Mapping[str, Any]) -> list[dict[str, Any]]:
        kind, block = delta.get("type"), self._block
        if kind == "input_json_delta" and isinstance(part := delta.get("partial_json"), str):
            self._input.append(part)
            if block.get("type") != "tool_use" or str(block.get("name")) in self._custom or not part:
                return []
            return [self._call({"function": {"arguments": part}})]
        field = _TEXTS.get(kind) if isinstance(kind, str) else None
        text = delta.get(field) if field else None
        if field is None or not isinstance(text, str) or not text:
            return []
        if field == "text":
            return [_delta({"content": text})]
        block[field] = (block.get(field) or "") + text
        return [_delta({"reasoning_content": text})] if field == "thinking" else []

    def _stopped(self) -> list[dict[str, Any]]:
        block, self._block = self._block, {}
        if is_signed(block):
            self._thoughts += 1  # numbered, since OpenAI's client puts no list together without
            return [_delta({"thinking_blocks": [{"index": self._thoughts - 1, **thought_of(block)}]})]
        if block.get("type") != "tool_use":
            return []
        if str(block.get("name")) in self._custom:
            return [self._call({"custom": {"input": _custom_input("".join(self._input))}})]
        given = block.get("input")
        if given and not any(self._input):  # told whole, at the start
            return [self._call({"function": {"arguments": orjson.dumps(given).decode()}})]
        return []

    def _call(self, part: dict[str, Any]) -> dict[str, Any]:
        return _delta({"tool_calls": [{"index": self._calls - 1, **part}]})


def _is_known(found: Mapping[str, Any]) -> bool:
    """Whether all that an event may say is of a form that is known here."""
    delta = _dict(found.get("delta"))
    match found.get("type"):
        case "content_block_start":
            return is_known(found.get("content_block"))
        case "content_block_delta":
            kind = delta.get("type")
            if not isinstance(kind, str):
                return False
            field = "partial_json" if kind == "input_json_delta" else _TEXTS.get(kind)
            return kind in _UNSAID or (field is not None and isinstance(delta.get(field), str))
        case "message_delta":
            reason = delta.get("stop_reason")
            return reason is None or (isinstance(reason, str) and reason in FINISHES)
        case "message_start":
            return _dict(found.get("message")).get("role") in (None, "assistant")
        case kind:
            return kind in ("content_block_stop", "message_stop", "ping", "error")


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

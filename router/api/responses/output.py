"""A response's output, put together from a chat answer's pieces; each step is told as a stream's events."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from router.api.responses.items import Item
from router.wire.assembly import Assembly, BlockOrder, Piece
from router.wire.calls import Call
from router.wire.sse import LEAST_LOGPROB

Event = dict[str, Any]

PARTS = {"text": "output_text", "refusal": "refusal", "reasoning": "reasoning_text"}
"""What the pieces of an answer are here."""

CALLS = {
    "function": ("function_call", "arguments", "response.function_call_arguments"),
    "custom": ("custom_tool_call", "input", "response.custom_tool_call_input"),
}
"""Chat's types of tool calls: the item's type, where its text goes, and how its events begin."""

FRESH: dict[str, Item] = {"message": {"role": "assistant"}, "reasoning": {"summary": []}}


@dataclass(slots=True)
class _Open:
    """The item that is being written. ``part``: the kind of its content part under way; ``call``: the tool call
    that it is."""

    item: Item
    part: str | None = None
    call: Call | None = None
    written: list[str] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)


class Output:
    """``items`` are those that have begun; the last may still grow, until ``close``."""

    def __init__(self, new_id: Callable[[str], str], logprobs: bool) -> None:
        self.items: list[Item] = []
        self._new_id, self._logprobs = new_id, logprobs
        self._open: _Open | None = None
        self.assembly = Assembly()
        self._order = BlockOrder(self.assembly)

    def add(self, choice: dict[str, Any]) -> list[Event]:
        """Takes a choice of a chat answer (its ``message``) or of a chunk (its ``delta``)."""
        logprobs = _logprobs(choice) if choice.get("logprobs") else []
        return self._told(self._order.add(self.assembly.add_choice(choice)), logprobs)

    def close(self, status: str = "completed") -> list[Event]:
        """Ends the answer. One that is complete and says nothing says an empty text."""
        events = self._told(self._order.rest(), [])
        if status == "completed" and all(item["type"] == "reasoning" for item in self.items):
            events += self._begin("output_text")
        return events + self._end(status)

    def cut(self) -> None:
        """Ends the item under way, of an answer that goes on no longer: what waited is not told."""
        self._end("incomplete")

    def _told(self, pieces: list[Piece], logprobs: list[dict[str, Any]]) -> list[Event]:
        events: list[Event] = []
        for kind, text, call in pieces:
            if call is None:
                events += self._write(PARTS[kind], text, logprobs if kind == "text" else [])
            elif call.type in CALLS:
                events += self._add_call(call, text)
        return events

    # ---- words ----

    def _write(self, part: str, text: str, logprobs: list[dict[str, Any]]) -> list[Event]:
        events = [] if self._open and self._open.part == part else self._begin(part)
        assert self._open is not None
        self._open.written.append(text)
        delta = {**self._at(), "delta": text}
        if part == "output_text":
            shown = logprobs if self._logprobs else []
            self._open.logprobs += shown
            delta["logprobs"] = shown
        return [*events, {"type": f"response.{part}.delta", **delta}]

    def _begin(self, part: str) -> list[Event]:
        """A new content part: of the item under way where it is a message and the part fits, else of a new one."""
        kind = "reasoning" if part == "reasoning_text" else "message"
        events: list[Event] = []
        if self._open is not None and kind == self._open.item["type"] == "message":
            events += self._end_part()
        else:
            events += self._start(_Open(self._new(kind) | FRESH[kind] | {"content": []}))
        assert self._open is not None
        self._open.part = part
        self._open.item["content"].append(_part(part, "", []))
        return [*events, {"type": "response.content_part.added", **self._at(), "part": _part(part, "", [])}]

    def _end_part(self) -> list[Event]:
        now = self._open
        if now is None or now.part is None:
            return []
        text, at = "".join(now.written), self._at()
        part = _part(now.part, text, now.logprobs)
        said = {k: v for k, v in part.items() if k in ("text", "refusal", "logprobs")}
        now.item["content"][-1] = part
        events = [
            {"type": f"response.{now.part}.done", **at, **said},
            {"type": "response.content_part.done", **at, "part": part},
        ]
        now.part, now.written, now.logprobs = None, [], []
        return events

    # ---- tool calls ----

    def _add_call(self, call: Call, text: str) -> list[Event]:
        item_type, key, prefix = CALLS[call.type]
        events: list[Event] = []
        if self._open is None or self._open.call is not call:
            call_id = call.id or f"call_{secrets.token_hex(12)}"
            item = self._new(item_type) | {key: "", "call_id": call_id, "name": call.name}
            events = self._start(_Open(item, call=call))
        assert self._open is not None
        self._open.written.append(text)
        return [*events, {"type": f"{prefix}.delta", **self._at(), "delta": text}] if text else events

    def _end_call(self, now: _Open, kind: str) -> list[Event]:
        _, key, prefix = CALLS[kind]
        now.item[key] = text = "".join(now.written)
        named = {"name": now.item["name"]} if kind == "function" else {}
        return [{"type": f"{prefix}.done", **self._at(), **named, key: text}]

    # ---- items ----

    def _new(self, kind: str) -> Item:
        return {"id": self._new_id(kind), "type": kind, "status": "in_progress"}

    def _start(self, fresh: _Open) -> list[Event]:
        events = self._end("completed")
        self._open = fresh
        self.items.append(fresh.item)
        item = {k: list(v) if isinstance(v, list) else v for k, v in fresh.item.items()}
        return [*events, {"type": "response.output_item.added", "output_index": len(self.items) - 1, "item": item}]

    def _end(self, status: str) -> list[Event]:
        now = self._open
        if now is None:
            return []
        events = self._end_call(now, now.call.type) if now.call else self._end_part()
        now.item["status"] = status
        self._open = None
        done = {"type": "response.output_item.done", "output_index": len(self.items) - 1, "item": now.item}
        return [*events, done]

    def _at(self) -> dict[str, Any]:
        """Where in the output it is being written."""
        now = self._open
        assert now is not None
        at = {"item_id": now.item["id"], "output_index": len(self.items) - 1}
        return at if now.call else at | {"content_index": len(now.item["content"]) - 1}


def _part(kind: str, text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    if kind == "refusal":
        return {"type": kind, "refusal": text}
    if kind == "reasoning_text":
        return {"type": kind, "text": text}
    return {"type": kind, "text": text, "annotations": [], "logprobs": logprobs}


def _logprobs(choice: dict[str, Any]) -> list[dict[str, Any]]:
    """A choice's token probabilities: chat's, with every field that is optional there."""
    found = choice.get("logprobs")
    tokens = _tokens(found.get("content") if isinstance(found, dict) else None)
    return [
        _token(token) | {"top_logprobs": [_token(top) for top in _tokens(token.get("top_logprobs"))]}
        for token in tokens
    ]


def _tokens(found: object) -> list[dict[str, Any]]:
    """Those that are tokens: some backends put nulls between them."""
    listed = found if isinstance(found, list) else []
    return [t for t in listed if isinstance(t, dict) and isinstance(t.get("token"), str) and "logprob" in t]


def _token(token: dict[str, Any]) -> dict[str, Any]:
    raw = token.get("bytes")
    raw = raw if isinstance(raw, list) else list(token["token"].encode())
    logprob = token["logprob"] if isinstance(token["logprob"], int | float) else LEAST_LOGPROB
    return {"token": token["token"], "bytes": raw, "logprob": logprob}

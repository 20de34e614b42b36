"""Lines as calls: which format each is in is found line by line."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from distiller.logs import chat, otel, tracers
from distiller.logs.calls import Found, HalfCall, LoggedCall, SkipReason, Source
from distiller.logs.files import Content
from distiller.logs.values import parsed
from router.wire import json_text

DEEPEST = 150
"""Levels that a line may nest: a record of it nests deeper."""
_COLUMNS = {
    "prompt": "prompt", "input": "input", "question": "prompt", "query": "prompt", "text": "prompt", "user": "user",
    "message": "prompt", "utterance": "prompt", "request": "prompt", "instruction": "prompt", "user_message": "prompt",
    "completion": "output", "output": "output", "answer": "output", "response": "output", "label": "output",
    "assistant": "output", "assistant_message": "output", "intent": "output", "category": "output", "gold": "output",
    "reply": "output", "generation": "output", "system": "system", "system_prompt": "system",
    "input_tokens": "prompt_tokens", "output_tokens": "completion_tokens",
}  # fmt: skip


def calls_in(content: Content, only: Source | None = None) -> Iterator[Found]:
    """What a line holds: one call or several, half of one, or why it is not used. ``only``: lines of this format."""
    if isinstance(content, SkipReason):
        yield content
        return
    line = content if isinstance(content, dict) else _object(content)
    if isinstance(line, SkipReason):
        yield line
        return
    for found in _read(line, is_row=isinstance(content, dict)):
        other = only is not None and isinstance(found, LoggedCall | HalfCall) and found.source is not only
        yield SkipReason.OTHER_FORMAT if other else found


def _object(data: bytes) -> dict[str, Any] | SkipReason:
    try:
        value, _ = json_text.loads(data)
    except ValueError:
        return SkipReason.BROKEN
    if not isinstance(value, dict):
        return SkipReason.UNKNOWN
    return SkipReason.TOO_DEEP if data.count(b"[") + data.count(b"{") > DEEPEST and _is_deep(value) else value


def _is_deep(value: dict[str, Any]) -> bool:
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        inner = (of for one in level for of in (one.values() if isinstance(one, dict) else one))
        level = [of for of in inner if isinstance(of, dict | list)]
    return bool(level)


def _read(line: Mapping[str, Any], *, is_row: bool) -> Iterator[Found]:
    if otel.looks_like(line):
        found = list(otel.read(line))
        yield from found or [SkipReason.NO_CALL]
    elif tracers.is_langfuse(line):
        yield from tracers.read_langfuse(line)
    elif tracers.is_litellm(line):
        yield tracers.read_litellm(line)
    elif is_row:
        yield _row(line)
    elif chat.looks_like(line):
        yield chat.read(dict(line))
    else:
        yield SkipReason.UNKNOWN


def _row(row: Mapping[str, Any]) -> Found:
    """A row of a table, by its columns' usual names in any case."""
    named = {str(name).strip().lower().replace(" ", "_"): value for name, value in row.items()}
    facts = {_COLUMNS.get(name, name): parsed(value) for name, value in named.items() if value != ""}
    if (
        "prompt" not in facts
        and "messages" not in facts
        and "input" not in facts
        and isinstance(facts.get("user"), str)
    ):
        facts["prompt"] = facts.pop("user")
    body: dict[str, Any] = {name: facts[name] for name in ("messages", "prompt", "input", "system") if name in facts}
    if not body or not {"output", "messages"} & {_COLUMNS.get(name, name) for name in named}:
        return SkipReason.UNKNOWN
    return chat.call_of(Source.CSV, facts, body, facts.get("output"))


class HalfCalls:
    """Halves of calls until the other one comes. They wait in a file that nobody else sees and that goes with this."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute(
            "CREATE TABLE halves (pair TEXT, side TEXT, line BLOB, PRIMARY KEY (pair, side)) WITHOUT ROWID"
        )

    def joined(self, found: Found) -> Found | None:
        """What was found; of half a call the whole, or why it is none, once both halves are there; None until then."""
        return self._join(found) if isinstance(found, HalfCall) else found

    def _join(self, half: HalfCall) -> Found | None:
        other = "answer" if half.side == "request" else "request"
        row = self._db.execute("SELECT line FROM halves WHERE pair = ? AND side = ?", (half.pair, other)).fetchone()
        if row is None:
            line = orjson.dumps(half.line, default=str)
            kept = self._db.execute("INSERT OR IGNORE INTO halves VALUES (?, ?, ?)", (half.pair, half.side, line))
            return None if kept.rowcount else SkipReason.DUPLICATE
        self._db.execute("DELETE FROM halves WHERE pair = ?", (half.pair,))
        partner = orjson.loads(row[0])
        return chat.joined(half.line, partner) if half.side == "request" else chat.joined(partner, half.line)

    def left(self) -> Counter[SkipReason]:
        """Those whose other half never came."""
        rows = self._db.execute("SELECT side, COUNT(*) FROM halves GROUP BY side ORDER BY side DESC").fetchall()
        return Counter(
            {SkipReason.NO_ANSWER if side == "request" else SkipReason.NO_PARTNER: count for side, count in rows}
        )

    def close(self) -> None:
        self._db.close()

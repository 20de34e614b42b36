"""What a chat request goes on from, as hashes of its turns, told so that what clients change on the way tells nothing:
white space and thoughts of assistant turns, how a tool's arguments are written, tools' results (which clients elide),
images (which they drop), instructions in the middle. Each turn is read once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

BITS = 63
"""Of every hash here: as many as fit beside a sign."""
MOST_ENDS = 8
"""Assistant turns, the last ones, that a request may go on from: what is looked for is as little for long histories."""
FRAME_CHARS = 4096
"""Of longer instructions so much of the beginning and of the end is read."""
OPENING_ROLES = frozenset({"system", "developer"})
UNSAID = frozenset({"tool", "function"})
_SPACES = b" \t\r\n\f\v"
_VOLATILE = _SPACES + b"0123456789abcdefABCDEFpP"  # what clocks, dates, counters and ids are made of, ``pm`` too
_THOUGHTS = ("<think>", "</think>")


class TurnEnd(NamedTuple):
    """Where an assistant turn of a request ends. ``asked``: all that was said before it; ``answered``: with it;
    ``exchange``: it and the user turn before it alone, None where there is none. ``followed``: something comes after
    it; else it may be words that the client puts into the model's mouth."""

    asked: int
    answered: int
    exchange: int | None
    followed: bool


class Lineage:
    """``frame``: the instructions that all begins with, without what changes while a conversation goes on.
    ``ends``: the last ones, latest first; ``asked``: all that the request says."""

    __slots__ = ("_said", "_turn", "_user", "asked", "ends", "frame")

    def __init__(self, messages: Sequence[Any]) -> None:
        turns = [m if isinstance(m, dict) else {} for m in messages]
        spoken = [n for n, turn in enumerate(turns) if turn.get("role") == "assistant"]
        first = spoken[-MOST_ENDS:][0] if spoken else len(turns)
        said, before, user, frame = hashlib.sha256(), "", b"", list[str]()
        found: list[TurnEnd] = []
        for n, turn in enumerate(turns):
            role = turn.get("role")
            if role in OPENING_ROLES:
                if not before:
                    frame.append(_text(turn.get("content")))
                continue
            if role in UNSAID:
                continue
            role = "assistant" if role == "assistant" else "user"
            asked = _number(said) if role == "assistant" and n >= first else 0
            words = (
                _spoken(turn) if role == "assistant" else _text(turn.get("content")).strip().encode(errors="replace")
            )
            if role != before:  # so that it is the same whether a client joins two turns of one side, or not
                said.update(b"\0" + role.encode() + b"\0")
            said.update(words)
            before = role
            if role == "user":
                user = words
            elif n >= first:
                exchange = _exchange(user, words) if user else None
                found.append(TurnEnd(asked, _number(said), exchange, n + 1 < len(turns)))
        self.frame, self.ends = _frame("\n".join(frame)), tuple(reversed(found))
        self.asked = _number(said)
        self._said, self._turn, self._user = said, before, user

    def answered(self, message: Mapping[str, Any]) -> tuple[int, int]:
        """With this answer: (all that was said, the last exchange alone)."""
        words, said = _spoken(message), self._said.copy()
        if self._turn != "assistant":
            said.update(b"\0assistant\0")
        said.update(words)
        return _number(said), _exchange(self._user, words)


@dataclass(frozen=True, slots=True)
class Membership:
    """Which conversation a request belongs to. Where the client did not say so, ``number`` is its number and
    ``lineage`` what tells the next request that goes on from this one, among those of one ``space``."""

    conversation: str
    number: int = 0
    lineage: Lineage | None = None
    space: int = 0


def _number(said: Any) -> int:
    return int.from_bytes(said.digest()[:8]) >> 1


def _exchange(user: bytes, words: bytes) -> int:
    return _number(hashlib.sha256(b"\0exchange\0" + user + b"\0" + words))


def _frame(text: str) -> int:
    """A long text is read at its ends, which stay as long as they are whatever changes in them."""
    if len(text) <= 2 * FRAME_CHARS:
        return _number(hashlib.sha256(_steady(text)))
    head, tail = _steady(text[:FRAME_CHARS])[: FRAME_CHARS // 4], _steady(text[-FRAME_CHARS:])[-FRAME_CHARS // 4 :]
    return _number(hashlib.sha256(head + b"\0" + tail))


def _steady(text: str) -> bytes:
    return text.encode(errors="replace").translate(None, _VOLATILE)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return "".join(text for text in texts if isinstance(text, str))


def _spoken(turn: Mapping[str, Any]) -> bytes:
    """An assistant turn's words and calls."""
    text = _text(turn.get("content"))
    begin, end = _THOUGHTS
    if end in text and text.lstrip().startswith(begin):
        text = text.split(end, 1)[1]
    return b"\0".join((text.encode(errors="replace").translate(None, _SPACES), *_calls(turn)))


def _calls(turn: Mapping[str, Any]) -> Iterator[bytes]:
    calls = turn.get("tool_calls")
    inner = (
        [c.get("function") or c.get("custom") for c in calls if isinstance(c, dict)] if isinstance(calls, list) else []
    )
    for call in (*inner, turn.get("function_call")):
        if isinstance(call, dict):
            yield str(call.get("name")).encode(errors="replace") + b"\0" + _arguments(call)


def _arguments(call: Mapping[str, Any]) -> bytes:
    """The same for arguments that were read and written anew on their way."""
    given = call.get("arguments", call.get("input"))
    try:
        read = orjson.loads(given or "{}") if isinstance(given, str | None) else given
        return orjson.dumps(read, option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return str(given).encode(errors="replace").translate(None, _SPACES)

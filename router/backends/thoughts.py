"""What backends must get back of what they wrote, and clients have no place for.

Reasoning models sign their tool calls (Gemini's thought signatures, Claude's thinking) or want the reasoning that led
to them again (DeepSeek, Kimi), and refuse to go on without. Chat's clients mostly send it back, those of Messages and
Responses cannot. So it is kept here by the call's id, and put back where it is missing, for the backend that wrote it
alone: another one could not read it.

It is kept in memory, by each worker for itself. What has been forgotten, or was never known here, costs the model its
thoughts of before, not the client its answer: ``router.backends.history`` puts in its place what each provider takes
for it.
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

Message = Mapping[str, Any]
Key = tuple[str, ...]

THOUGHTS = frozenset({"reasoning", "reasoning_content"})
OF_TURNS = THOUGHTS | {"provider_specific_fields", "reasoning_details", "thinking_blocks"}
"""Fields of an assistant turn that its writer may want back."""
OF_EVERY_CALL = frozenset({"custom", "function", "id", "index", "type"})
"""Fields of a tool call that clients send back; any other its writer may want."""

MOST_CALLS = 8_192
MOST_BYTES = 32 * 2**20
LONGEST_BYTES = 2**20
AGE_SECONDS = 86_400.0

_UNIQUE = re.compile(r"(?=.*\d)[^:\s]{20,}")
"""Ids that come once in the world, as most providers make them; others may count from 0 in every conversation."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """Of one call; ``turn`` and ``call`` are the fields, as JSON."""

    writer: str
    turn: bytes
    call: bytes
    until: float

    @property
    def size(self) -> int:
        return len(self.turn) + len(self.call)


class Debts:
    """Bounded by calls, bytes and age; the longest unused go first. ``clock`` tells seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()  # large requests are read in a thread

    def keep(self, turns: Iterable[Message], writer: str, owner: str, conversation: str) -> None:
        """Remembers what ``writer`` (a backend's name) is owed of its turns. Only ``owner`` can give it back; where
        ids are not unique, only in the same conversation."""
        for turn in turns:
            calls = _calls_of(turn)
            said = {k: v for k, v in turn.items() if v and k in OF_TURNS} if calls else {}
            of_turn = _written(said)
            for call in calls:
                of_call = _written({k: v for k, v in call.items() if v and k not in OF_EVERY_CALL})
                if (of_turn or of_call) and (key := _key(call, owner, conversation)) is not None:
                    self._put(key, _Kept(writer, of_turn, of_call, self._clock() + AGE_SECONDS))

    def given_back(self, messages: Sequence[Any], writer: str, owner: str, conversation: str) -> Sequence[Any]:
        """The messages with what ``writer`` wrote and the client left out; the same object where nothing is."""
        if not self._kept:
            return messages
        fresh: list[Any] = []
        for message in messages:
            calls = _calls_of(message)
            found = [self._find(call, writer, owner, conversation) for call in calls]
            fresh.append(_whole(message, calls, found) if any(found) else message)
        return fresh if any(new is not old for new, old in zip(fresh, messages, strict=True)) else messages

    def _find(self, call: Message, writer: str, owner: str, conversation: str) -> _Kept | None:
        if (key := _key(call, owner, conversation)) is None:
            return None
        with self._lock:
            kept = self._kept.get(key)
            if kept is None or kept.writer != writer:
                return None
            if kept.until < self._clock():
                self._drop(key)
                return None
            self._kept.move_to_end(key)
            return kept

    def _put(self, key: Key, kept: _Kept) -> None:
        if kept.size > LONGEST_BYTES:
            return
        with self._lock:
            if key in self._kept:
                self._drop(key)
            self._kept[key] = kept
            self._bytes += kept.size
            while len(self._kept) > MOST_CALLS or self._bytes > MOST_BYTES:
                self._drop(next(iter(self._kept)))

    def _drop(self, key: Key) -> None:
        self._bytes -= self._kept.pop(key).size


def _whole(message: Message, calls: list[Message], found: list[_Kept | None]) -> Message:
    """The turn with what was left out of it."""
    first = next(kept for kept in found if kept is not None)
    turn = orjson.loads(first.turn) if first.turn else {}
    if any(message.get(name) for name in THOUGHTS):
        turn = {k: v for k, v in turn.items() if k not in THOUGHTS}
    whole = [
        {**orjson.loads(kept.call), **call} if kept and kept.call else call
        for call, kept in zip(calls, found, strict=True)
    ]
    return {**message, **{k: v for k, v in turn.items() if not message.get(k)}, "tool_calls": whole}


def _calls_of(message: Any) -> list[Message]:
    """A turn's tool calls, where all of them are some."""
    calls = message.get("tool_calls") if isinstance(message, dict) else None
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        return []
    return calls


def _key(call: Message, owner: str, conversation: str) -> Key | None:
    given = call.get("id")
    if not isinstance(given, str) or not given:
        return None
    if _UNIQUE.fullmatch(given):
        return owner, given
    inner = call.get("function")
    name = inner.get("name") if isinstance(inner, dict) else None
    arguments = inner.get("arguments") if isinstance(inner, dict) else None
    return owner, given, conversation, str(name), _canonical(arguments)


def _canonical(arguments: Any) -> str:
    """The same for arguments that were read and written anew on their way."""
    try:
        found = orjson.loads(arguments) if isinstance(arguments, str) else arguments
        return orjson.dumps(found, option=orjson.OPT_SORT_KEYS).decode()
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return str(arguments)


def _written(fields: Mapping[str, Any]) -> bytes:
    return orjson.dumps(fields) if fields else b""

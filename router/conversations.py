"""Which requests belong to one conversation, and what is remembered of it."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

OPENING_ROLES = frozenset({"system", "developer"})


def conversation_id(body: Mapping[str, Any], named: str | None = None) -> str:
    """The client's own name for it (header, or ``metadata.conversation_id``); else a hash of its opening:
    system messages and the first user turn, which every later request of it repeats."""
    metadata = body.get("metadata")
    if named is None and isinstance(metadata, dict):
        named = metadata.get("conversation_id")
    if isinstance(named, str) and named:
        return named[:128]
    opening = []
    for message in body["messages"]:
        role = message.get("role") if isinstance(message, dict) else None
        if role == "user" or role in OPENING_ROLES:
            opening.append([role, message.get("content")])
        if role == "user":
            break
    return "c-" + hashlib.sha256(orjson.dumps(opening)).hexdigest()[:24]


@dataclass(frozen=True, slots=True)
class Remembered:
    """``escalated``: the teacher answered since it was judged too hard for the student. ``cached_share``:
    the share of input tokens, 0 to 1, that the teacher's prompt cache served last."""

    escalated: bool = False
    cached_share: float = 0.0


class Conversations:
    """The last ``capacity`` conversations, forgotten in the order of their last use."""

    def __init__(self, capacity: int = 50_000) -> None:
        self._capacity = capacity
        self._known: OrderedDict[str, Remembered] = OrderedDict()

    def recall(self, conversation: str) -> Remembered:
        return self._known.get(conversation, Remembered())

    def remember(self, conversation: str, *, escalated: bool = False, cached_share: float | None = None) -> None:
        """Adds what one request showed. An escalation is never taken back: affinity goes only upward."""
        before = self.recall(conversation)
        share = before.cached_share if cached_share is None else cached_share
        self._known[conversation] = Remembered(before.escalated or escalated, share)
        self._known.move_to_end(conversation)
        if len(self._known) > self._capacity:
            self._known.popitem(last=False)

"""Which requests belong to one conversation, and what is remembered of it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from router.shared import VALUES, SharedState

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
    """One policy's last conversations, some 100,000 with those of all policies; the longest unused go first.

    All workers that map one ``state`` remember together.
    """

    def __init__(self, policy: str, state: SharedState) -> None:
        self._policy, self._state = policy, state

    def recall(self, conversation: str) -> Remembered:
        key = self._state.key(self._policy, conversation)
        share = self._state.cached_share.get(key) or 0
        return Remembered(self._state.escalated.get(key) is not None, share / VALUES)

    def remember(self, conversation: str, *, escalated: bool = False, cached_share: float | None = None) -> None:
        """Adds what one request showed. An escalation is never taken back: affinity goes only upward."""
        key = self._state.key(self._policy, conversation)
        if escalated or self._state.escalated.get(key) is not None:
            self._state.escalated.put(key)
        if cached_share is not None:  # rounded up: a share of n tokens, taken of n tokens, is the same number again
            self._state.cached_share.put(key, math.ceil(min(1.0, max(0.0, cached_share)) * VALUES))

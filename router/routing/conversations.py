"""Which requests belong to one conversation, and what is remembered of it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import orjson

from router.routing.state.base import VALUES, SharedState

READ_BYTES = 2**16
"""Of a longer opening so much of its beginning and of its end tell it from others, with its length."""
OPENING_ROLES = frozenset({"system", "developer"})


def conversation_id(body: Mapping[str, Any], owner: str, named: object = None) -> str:
    """The client's own name for it, else a hash of its opening: system messages and the first user turn, which every
    later request of it repeats. It is its owner's: two keys that say the same mean two conversations."""
    mine = f"{owner}/" if owner else ""
    if isinstance(named, str) and named:
        return mine + named[:128]
    opening = []
    for message in body["messages"]:
        role = message.get("role") if isinstance(message, dict) else None
        if role == "user" or role in OPENING_ROLES:
            opening.append([role, message.get("content")])
        if role == "user":
            break
    said = orjson.dumps(opening)
    if len(said) > 2 * READ_BYTES:
        said = b"%b %d %b" % (said[:READ_BYTES], len(said), said[-READ_BYTES:])
    return f"{mine}c-" + hashlib.sha256(said).hexdigest()[:24]


class Conversations:
    """One policy's last conversations, some 100,000 with those of all policies; the longest unused go first.

    All workers that map one ``state`` remember together.
    """

    def __init__(self, policy: str, state: SharedState) -> None:
        self._policy, self._state = policy, state

    def escalated(self, conversation: str) -> bool:
        """Whether the teacher answered before since it was judged too hard for the student."""
        return self._state.escalated.get(self._state.key(self._policy, conversation)) is not None

    def cached_share(self, conversation: str) -> float:
        """The share of input tokens, 0 to 1, that the teacher's prompt cache served last."""
        return (self._state.cached_share.get(self._state.key(self._policy, conversation)) or 0) / VALUES

    def remember(self, conversation: str, *, escalated: bool = False, cached_share: float | None = None) -> None:
        """Adds what one request showed. An escalation is never taken back: affinity goes only upward."""
        key, state = self._state.key(self._policy, conversation), self._state
        if escalated or state.escalated.get(key) is not None:
            state.escalated.put(key)
        if cached_share is None:
            return
        # rounded up: a share of n tokens, taken of n tokens, is the same number again
        share = math.ceil(min(1.0, max(0.0, cached_share)) * VALUES)
        if share or state.cached_share.get(key):  # none is what an unknown conversation has
            state.cached_share.put(key, share)

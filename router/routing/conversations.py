"""Which requests belong to one conversation, and what is remembered of it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from router.routing.state.base import VALUES, SharedState
from router.wire.lineage import Lineage, Membership, TurnEnd

MOST_NAME_CHARS = 128
EXCHANGES = 4
"""Exchanges, the last ones, that must all be known where the beginning of a history is not."""
ALWAYS = 2**30
_HINTED, _BEGUN = 0x5DEECE66D, 0x2545F4914F6CDD1D


class Identities:
    """Tells conversations apart by what is said in them, for all workers that share one ``state``. Only requests of
    one key, one user and one ``prompt_cache_key``, as far as they are given, are ever one conversation.

    A request goes on with a conversation whose words it repeats: all of them up to an answer that was given here;
    else up to the user's turn before it (a client that left in the middle of an answer, or changed it), where no other
    conversation said that; else the last exchanges (a client that trims, or instructions made anew for each request),
    where each of those was said in this conversation alone. What is word for word the same request again is the same
    conversation, unless what it begins with is a beginning of others too. Without any answer it is a new one.
    """

    def __init__(self, state: SharedState) -> None:
        self._state, self._trails = state, state.trails

    def named(self, owner: str, name: str) -> Membership:
        """The client's own name for it."""
        if len(name) > MOST_NAME_CHARS:
            name = "n-" + hashlib.sha256(name.encode(errors="replace")).hexdigest()[:32]
        return Membership(_mine(owner) + name)

    def of(
        self, messages: Sequence[Any], owner: str, request_id: str, *, user: str, hint: str, known: str | None = None
    ) -> Membership:
        """Of a request without a name.

        Args:
            hint: a ``prompt_cache_key``, which may be one conversation's, or all of an application's: it tells them
                apart always, and which one it is as long as there is but one.
            known: the conversation that it is known to go on with.
        """
        space, lineage = self._state.key("said", owner, user, hint), Lineage(messages)
        if known is not None:
            number = _number_of(known, owner)
            if number is None:
                return Membership(known)
        else:
            found = self._continued(space, lineage)
            if found is None and hint and lineage.ends:
                found = self._trails.only(space ^ _HINTED, ALWAYS)
            number = found or self._state.key("conversation", request_id) >> 1 or 1
            if found is None and lineage.ends:
                self._trails.seen(_begun(space ^ lineage.frame, lineage), number)
        self._trails.seen(space ^ lineage.frame ^ lineage.asked, number)
        if hint:
            self._trails.seen(space ^ _HINTED, number)
        return Membership(f"{_mine(owner)}c-{number:016x}", number, lineage, space)

    def answered(self, which: Membership, message: Mapping[str, Any]) -> None:
        """Remembers what the client is told, from which its next request goes on. To be called before it has it all."""
        if which.lineage is None:
            return
        said, exchange = which.lineage.answered(message)
        self._trails.reached(which.space ^ which.lineage.frame ^ said, which.number)
        self._trails.seen(which.space ^ exchange, which.number)

    def _continued(self, space: int, lineage: Lineage) -> int | None:
        if not lineage.ends:
            return None
        framed, (last, *earlier) = space ^ lineage.frame, lineage.ends
        found = self._trails.gone_on(framed ^ last.answered)
        if found is None and last.followed:
            found = self._trails.only(framed ^ last.asked)
        if found is None:
            found = self._by_exchanges(space, lineage.ends)
        for ending in earlier if found is None else ():
            found = self._trails.only(framed ^ ending.answered) or self._trails.only(framed ^ ending.asked)
            if found is not None:
                break
        return self._again(framed, lineage) if found is None else found

    def _again(self, framed: int, lineage: Lineage) -> int | None:
        """The conversation that asked the same before, after a history that nobody else has."""
        found = self._trails.only(framed ^ lineage.asked)
        return found if found is not None and found == self._trails.only(_begun(framed, lineage)) else None

    def _by_exchanges(self, space: int, ends: Sequence[TurnEnd]) -> int | None:
        """The conversation that said each of the last exchanges, and no other did."""
        agreed: int | None = None
        for ending in ends[:EXCHANGES]:
            if ending.exchange is None or not ending.followed:
                continue
            found = self._trails.only(space ^ ending.exchange)
            if found is None or agreed not in (None, found):
                return None
            agreed = found
        return agreed


class Conversations:
    """One policy's last conversations, some 100,000 with those of all policies; the longest unused go first.

    All workers that map one ``state`` remember together. ``idle_seconds``: after so long without an answer of the
    teacher's an escalation is forgotten.
    """

    def __init__(self, policy: str, state: SharedState, idle_seconds: float) -> None:
        self._policy, self._state, self.idle_seconds = policy, state, idle_seconds

    def escalated(self, conversation: str) -> bool:
        """Whether the teacher answered before since it was judged too hard for the student."""
        key = self._state.key(self._policy, conversation)
        return self._state.escalated.get(key, self.idle_seconds) is not None

    def cached_share(self, conversation: str) -> float:
        """The share of input tokens, 0 to 1, that the teacher's prompt cache served last."""
        return (self._state.cached_share.get(self._state.key(self._policy, conversation)) or 0) / VALUES

    def remember(self, conversation: str, *, escalated: bool = False, cached_share: float | None = None) -> None:
        """Adds what one request showed that the teacher answered. An escalation is not taken back by one that was not
        too hard: affinity goes only upward."""
        key, state = self._state.key(self._policy, conversation), self._state
        if escalated or state.escalated.get(key, self.idle_seconds) is not None:
            state.escalated.put(key)
        if cached_share is None:
            return
        # rounded up: a share of n tokens, taken of n tokens, is the same number again
        share = math.ceil(min(1.0, max(0.0, cached_share)) * VALUES)
        if share or state.cached_share.get(key):  # none is what an unknown conversation has
            state.cached_share.put(key, share)


def _begun(framed: int, lineage: Lineage) -> int:
    """Where it is kept who comes with a history that was not said here."""
    return framed ^ lineage.ends[0].answered ^ _BEGUN


def _mine(owner: str) -> str:
    return f"{owner}/" if owner else ""


def _number_of(conversation: str, owner: str) -> int | None:
    """The number in an id that was made here; None in a client's own."""
    digits = conversation.removeprefix(f"{_mine(owner)}c-")
    if len(digits) != 16 or not set(digits) <= set("0123456789abcdef"):
        return None
    return int(digits, 16) & 2**63 - 1 or None

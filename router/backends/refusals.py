"""How backends spell a request: what they refuse of what we add or rename, learned from their refusals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from router.backends.faults import READ_BYTES
from router.errors import UpstreamError, UpstreamRateLimited, UpstreamRefused, UpstreamUnable

LIMITS = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
"""The two names of an answer's greatest length, each with the other."""

OURS = frozenset({"metadata", "priority", "store", "stream_options"})
"""Fields that change nothing an answer says, and that are ours to add, or to be meant for: left out for who refuses
them, whoever sent them."""

TOGETHER = frozenset({"logprobs", "top_logprobs"})

_NO_SUCH_FIELD = re.compile(
    r"extra_forbidden|extra (inputs|fields)|additional propert|un(supported|known|recognized|expected)"
    r"|not (a |yet )?(supported|permitted|allowed|recognized|valid)|does ?n[o']t support|no such|instead"
)


@dataclass(frozen=True, slots=True)
class Spelling:
    """One backend's. ``without``: fields that it is not asked for; ``limit``: the name of an answer's greatest length
    that it knows, None where either will do."""

    without: frozenset[str] = frozenset()
    limit: str | None = None

    def spelled(self, body: Mapping[str, Any], wished: Mapping[str, Any]) -> Mapping[str, Any]:
        """The request as the backend takes it. ``wished``: fields beside the client's that nobody needs."""
        if self is PLAIN and not wished:
            return body
        left_out = {name for name in self.without if name in wished or name in OURS}
        asked = {name: value for name, value in {**body, **wished}.items() if name not in left_out}
        if self.limit is not None and (other := LIMITS[self.limit]) in asked:
            value = asked.pop(other)
            asked.setdefault(self.limit, value)
        return asked

    def after(
        self, error: UpstreamError | UpstreamRefused, asked: Mapping[str, Any], wished: Mapping[str, Any]
    ) -> Spelling:
        """What is worth trying after this answer to ``asked``; the same where it tells nothing of the spelling.

        A field of the client's that is refused for what it says is the client's to hear.
        """
        if isinstance(error, UpstreamRateLimited | UpstreamUnable) or not (said := _said(error)):
            return self
        no_such_field = _NO_SUCH_FIELD.search(said) is not None
        named = {name for name in asked if _names(said, name)}
        without = {n for n in named if n in wished or n == "stream_options" or (n in OURS and no_such_field)}
        if without & TOGETHER:
            without |= TOGETHER & wished.keys()
        limit = self.limit
        if no_such_field and limit is None:
            limit = next((other for name, other in LIMITS.items() if name in named), None)
        if without <= self.without and limit == self.limit:
            return self
        return replace(self, without=self.without | without, limit=limit)


PLAIN = Spelling()


def _said(error: UpstreamError | UpstreamRefused) -> str:
    said = error.reply_body if isinstance(error, UpstreamRefused) else error.said
    return said[:READ_BYTES].decode("utf-8", "replace").lower()


def _names(said: str, name: str) -> bool:
    words: Iterable[str] = (name, "include_usage") if name == "stream_options" else (name,)
    return any(re.search(rf"\b{re.escape(word)}\b", said) for word in words)

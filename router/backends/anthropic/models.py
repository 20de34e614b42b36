"""What Claude's models take, by their names."""

from __future__ import annotations

import re

Version = tuple[int, int]

NEWEST: Version = (99, 0)
_VERSION = re.compile(r"claude-[a-z]+-(\d{1,2})(?:-(\d{1,2}))?(?!\d)")
_OLDER = re.compile(r"claude-(\d)(?:-(\d))?-")


def version_of(model: str) -> Version:
    """``claude-opus-4-6`` is (4, 6); a name that tells none is taken for the newest."""
    found = _VERSION.search(model) or _OLDER.search(model)
    return (int(found[1]), int(found[2] or 0)) if found else NEWEST


def thinks_adaptively(model: str) -> bool:
    """Whether it decides itself how long to think, told its effort; older ones are given a budget of tokens."""
    return version_of(model) >= (4, 6)


def effort_of(effort: str, model: str) -> str:
    """An effort that the model knows."""
    if effort == "minimal":
        return "low"
    return "high" if effort == "xhigh" and version_of(model) < (4, 7) else effort


def can_think(model: str) -> bool:
    return version_of(model) >= (3, 7)


def takes_sampling(model: str) -> bool:
    """Whether it takes ``temperature``, ``top_p`` and ``top_k``; newer ones refuse them."""
    return version_of(model) < (4, 7)


def takes_schema(model: str) -> bool:
    """Whether it follows a JSON schema that the request asks for."""
    return version_of(model) >= (4, 5)


def longest_answer_tokens(model: str) -> int:
    """A limit that the model takes, for requests that set none: Anthropic needs one."""
    version = version_of(model)
    return 32_000 if version >= (3, 7) else 8_192 if version >= (3, 5) else 4_096

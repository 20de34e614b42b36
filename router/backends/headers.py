"""Which of a provider's headers its answer's client gets: what helps it to wait and to ask for help, and nothing of the
account."""

from __future__ import annotations

import re
from collections.abc import Iterable

KNOWN = frozenset({b"retry-after", b"openai-processing-ms", b"openai-version", b"x-request-id"})
KINDS = (b"x-ratelimit-", b"anthropic-ratelimit-")
MOST = 32
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

Pairs = tuple[tuple[bytes, bytes], ...]


def passed_on(headers: Iterable[tuple[bytes, bytes]]) -> Pairs:
    """Those that go on, names in lower case, values as the bytes that they came as."""
    found = [
        (name, value)
        for given, value in headers
        if ((name := given.lower()) in KNOWN or name.startswith(KINDS)) and not _CONTROL.search(value)
    ]
    return tuple(found[:MOST])

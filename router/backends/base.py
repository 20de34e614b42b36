"""What the cascade knows of a backend: where it is, how to ask it, what comes back, and
which headers of that its client gets: what helps it to wait and to ask for help, and nothing of the account."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

from router.contracts.decision import Tier
from router.contracts.prices import Price
from router.contracts.records import Rights
from router.wire.chat import Dialect

KNOWN = frozenset({b"retry-after", b"openai-processing-ms", b"openai-version", b"x-request-id"})
KINDS = (b"x-ratelimit-", b"anthropic-ratelimit-")
MOST = 32
SECRET = b"[SECRET]"
SHORTEST_SECRET = 8
"""A key of fewer characters than this is looked for nowhere: it may be a word of any answer, or a name in JSON."""
LIKE_NO_WORD = 16
"""Nor is one of fewer than this and no digit in an answer: servers without keys are given a word for one."""
_DIGIT = re.compile(rb"\d")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

Pairs = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Backend:
    """One place that answers for a tier.

    ``url`` is the base URL of its ``dialect`` (OpenAI's ends in /v1); None: litellm translates. ``model`` is the
    name to ask for there, ``label`` the name shown to people. ``timeout_seconds`` bounds the wait for each
    piece of an answer: the headers, and every chunk of a stream. ``lacks_key``: the environment's variable that should
    hold its key, and does not. ``ignores``: fields of a request that are left out for it. ``prioritises``: it
    heeds ``priority``, which others may refuse. ``has_own_price``: its policy says what it costs, no price map.
    """

    tier: Tier
    label: str
    model: str
    url: str | None
    timeout_seconds: float
    key: str | None = field(default=None, repr=False)
    lacks_key: str = ""
    price: Price | None = None
    has_own_price: bool = False
    rights: Rights = Rights.UNKNOWN
    version: str | None = None
    ignores: tuple[str, ...] = ()
    prioritises: bool = False
    dialect: Dialect = Dialect.OPENAI
    name: str = field(init=False)
    """Identifies the backend in logs and circuit breakers; two policies that share it share its breaker."""
    _secret: bytes = field(init=False, repr=False)
    _escaped: re.Pattern[bytes] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", f"{self.model}@{self.url}" if self.url else self.model)
        secret = (self.key or "").encode("utf-8", "surrogateescape")
        object.__setattr__(self, "_secret", secret if len(secret) >= SHORTEST_SECRET else b"")
        object.__setattr__(self, "_escaped", _escaped(self._secret))

    def without_key(self, said: bytes, *, answer: bool = False) -> bytes:
        """What the backend said, with ``[SECRET]`` in the place of its own key: as it is, or with any of its characters
        escaped as JSON or a URL may have them, however often."""
        key = self._secret
        if not key or (answer and len(key) < LIKE_NO_WORD and not _DIGIT.search(key)):
            return said
        if key in said:
            said = said.replace(key, SECRET)
        return self._escaped.sub(SECRET, said) if b"\\" in said or b"%" in said else said


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer: the upstream's status, its body's bytes, and the headers worth passing on. ``whole``: the body
    says all that the upstream did, as far as the wire can tell."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    whole: bool = True


class WaitingTime:
    """Sums the time that one request spent waiting for upstreams, in seconds; ``lost``: attempts that failed, were
    made again, and may be paid all the same; ``told``: what others of them told of tokens and money. ``size``: bytes of
    the request as it came, which tell whether writing it may hold others up.

    A context manager around each wait; not re-entrant, since one request waits for one thing at a time.
    """

    __slots__ = ("_since", "lost", "seconds", "size", "told")

    def __init__(self, size: int = 0) -> None:
        self.seconds = 0.0
        self.lost = 0
        self.told: list[Mapping[str, Any]] = []
        self.size = size
        self._since = 0.0

    def __enter__(self) -> None:
        self._since = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._since


class Stream(Protocol):
    """A streamed answer under way: server-sent events, in pieces that may cut anywhere. ``headers`` go on to the
    client, if they still can."""

    headers: Pairs

    async def read(self) -> bytes:
        """The next piece; empty at the end. Raises as ``Upstream`` says when the stream dies."""
        ...

    async def close(self, *, done: bool = False) -> None:
        """Ends the request, wherever it stands. ``done``: it said that it is, so that only its last bytes are to
        come; they are waited for a moment, since the connection can then be used again."""
        ...


class Upstream(Protocol):
    """Asks a backend. ``body`` is the whole request as it should arrive there, ``model`` included.

    Raises:
        UpstreamRefused: the request itself is wrong (4xx other than 401, 403, 408 and 429).
        UpstreamTimeout, UpstreamUnreachable, UpstreamRateLimited, UpstreamError: the backend failed.
            Their messages name the backend and hold neither keys nor anything the upstream said.
    """

    async def complete(self, backend: Backend, body: Mapping[str, Any], waited: WaitingTime) -> Reply:
        """One whole answer; its status is 2xx."""
        ...

    async def embed(self, backend: Backend, body: Mapping[str, Any], waited: WaitingTime) -> Reply:
        """Embeddings of ``body``'s ``input``; the status is 2xx."""
        ...

    async def open(self, backend: Backend, body: Mapping[str, Any], waited: WaitingTime) -> Stream:
        """A streamed answer, once its status is there."""
        ...

    async def close(self) -> None: ...


@cache
def _escaped(key: bytes) -> re.Pattern[bytes]:
    """What finds a key whichever of its characters are escaped."""
    text = key.decode("utf-8", "surrogateescape")
    return re.compile(b"".join(map(_spellings, text)))


def _spellings(character: str) -> bytes:
    """What finds one character: as JSON has it, escaped or not, in a string in a string too; or as a URL has it."""
    plain = character.encode("utf-8", "surrogateescape")
    units = character.encode("utf-16-be", "surrogatepass")
    code = b"".join(rb"\\{1,16}u" + units[n : n + 2].hex().encode() for n in range(0, len(units), 2))
    in_url = b"".join(b"%%(?:25)*%02x" % byte for byte in plain)
    return rb"(?:\\{0,16}" + re.escape(plain) + b"|(?i:" + code + b"|" + in_url + b"))"


def passed_on(backend: Backend, headers: Iterable[tuple[bytes, bytes]]) -> Pairs:
    """Those that go on, names in lower case, values as the bytes that they came as but for the backend's key."""
    found = [
        (name, backend.without_key(value))
        for given, value in headers
        if ((name := given.lower()) in KNOWN or name.startswith(KINDS)) and not _CONTROL.search(value)
    ]
    return tuple(found[:MOST])

"""Who may ask, and which backend is worth asking: client keys, circuit breakers, backoff."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterable

from router.errors import CircuitOpen, TooManyStreams, Unauthorized, UpstreamError, UpstreamRateLimited, UpstreamRefused


class ClientKeys:
    """The keys that clients may use; without any, every client may ask, and all are one. Only digests are kept."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._owners = {_digest(key): _owner(key) for key in keys}

    def check(self, key: str | None) -> str:
        """Whose request it is that came with this key: a name for the key that tells nothing of it, the same in every
        process and after every start. Without keys it is ``""``.

        The key's digest is looked up. How long that takes tells nothing of a key: who could choose what is compared
        would have to turn SHA-256 around.

        Raises:
            Unauthorized: keys are asked for, and this is none of them.
        """
        if not self._owners:
            return ""
        if not key:
            raise Unauthorized("no API key given: send 'Authorization: Bearer <key>'")
        if (owner := self._owners.get(_digest(key))) is None:
            raise Unauthorized("incorrect API key")
        return owner


class Streams:
    """How many streams are under way in this process; a context manager around each.

    Raises:
        TooManyStreams: on entering; there are ``limit`` already.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._open = limit, 0

    def __enter__(self) -> None:
        if self._open >= self._limit:
            raise TooManyStreams(f"{self._limit} streams are under way, which is this proxy's limit", retry_after="1")
        self._open += 1

    def __exit__(self, *_: object) -> None:
        self._open -= 1


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _owner(key: str) -> str:
    """It goes into records, so that short keys must be dear to guess from it."""
    return "k" + hashlib.scrypt(key.encode(), salt=b"locum: whose request", n=2**11, r=8, p=1, dklen=6).hex()


class CircuitBreaker:
    """Stops asking a backend that fails, so that requests do not wait for it to fail once more.

    Opens after ``failures`` in a row. After ``open_seconds`` it lets one request through (half-open):
    its success closes the circuit, its failure opens it anew.
    """

    def __init__(
        self, failures: int = 5, open_seconds: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit, self._open_seconds, self._clock = failures, open_seconds, clock
        self.successes = 0
        self._failures = 0
        self._opened_at: float | None = None
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether a request would be turned away now."""
        if self._opened_at is None:
            return False
        return self._probing or self._clock() - self._opened_at < self._open_seconds

    def guard(self, label: str) -> _Guard:
        """A context manager around one attempt. A failure is an ``UpstreamError``; a refusal proves that the
        backend lives; anything else (the client left) says nothing either way.

        Raises:
            CircuitOpen: on entering; the backend is not asked now.
        """
        return _Guard(self, label)

    def begin(self, label: str) -> None:
        """Notes that an attempt begins. Raises CircuitOpen where none may."""
        if self._opened_at is None:
            return
        if self.is_open:
            raise CircuitOpen(f"{label} failed {self._limit} times in a row and is left alone for a moment")
        self._probing = True

    def ended(self, error: BaseException | None) -> None:
        """Notes how the attempt ended. To be rate-limited is neither: the backend lives, and says when."""
        self._probing = False
        if error is None or isinstance(error, UpstreamRefused):
            self.succeeded()
        elif isinstance(error, UpstreamError) and not isinstance(error, UpstreamRateLimited):
            self.failed()

    def failed(self) -> None:
        self._failures += 1
        if self._failures >= self._limit:
            self._opened_at = self._clock()

    def succeeded(self) -> None:
        self.successes += 1
        self._failures, self._opened_at = 0, None


class _Guard:
    """One attempt (``CircuitBreaker.guard``)."""

    __slots__ = ("_breaker", "_label")

    def __init__(self, breaker: CircuitBreaker, label: str) -> None:
        self._breaker, self._label = breaker, label

    def __enter__(self) -> None:
        self._breaker.begin(self._label)

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._breaker.ended(error)


class Breakers:
    """One circuit breaker per backend's name, made on first sight."""

    def __init__(self, make: Callable[[], CircuitBreaker] = CircuitBreaker) -> None:
        self._make = make
        self._by_name: dict[str, CircuitBreaker] = {}

    def of(self, name: str) -> CircuitBreaker:
        if name not in self._by_name:
            self._by_name[name] = self._make()
        return self._by_name[name]


def backoff_seconds(attempt: int, base_seconds: float = 0.1, cap_seconds: float = 2.0) -> float:
    """How long to wait before attempt ``attempt`` + 1: exponential with full jitter, so that clients that
    failed together do not come back together."""
    return random.uniform(0, min(cap_seconds, base_seconds * 2**attempt))

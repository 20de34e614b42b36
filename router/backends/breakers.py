"""Which backend is worth asking: circuit breakers, rests, backoff. What all that ask must agree on is a protocol here
(``Breaker``, ``Breakers``, ``Rests``); below are those of one process."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple, Protocol

from router.errors import (
    CircuitOpen,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)

LONGEST_REST_SECONDS = 60.0
OWNERS = 256
"""So many clients are told apart by a circuit breaker; the rest counts as one."""


class Breaker(Protocol):
    """Stops asking a backend that fails, so that requests do not wait for it to fail once more. It answers at once."""

    @property
    def successes(self) -> int:
        """How often the backend has answered."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether a request would be turned away now."""
        ...

    def guard(self, label: str, owner: str | None = None) -> AbstractContextManager[None]:
        """Around one request of ``owner``'s, however often it is tried. A failure is an ``UpstreamError``. A refusal,
        which any client can bring about, says nothing; after a failure it proves that the backend lives. To be
        rate-limited is neither: the backend lives, and says when. Anything else (the client left) says nothing either
        way.

        Raises:
            CircuitOpen: on entering; the backend is not asked now.
        """
        ...

    def failed(self, owner: str | None = None) -> None:
        """An answer broke off in the middle: what was counted as a success was none."""
        ...


class Breakers(Protocol):
    def of(self, name: str) -> Breaker:
        """The backend's own, the same at every call."""
        ...


class Rests(Protocol):
    """Backends that asked to be left alone, each until when."""

    def begin(self, backend: Hashable, error: UpstreamError) -> None:
        """``error`` says for how long."""
        ...

    def check(self, backend: Hashable) -> None:
        """Raises the error by which the rest began, with what is left of it."""
        ...


class CircuitBreaker:
    """One process's ``Breaker``.

    It opens where most requests of the last one to two windows failed, once they weigh ``least`` together, and not for
    one client alone: the shares that fail of each client's requests must be as large on average, so that who makes the
    backend fail does not shut it for others, whom it answers. A backend that cannot be reached, or does not answer in
    time, weighs twice: it costs most to find out, and no request alone is likely to blame. After ``open_seconds`` one
    request is let through (half-open), at once where its client has not failed yet: its success closes the circuit,
    its failure opens it anew.
    """

    def __init__(
        self,
        least: int = 10,
        share: float = 0.5,
        window_seconds: float = 60.0,
        open_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._least, self._share, self._window_seconds = least, share, window_seconds
        self._open_seconds, self._clock = open_seconds, clock
        self.successes = 0
        self._now: dict[str | None, _Counted] = {}
        self._before: dict[str | None, _Counted] = {}
        self._since = clock()
        self._opened_at: float | None = None
        self._probing = False

    @property
    def is_open(self) -> bool:
        if self._opened_at is None:
            return False
        return self._probing or self._clock() - self._opened_at < self._open_seconds

    @contextmanager
    def guard(self, label: str, owner: str | None = None) -> Iterator[None]:
        probe = self._begin(label, owner)
        try:
            yield
        except UpstreamRefused:
            if probe:
                self._close()
            raise
        except UpstreamRateLimited:
            raise
        except UpstreamError as error:
            self._fail(owner, 2 if isinstance(error, UpstreamUnreachable | UpstreamTimeout) else 1, probe=probe)
            raise
        else:
            self.successes += 1
            if self._opened_at is not None:
                self._close()
            self._count(owner, total=1)
        finally:
            if probe:
                self._probing = False

    def failed(self, owner: str | None = None) -> None:
        self.successes -= 1
        self._count(owner, total=-1)
        self._fail(owner, 1)

    def _begin(self, label: str, owner: str | None) -> bool:
        if self._opened_at is None:
            return False
        fresh = owner is not None and not any(owner in counted for counted in (self._now, self._before))
        if self.is_open and (self._probing or not fresh):
            raise CircuitOpen(f"{label} failed too often just now and is left alone for a moment")
        self._probing = True
        return True

    def _fail(self, owner: str | None, weight: int, *, probe: bool = False) -> None:
        self._count(owner, total=weight, failed=weight)
        if probe or (self._opened_at is None and self._mostly_fails()):
            self._opened_at = self._clock()

    def _mostly_fails(self) -> bool:
        found = [self._now.get(o, _NONE) + self._before.get(o, _NONE) for o in self._now.keys() | self._before.keys()]
        total, failed = sum(c.total for c in found), sum(c.failed for c in found)
        shares = [c.failed / c.total for c in found if c.total > 0]
        return total >= self._least and failed > self._share * total and sum(shares) > self._share * len(shares)

    def _count(self, owner: str | None, *, total: int, failed: int = 0) -> None:
        passed = self._clock() - self._since
        if passed >= self._window_seconds:
            self._before = self._now if passed < 2 * self._window_seconds else {}
            self._now, self._since = {}, self._clock()
        if owner not in self._now and len(self._now) >= OWNERS:
            owner = None
        self._now[owner] = self._now.get(owner, _NONE) + _Counted(total, failed)

    def _close(self) -> None:
        self._opened_at = None
        self._now, self._before = {}, {}


class _Counted(NamedTuple):
    """Requests of one client in one window, by their weight."""

    total: int = 0
    failed: int = 0

    def __add__(self, other: _Counted) -> _Counted:  # type: ignore[override]
        return _Counted(self.total + other.total, self.failed + other.failed)


_NONE = _Counted()


class ProcessRests:
    """One process's ``Rests``: for ``longest_seconds`` at most, whatever a backend says. It may have said so of one
    request or one client alone, and then shuts out all others for no longer; where it meant everybody, one request
    in so many seconds finds that out."""

    def __init__(
        self, longest_seconds: float = LONGEST_REST_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._longest_seconds, self._clock = longest_seconds, clock
        self._until: dict[Hashable, tuple[float, UpstreamError]] = {}

    def begin(self, backend: Hashable, error: UpstreamError) -> None:
        until = self._clock() + min(error.wait_seconds or 0.0, self._longest_seconds)
        self._until[backend] = until, error

    def check(self, backend: Hashable) -> None:
        if not self._until or (found := self._until.get(backend)) is None:
            return
        until, error = found
        if (left := until - self._clock()) > 0:
            raise type(error)(str(error), status=error.status, code=error.code, wait_seconds=left)
        del self._until[backend]


class ProcessBreakers:
    """One process's ``Breakers``: one for each backend's name, made on first sight."""

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

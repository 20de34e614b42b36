"""Asking backends: which wire speaks to one, retries, its circuit breaker; and paid models apart from any request."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any, TypeVar

import orjson
import structlog

from router.backends.anthropic import AnthropicWire
from router.backends.base import Backend, Reply, Upstream, WaitingTime
from router.backends.breakers import (
    Breakers,
    CircuitBreaker,
    ProcessBreakers,
    ProcessRests,
    Rests,
    backoff_seconds,
)
from router.backends.events import EventStream
from router.backends.faults import surely_unpaid
from router.backends.heads import HeadWire
from router.backends.litellm import LiteLLMWire
from router.backends.openai import OpenAIWire
from router.backends.refusals import PLAIN, Spelling
from router.contracts.decision import Tier
from router.contracts.records import Usage
from router.errors import UpstreamError, UpstreamRefused, UpstreamUnusable
from router.heads.shelf import SCHEME, HeadShelf
from router.pricing import cost_usd
from router.wire.assembly import assembled
from router.wire.chat import Dialect
from router.wire.usage import usage_in


class Wires:
    """One of each kind, over one pool of connections; label heads are taken from ``shelf``. Build it inside a running
    event loop."""

    def __init__(self, shelf: HeadShelf | None = None) -> None:
        self._heads: Upstream | None = HeadWire(shelf) if shelf is not None else None
        self.openai = OpenAIWire()
        self._anthropic: Upstream = AnthropicWire(self.openai)
        self._litellm: Upstream = LiteLLMWire()

    def to(self, backend: Backend) -> Upstream:
        """What speaks to the backend."""
        if backend.url is None:
            return self._litellm
        if self._heads is not None and backend.url.startswith(SCHEME):
            return self._heads
        return self._anthropic if backend.dialect is Dialect.ANTHROPIC else self.openai

    async def close(self) -> None:
        await self._litellm.close()
        await self.openai.close()


log = structlog.get_logger(__name__)

Answered = TypeVar("Answered")
NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a backend is asked again, by tier, and how long a request waits for that at most where the backend
    says when it will answer. ``unpaid``: only where the attempt surely cost nothing."""

    most: Mapping[Tier, int]
    patience_seconds: Mapping[Tier, float]
    base_seconds: float = 0.1
    cap_seconds: float = 2.0
    unpaid: bool = False


SERVING = Retries({Tier.STUDENT: 1, Tier.TEACHER: 2}, {Tier.STUDENT: 0.5, Tier.TEACHER: 3.0})
"""Somebody waits, and another backend may be there."""


class BackendClient:
    """Asks backends. One for the whole process: connections, breakers, rests and what was learned of how to spell a
    request are shared by all policies, by a backend's name. Breakers and rests are what all that serve agree on, as
    far as they do; how a backend spells a request each process learns from one refusal, and forgets with its end.

    ``wished`` are fields beside the client's that a backend may refuse and that nobody needs; ``owner`` is whose key
    the request came with, if any.
    """

    def __init__(self, wires: Wires, breakers: Breakers, rests: Rests, retries: Retries = SERVING) -> None:
        self._wires, self._retries = wires, retries
        self._breakers, self._rests = breakers, rests
        self._spellings: dict[str, Spelling] = {}
        self._unusable: set[str] = set()

    def is_open(self, backend: Backend) -> bool:
        """Whether the backend's circuit is open: it would not be asked now."""
        return self._breakers.of(backend.name).is_open

    def successes(self, backend: Backend) -> int:
        """How often the backend has answered, as far as its breaker knows."""
        return self._breakers.of(backend.name).successes

    def whole(
        self,
        backend: Backend,
        body: Mapping[str, Any],
        waited: WaitingTime,
        *,
        wished: Mapping[str, Any] = NOTHING,
        owner: str | None = None,
    ) -> Coroutine[Any, Any, Reply]:
        """One whole answer. Raises as ``Upstream`` says, once retrying is of no use."""
        ask = partial(self._wires.to(backend).complete, backend)
        return self._asked(ask, backend, body, waited, wished=wished, owner=owner)

    def open(
        self,
        backend: Backend,
        body: Mapping[str, Any],
        waited: WaitingTime,
        *,
        wished: Mapping[str, Any] = NOTHING,
        owner: str | None = None,
    ) -> Coroutine[Any, Any, EventStream]:
        """A stream of which the first event is there: until then failures are retried, after it never.
        The caller closes it."""
        failed = partial(self._breakers.of(backend.name).failed, owner)
        ask = partial(begun, self._wires.to(backend), backend, failed)
        return self._asked(ask, backend, body, waited, wished=wished, owner=owner)

    def embed(self, backend: Backend, body: Mapping[str, Any], waited: WaitingTime) -> Coroutine[Any, Any, Reply]:
        """Embeddings, tried once: clients try again by themselves. Raises as ``Upstream`` says."""
        return self._asked(partial(self._wires.to(backend).embed, backend), backend, body, waited, again=False)

    def listed(self, backend: Backend) -> Coroutine[Any, Any, bytes]:
        """What the backend's server says of its models, tried once. Raises as ``Upstream`` says."""
        return self._wires.openai.models(backend)

    async def _asked(
        self,
        ask: Callable[[Mapping[str, Any], WaitingTime], Awaitable[Answered]],
        backend: Backend,
        body: Mapping[str, Any],
        waited: WaitingTime,
        *,
        wished: Mapping[str, Any] = NOTHING,
        owner: str | None = None,
        again: bool = True,
    ) -> Answered:
        """The one place where a backend is asked again: in another spelling, or after a moment. What callers await of
        the methods above is this itself."""
        self._rests.check((backend.name, backend.key))
        attempt, most = 0, self._retries.most[backend.tier] if again else 0
        known = spelling = self._spellings.get(backend.name, PLAIN)
        with self._breakers.of(backend.name).guard(backend.label, owner):
            while True:
                asked = spelling.spelled(body, wished)
                try:
                    answered = await ask(asked, waited)
                    break
                except (UpstreamError, UpstreamRefused) as error:
                    before, spelling = spelling, spelling.after(error, asked, wished)
                    if spelling is not before:
                        continue
                    if isinstance(error, UpstreamRefused):
                        raise
                    await self._moment(backend, error, attempt, most, waited)
                    attempt += 1
                    if error.usage:
                        waited.told.append(error.usage)
                    else:
                        waited.lost += not surely_unpaid(error)
        if spelling is not known:
            self._learned(backend, spelling)
        self._unusable.discard(backend.name)
        return answered

    def _learned(self, backend: Backend, spelling: Spelling) -> None:
        """What a backend answers to is what it is asked from now on."""
        self._spellings[backend.name] = spelling
        log.warning("refuses_fields", backend=backend.label, without=sorted(spelling.without), limit=spelling.limit)

    async def _moment(
        self, backend: Backend, error: UpstreamError, attempt: int, most: int, waited: WaitingTime
    ) -> None:
        """Waits after the attempt of this number, or raises ``error`` where another one has no use.

        A timeout is not tried again: the client has waited long enough, and another backend may be there. So it is
        where a backend asks for a longer wait than a client should have; until then nobody asks it.
        """
        retries = self._retries
        if isinstance(error, UpstreamUnusable) and backend.name not in self._unusable:
            self._unusable.add(backend.name)
            log.error("backend_unusable", backend=backend.label, why=str(error))
        if not error.passing or (retries.unpaid and not surely_unpaid(error)):
            raise error
        wait = error.wait_seconds or 0.0
        if wait > retries.patience_seconds[backend.tier]:
            self._rests.begin((backend.name, backend.key), error)
            raise error
        if attempt >= most:
            raise error
        with waited:
            await asyncio.sleep(wait + backoff_seconds(attempt, retries.base_seconds, retries.cap_seconds))

    async def close(self) -> None:
        await self._wires.close()


async def begun(
    wire: Upstream, backend: Backend, failed: Callable[[], None], body: Mapping[str, Any], waited: WaitingTime
) -> EventStream:
    """A stream whose first event is there."""
    events = EventStream(backend, await wire.open(backend, body, waited), failed)
    try:
        await events.begin()
    except BaseException:
        await events.close()
        raise
    return events


@dataclass(frozen=True, slots=True)
class Completion:
    """One chat completion. ``usage`` and ``usd`` are None where the model did not tell its tokens, ``finish_reason``
    where it is not whole."""

    message: dict[str, Any]
    finish_reason: str | None
    usage: Usage | None
    usd: Decimal | None


def careful() -> BackendClient:
    """Asks models where nobody waits: nothing is paid twice, and no circuit opens, since there is nobody else to ask.
    Build it inside a running event loop, and close it."""
    most, patience = {Tier.TEACHER: 3}, {Tier.TEACHER: 60.0}
    retries = Retries(most, patience, base_seconds=0.25, cap_seconds=30.0, unpaid=True)
    return BackendClient(Wires(), ProcessBreakers(partial(CircuitBreaker, share=math.inf)), ProcessRests(), retries)


async def asked(models: BackendClient, backend: Backend, body: Mapping[str, Any], waited: WaitingTime) -> Completion:
    """``waited.lost`` tells of attempts before that may be paid. Raises as ``Upstream`` says, and UpstreamError for
    what is no chat completion."""
    said = (m.get("content") for m in body.get("messages") or ())
    waited.size = sum(len(content) for content in said if isinstance(content, str))
    return completion(backend, await models.whole(backend, {**body, "model": backend.model}, waited))


def completion(backend: Backend, reply: Reply) -> Completion:
    """Reads a reply of a backend with a price. Raises UpstreamError where it is no chat completion."""
    assert backend.price is not None
    try:
        found = orjson.loads(reply.body)
        choice, told = found["choices"][0], usage_in(found)
        usage = told.usage if told is not None and (told.whole or told.usage.billed_usd is not None) else None
        said = assembled(choice)
        return Completion(
            message=dict(choice["message"]),
            finish_reason=said.finish_reason if said.whole and reply.whole else None,
            usage=usage,
            usd=None if usage is None else cost_usd(usage, backend.price),
        )
    except (orjson.JSONDecodeError, LookupError, TypeError, ValueError, AttributeError) as e:
        raise UpstreamError(f"{backend.label} answered with something that is no chat completion") from e

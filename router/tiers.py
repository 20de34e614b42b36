"""The backends of both tiers: who they are, and asking one of them with retries and its circuit breaker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any, TypedDict, TypeVar

import structlog

from router.contracts.decision import Tier
from router.contracts.judges import Llm
from router.contracts.prices import Price
from router.contracts.records import Rights
from router.errors import PolicyError, UpstreamError, UpstreamRefused, UpstreamUnusable
from router.limits import Breakers, Rests, backoff_seconds
from router.policy import EmbeddingsPart, Policy
from router.pricing import Prices, litellm_price
from router.students import Target
from router.upstream.anthropic import base_url
from router.upstream.base import Backend, Dialect, Reply, Upstream, Waited
from router.upstream.events import EventStream
from router.upstream.faults import surely_unpaid
from router.upstream.spelling import PLAIN, Spelling
from router.upstream.wires import Wires

log = structlog.get_logger(__name__)

Answered = TypeVar("Answered")
NOTHING: Mapping[str, Any] = {}
OPENAI_URL = "https://api.openai.com/v1"
STUDENTS = 4
"""How many of a policy's student versions are remembered: what is live and a canary, each before a swap and after."""


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


class Backends:
    """One policy's backends. Secrets come from ``env``, by the names that the policy gives."""

    def __init__(self, policy: Policy, env: Mapping[str, str]) -> None:
        self._policy, self._env = policy, env
        self.prices = Prices.of(policy)
        first, *others = policy.teacher.model, *policy.teacher.fallbacks
        self.teachers = (self._teacher(first, policy.teacher.url), *(self._teacher(m, None) for m in others))
        self.embeddings = self._embeddings()
        self._students: dict[Target, Backend] = {}  # the last few asked for

    def _teacher(self, model: str, url: str | None) -> Backend:
        declared = self._policy.teacher
        is_first = model == declared.model
        return Backend(
            tier=Tier.TEACHER,
            label=model,
            timeout_seconds=declared.timeout_seconds,
            **place_of(model, url, declared.api_key_env if is_first else None, self._env),
            price=self.prices.teacher(model),
            rights=declared.training_rights if is_first else Rights.UNKNOWN,
        )

    def _embeddings(self) -> Backend | None:
        """Raises PolicyError where nobody knows what the model costs."""
        declared = self._policy.embeddings
        if declared is None:
            return None
        price = litellm_price(declared.model)
        if declared.usd_per_million is not None:
            price = Price(input=declared.usd_per_million, output=Decimal(0))
        if price is None:
            raise PolicyError(
                f"policy {self._policy.name}: litellm's price map has no {declared.model!r}; "
                "set embeddings.usd_per_million, the USD per million input tokens"
            )
        return provider(declared, price, self._env)

    def student(self, target: Target) -> Backend:
        """The student version at ``target``. One served here is shown under the policy's name for it."""
        if target not in self._students:
            kept = list(self._students.items())[1 - STUDENTS :]
            self._students = dict([*kept, (target, self._student_at(target))])
        return self._students[target]

    def _student_at(self, target: Target) -> Backend:
        declared = self._policy.student
        versioned = declared.model if target.version == "base" else f"{declared.model}@{target.version}"
        return Backend(
            tier=Tier.STUDENT,
            label=versioned if declared.url is None else target.model,
            model=target.model,
            url=target.url,
            timeout_seconds=declared.timeout_seconds,
            key=self._env.get(declared.api_key_env) if declared.api_key_env else None,
            price=self.prices.student,
            rights=Rights.ALLOWED,
            version=target.version,
            ignores=declared.may_ignore,
            prioritises=declared.engine == "embedded",
        )


class Place(TypedDict):
    """Where a model is asked, and by whose key."""

    model: str
    url: str | None
    dialect: Dialect
    key: str | None
    lacks_key: bool


def place_of(model: str, url: str | None, variable: str | None, env: Mapping[str, str]) -> Place:
    """The place of a policy's model; ``variable`` names its key. OpenAI's and Anthropic's own are asked without
    litellm."""
    dialect = Dialect.OPENAI
    if url is None and model.startswith("openai/"):
        model, url, variable = model.removeprefix("openai/"), OPENAI_URL, variable or "OPENAI_API_KEY"
    elif url is None and model.startswith("anthropic/"):
        model, url, variable = model.removeprefix("anthropic/"), base_url(env), variable or "ANTHROPIC_API_KEY"
        dialect = Dialect.ANTHROPIC
    key = env.get(variable) if variable else None
    return Place(model=model, url=url, dialect=dialect, key=key, lacks_key=variable is not None and not key)


def provider(declared: EmbeddingsPart | Llm, price: Price, env: Mapping[str, str]) -> Backend:
    """A model that is paid and answers for no tier, as the policy declares it; its key comes from ``env``."""
    return Backend(
        tier=Tier.TEACHER,
        label=declared.model,
        timeout_seconds=declared.timeout_seconds,
        **place_of(declared.model, declared.url, declared.api_key_env, env),
        price=price,
    )


class Tiers:
    """Asks backends. One for the whole process: connections, breakers, rests and what was learned of how to spell a
    request are shared by all policies. All of it is by a backend's name and forgotten with the process.

    ``wished`` are fields beside the client's that a backend may refuse and that nobody needs; ``owner`` is whose key
    the request came with, if any.
    """

    def __init__(self, wires: Wires, breakers: Breakers | None = None, retries: Retries = SERVING) -> None:
        self._wires, self._retries = wires, retries
        self._breakers, self._rests = breakers or Breakers(), Rests()
        self._spellings: dict[str, Spelling] = {}
        self._unusable: set[str] = set()

    def is_open(self, backend: Backend) -> bool:
        """Whether the backend's circuit is open: it would not be asked now."""
        return self._breakers.of(backend.name).is_open

    def successes(self, backend: Backend) -> int:
        """How often the backend has answered, as far as this process asked it."""
        return self._breakers.of(backend.name).successes

    def whole(
        self,
        backend: Backend,
        body: Mapping[str, Any],
        waited: Waited,
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
        waited: Waited,
        *,
        wished: Mapping[str, Any] = NOTHING,
        owner: str | None = None,
    ) -> Coroutine[Any, Any, EventStream]:
        """A stream of which the first event is there: until then failures are retried, after it never.
        The caller closes it."""
        failed = partial(self._breakers.of(backend.name).failed, owner)
        ask = partial(begun, self._wires.to(backend), backend, failed)
        return self._asked(ask, backend, body, waited, wished=wished, owner=owner)

    def embed(self, backend: Backend, body: Mapping[str, Any], waited: Waited) -> Coroutine[Any, Any, Reply]:
        """Embeddings, tried once: clients try again by themselves. Raises as ``Upstream`` says."""
        return self._asked(partial(self._wires.to(backend).embed, backend), backend, body, waited, again=False)

    async def _asked(
        self,
        ask: Callable[[Mapping[str, Any], Waited], Awaitable[Answered]],
        backend: Backend,
        body: Mapping[str, Any],
        waited: Waited,
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
                    waited.lost += not surely_unpaid(error)
        if spelling is not known:
            self._learned(backend, spelling)
        self._unusable.discard(backend.name)
        return answered

    def _learned(self, backend: Backend, spelling: Spelling) -> None:
        """What a backend answers to is what it is asked from now on."""
        self._spellings[backend.name] = spelling
        log.warning("refuses_fields", backend=backend.label, without=sorted(spelling.without), limit=spelling.limit)

    async def _moment(self, backend: Backend, error: UpstreamError, attempt: int, most: int, waited: Waited) -> None:
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
    wire: Upstream, backend: Backend, failed: Callable[[], None], body: Mapping[str, Any], waited: Waited
) -> EventStream:
    """A stream whose first event is there."""
    events = EventStream(backend, await wire.open(backend, body, waited), failed)
    try:
        await events.begin()
    except BaseException:
        await events.close()
        raise
    return events

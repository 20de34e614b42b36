"""The backends of both tiers: who they are, and asking one of them with retries and its circuit breaker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from typing import Any

from router.contracts.decision import Tier
from router.contracts.prices import Price
from router.contracts.records import Rights
from router.errors import CircuitOpen, PolicyError, UpstreamError, UpstreamTimeout
from router.limits import Breakers, backoff_seconds
from router.policy import Policy
from router.pricing import Prices, litellm_price
from router.students import Target
from router.upstream.base import Backend, Reply, Upstream, Waited
from router.upstream.sse import DONE, Splitter, collect, parse, payload

OPENAI_URL = "https://api.openai.com/v1"
RETRIES = {Tier.STUDENT: 1, Tier.TEACHER: 2}


class Backends:
    """One policy's backends. Secrets come from ``env``, by the names that the policy gives."""

    def __init__(self, policy: Policy, env: Mapping[str, str]) -> None:
        self._policy, self._env = policy, env
        self.prices = Prices.of(policy)
        first, *others = policy.teacher.model, *policy.teacher.fallbacks
        self.teachers = (self._teacher(first, policy.teacher.url), *(self._teacher(m, None) for m in others))
        self.embeddings = self._embeddings()

    def _teacher(self, model: str, url: str | None) -> Backend:
        declared = self._policy.teacher
        is_first = model == declared.model
        name, url, variable = _place(model, url, declared.api_key_env if is_first else None)
        return Backend(
            tier=Tier.TEACHER,
            label=model,
            model=name,
            url=url,
            timeout_seconds=declared.timeout_seconds,
            key=self._env.get(variable) if variable else None,
            lacks_key=variable is not None and not self._env.get(variable),
            price=self.prices.teacher(model),
            rights=declared.training_rights if is_first else Rights.UNKNOWN,
        )

    def _embeddings(self) -> Backend | None:
        """Raises PolicyError where nobody knows what the model costs."""
        declared = self._policy.embeddings
        if declared is None:
            return None
        name, url, variable = _place(declared.model, declared.url, declared.api_key_env)
        price = litellm_price(declared.model)
        if declared.usd_per_million is not None:
            price = Price(input=declared.usd_per_million, output=Decimal(0))
        if price is None:
            raise PolicyError(
                f"policy {self._policy.name}: litellm's price map has no {declared.model!r}; "
                "set embeddings.usd_per_million, the USD per million input tokens"
            )
        return Backend(
            tier=Tier.TEACHER,  # as a provider that is paid; no tier ever answers with it
            label=declared.model,
            model=name,
            url=url,
            timeout_seconds=declared.timeout_seconds,
            key=self._env.get(variable) if variable else None,
            lacks_key=variable is not None and not self._env.get(variable),
            price=price,
        )

    def student(self, target: Target) -> Backend:
        """The student version at ``target``. One served here is shown under the policy's name for it."""
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
        )


def _place(model: str, url: str | None, variable: str | None) -> tuple[str, str | None, str | None]:
    """(name to ask for, URL, key's variable) of a policy's model: OpenAI's own are asked without litellm."""
    if url is None and model.startswith("openai/"):
        return model.removeprefix("openai/"), OPENAI_URL, variable or "OPENAI_API_KEY"
    return model, url, variable


class EventStream:
    """A backend's stream, as whole events. Iterating gives the events that arrived together.

    Raises UpstreamError where the stream dies, or ends without having said that it is done.
    """

    def __init__(self, backend: Backend, pieces: AsyncIterator[bytes]) -> None:
        self.seen: list[bytes] = []
        self._backend, self._pieces, self._splitter = backend, pieces, Splitter()
        self._first: list[bytes] = []
        self._done = False

    async def open(self) -> None:
        """Waits for the first event that says something. An error there is a failure, not an answer."""
        while not any(map(payload, self._first)):
            fresh = await self._next()
            if not fresh:
                raise UpstreamError(f"{self._backend.label} ended its stream before it began")
            self._first += fresh
        chunk = next((c for c in map(parse, self._first) if c is not None), None)
        if chunk is not None and chunk.get("error"):
            raise UpstreamError(f"{self._backend.label} answered with an error")

    async def __aiter__(self) -> AsyncIterator[list[bytes]]:
        batch, self._first = self._first, []
        while batch:
            self.seen += batch
            self._done = self._done or any(payload(e) == DONE for e in batch[-2:])
            yield batch
            batch = await self._next()
        if not self._done and collect(self.seen).finish_reason is None:
            raise UpstreamError(f"{self._backend.label} ended its stream in the middle")

    async def _next(self) -> list[bytes]:
        """The next whole events; empty at the end."""
        async for piece in self._pieces:
            if events := self._splitter.feed(piece):
                return events
        rest, self._splitter.rest = self._splitter.rest, b""
        return [rest + b"\n\n"] if rest.strip() else []


class Tiers:
    """Asks backends. One for the whole process: connections and breakers are shared by all policies."""

    def __init__(self, openai: Upstream, litellm: Upstream, breakers: Breakers | None = None) -> None:
        self._openai, self._litellm = openai, litellm
        self._breakers = breakers or Breakers()

    def is_open(self, backend: Backend) -> bool:
        """Whether the backend's circuit is open: it would not be asked now."""
        return self._breakers.of(backend.name).is_open

    async def whole(self, backend: Backend, body: Mapping[str, Any], waited: Waited) -> Reply:
        """One whole answer. Raises as ``Upstream`` says, once retrying is of no use."""
        breaker, attempt = self._breakers.of(backend.name), 0
        while True:
            try:
                with breaker.guard(backend.label):
                    return await self._wire(backend).complete(backend, body, waited)
            except UpstreamError as error:
                await self._before_retry(backend, error, attempt, waited)
            attempt += 1

    async def embed(self, backend: Backend, body: Mapping[str, Any], waited: Waited) -> Reply:
        """Embeddings, tried once: clients try again by themselves. Raises as ``Upstream`` says."""
        with self._breakers.of(backend.name).guard(backend.label):
            return await self._wire(backend).embed(backend, body, waited)

    @asynccontextmanager
    async def stream(self, backend: Backend, body: Mapping[str, Any], waited: Waited) -> AsyncIterator[EventStream]:
        """A stream of which the first event is there: until then failures are retried, after it never."""
        async with AsyncExitStack() as stack:
            events = await self._opened(stack, backend, body, waited)
            try:
                yield events
            except UpstreamError:
                self._breakers.of(backend.name).failed()
                raise

    async def _opened(
        self, stack: AsyncExitStack, backend: Backend, body: Mapping[str, Any], waited: Waited
    ) -> EventStream:
        breaker, attempt = self._breakers.of(backend.name), 0
        while True:
            async with AsyncExitStack() as trial:
                try:
                    with breaker.guard(backend.label):
                        pieces = await trial.enter_async_context(self._wire(backend).stream(backend, body, waited))
                        events = EventStream(backend, pieces)
                        await events.open()
                except UpstreamError as error:
                    await self._before_retry(backend, error, attempt, waited)
                else:
                    stack.push_async_callback(trial.pop_all().aclose)
                    return events
            attempt += 1

    async def _before_retry(self, backend: Backend, error: UpstreamError, attempt: int, waited: Waited) -> None:
        """Waits a little before the next attempt, or raises ``error`` where another one has no use.

        A timeout is not tried again: the client has waited long enough, and another backend may be there.
        """
        if isinstance(error, UpstreamTimeout | CircuitOpen) or attempt >= RETRIES[backend.tier]:
            raise error
        with waited:
            await asyncio.sleep(backoff_seconds(attempt))

    def _wire(self, backend: Backend) -> Upstream:
        return self._openai if backend.url else self._litellm

    async def close(self) -> None:
        await self._openai.close()
        await self._litellm.close()

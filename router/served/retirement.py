"""When the models that a policy pays for are ended by their providers: by the price map, and by what those list."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime

import orjson
import structlog

from router.backends.base import Backend
from router.backends.openai import OpenAIWire
from router.backends.roster import OPENAI_URL, PolicyBackends
from router.errors import UpstreamError, UpstreamRefused
from router.judges.models import judge_backends
from router.policy.policy import Policy
from router.price_map import day, retires
from router.wire.chat import Dialect

log = structlog.get_logger(__name__)

WARNED_DAYS = 60
LISTING_SECONDS = 10.0
LOOK_SECONDS, DAILY_SECONDS, FAILED_SECONDS = 60.0, 86_400.0, 3_600.0
"""How often policies are looked at for new models, and how soon a provider is asked again that answered or did not."""

Asked = tuple[str, str]


class Retirements:
    """What providers have announced of the models in some policies.

    The price map knows some dates as this version was released. OpenAI lists later ones under ``shutdown_date``, so
    each OpenAI-compatible server that a policy has a key for is asked once a day. One that does not answer, or says
    nothing, changes nothing.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._listed: dict[Asked, Mapping[str, date]] = {}
        self._due: dict[Asked, float] = {}

    async def follow(self, policies: Callable[[], Iterable[Policy]], wire: OpenAIWire) -> None:
        """Asks the providers as long as it is not cancelled, and tells the log what is new."""
        told: set[str] = set()
        while True:
            served = list(policies())
            await self.ask(served, wire)
            for policy in served:
                for warning in self.warnings(policy):
                    if warning not in told:
                        told.add(warning)
                        log.warning("model_retires", policy=policy.name, why=warning)
            await asyncio.sleep(LOOK_SECONDS)

    async def ask(self, policies: Iterable[Policy], wire: OpenAIWire) -> None:
        """Asks those that are due, one after the other, each for ``LISTING_SECONDS`` at most."""
        for policy in policies:
            for _, backend in paid_by(policy, self._env):
                asked = _asked(backend)
                if asked is not None and time.monotonic() >= self._due.get(asked, 0.0):
                    await self._ask(asked, backend, wire)

    async def _ask(self, asked: Asked, backend: Backend, wire: OpenAIWire) -> None:
        try:
            listed = await wire.models(replace(backend, timeout_seconds=LISTING_SECONDS))
        except (UpstreamError, UpstreamRefused):  # what that means for requests, requests find out
            self._due[asked] = time.monotonic() + FAILED_SECONDS
        else:
            self._listed[asked] = shutdown_dates(listed)
            self._due[asked] = time.monotonic() + DAILY_SECONDS

    def warnings(self, policy: Policy, today: date | None = None) -> list[str]:
        """What is gone, and what will be within ``WARNED_DAYS``. Raises PolicyError where nobody knows a price."""
        today = today or datetime.now(UTC).date()
        found = [_warning(use, b.label, self._ends(b), today) for use, b in paid_by(policy, self._env)]
        return [warning for warning in found if warning is not None]

    def _ends(self, backend: Backend) -> date | None:
        asked = _asked(backend)
        listed = self._listed.get(asked, {}).get(backend.model) if asked is not None else None
        own_server = backend.dialect is Dialect.OPENAI and backend.url not in (None, OPENAI_URL)
        return listed or (None if own_server else retires(backend.label))


def paid_by(policy: Policy, env: Mapping[str, str]) -> list[tuple[str, Backend]]:
    """The models that a policy pays for, each with what it does. Raises PolicyError where nobody knows a price."""
    backends = PolicyBackends(policy, env)
    first, *others = backends.teachers
    found = [("teacher", first), *(("fallback", other) for other in others)]
    found += [("embeddings", backends.embeddings)] if backends.embeddings else []
    return found + [("judge", judge) for judge in judge_backends(policy, env).values()]


def shutdown_dates(listed: bytes) -> dict[str, date]:
    """The days that a list of models names, by model; empty where it is no such list."""
    try:
        models = [m for m in orjson.loads(listed)["data"] if isinstance(m, dict) and isinstance(m.get("id"), str)]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return {}
    return {m["id"]: ends for m in models if (ends := day(m.get("shutdown_date")))}


def _asked(backend: Backend) -> Asked | None:
    """Who would list this model: its server and our key there; None where nobody is asked."""
    if backend.url is None or backend.dialect is not Dialect.OPENAI or not backend.key:
        return None
    return backend.url, backend.key


def _warning(use: str, model: str, ends: date | None, today: date) -> str | None:
    if ends is None or (days := (ends - today).days) > WARNED_DAYS:
        return None
    if days <= 0:
        return f"the {use} {model} is gone: its provider ended it on {ends}; name another one in the policy"
    left = f"{days} days" if days > 1 else "one day"
    return f"the {use} {model} ends on {ends}, in {left}: name another one in the policy before"


async def warned(policies: Sequence[Policy], env: Mapping[str, str]) -> list[list[str]]:
    """The warnings of each policy where no proxy runs. Raises PolicyError where nobody knows a price."""
    found, wire = Retirements(env), OpenAIWire(connections=1)
    try:
        await found.ask(policies, wire)
    finally:
        await wire.close()
    return [found.warnings(policy) for policy in policies]

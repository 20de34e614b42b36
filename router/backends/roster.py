"""The backends that a policy declares: who they are, where, and by whose key."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import TypedDict

from router.backends.anthropic import base_url
from router.backends.base import Backend
from router.bundles.students import StudentTarget
from router.contracts.decision import Tier
from router.contracts.prices import Price
from router.contracts.records import Rights
from router.errors import PolicyError
from router.policy.distillation import LabelTeacher
from router.policy.judges import Llm
from router.policy.policy import EmbeddingsPart, Policy
from router.price_map import litellm_price
from router.pricing import Prices
from router.wire.chat import Dialect

OPENAI_URL = "https://api.openai.com/v1"
STUDENTS = 4
"""How many of a policy's student versions are remembered: what is live and a canary, each before a swap and after."""


class PolicyBackends:
    """One policy's backends. Secrets come from ``env``, by the names that the policy gives."""

    def __init__(self, policy: Policy, env: Mapping[str, str]) -> None:
        self._policy, self._env = policy, env
        self.prices = Prices.of(policy)
        first, *others = policy.teacher.model, *policy.teacher.fallbacks
        self.teachers = (self._teacher(first, policy.teacher.url), *(self._teacher(m, None) for m in others))
        self.embeddings = self._embeddings()
        self._students: dict[StudentTarget, Backend] = {}  # the last few asked for

    def _teacher(self, model: str, url: str | None) -> Backend:
        declared = self._policy.teacher
        is_first = model == declared.model
        return Backend(
            tier=Tier.TEACHER,
            label=model,
            timeout_seconds=declared.timeout_seconds,
            **place_of(model, url, declared.api_key_env if is_first else None, self._env),
            price=self.prices.teacher(model),
            has_own_price=is_first and declared.usd_per_million is not None,
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

    def student(self, target: StudentTarget) -> Backend:
        """The student version at ``target``. One served here is shown under the policy's name for it."""
        if target not in self._students:
            kept = list(self._students.items())[1 - STUDENTS :]
            self._students = dict([*kept, (target, self._student_at(target))])
        return self._students[target]

    def _student_at(self, target: StudentTarget) -> Backend:
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
            has_own_price=True,
            rights=Rights.ALLOWED,
            version=target.version,
            ignores=declared.may_ignore,
            prioritises=declared.traits.prioritises,
        )


def lacking(backends: PolicyBackends) -> list[str]:
    """For people: which of a policy's paid backends have no key, and what to do."""
    asked = (*backends.teachers, *filter(None, (backends.embeddings,)))
    return [
        f"{backend.label} cannot be asked: the environment has no {backend.lacks_key}; set it, and start anew"
        for backend in asked
        if backend.lacks_key
    ]


class BackendPlace(TypedDict):
    """Where a model is asked, and by whose key."""

    model: str
    url: str | None
    dialect: Dialect
    key: str | None
    lacks_key: str


def place_of(model: str, url: str | None, variable: str | None, env: Mapping[str, str]) -> BackendPlace:
    """The place of a policy's model; ``variable`` names its key. OpenAI's and Anthropic's own are asked without
    litellm."""
    dialect = Dialect.OPENAI
    if url is None and model.startswith("openai/"):
        model, url, variable = model.removeprefix("openai/"), OPENAI_URL, variable or "OPENAI_API_KEY"
    elif url is None and model.startswith("anthropic/"):
        model, url, variable = model.removeprefix("anthropic/"), base_url(env), variable or "ANTHROPIC_API_KEY"
        dialect = Dialect.ANTHROPIC
    key = env.get(variable) if variable else None
    return BackendPlace(
        model=model, url=url, dialect=dialect, key=key, lacks_key=variable if variable and not key else ""
    )


def provider(declared: EmbeddingsPart | Llm | LabelTeacher, price: Price, env: Mapping[str, str]) -> Backend:
    """A model that is paid and answers for no tier, as the policy declares it; its key comes from ``env``."""
    return Backend(
        tier=Tier.TEACHER,
        label=declared.model,
        timeout_seconds=declared.timeout_seconds,
        **place_of(declared.model, declared.url, declared.api_key_env, env),
        price=price,
    )


def teacher_of(policy: Policy, env: Mapping[str, str]) -> Backend:
    """The policy's first teacher; its key comes from ``env``. Raises PolicyError where nobody knows its price."""
    return PolicyBackends(policy, env).teachers[0]


def output_limit(backend: Backend, tokens: int) -> dict[str, int]:
    """The field that holds an answer to so many tokens: OpenAI's newer models refuse the older one."""
    return {"max_completion_tokens" if backend.url == OPENAI_URL else "max_tokens": tokens}

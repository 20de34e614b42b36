"""One request on its way: what was asked, what happened, and the record of it; what all requests share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from typing import Any

from router.backends.base import Backend, WaitingTime
from router.backends.client import BackendClient
from router.backends.thoughts import Debts
from router.bundles.watcher import LiveBundle
from router.cascade.drain import Drain
from router.contracts.decision import Decision, Deferral, Fallback, Reason, Tier
from router.contracts.definitions import saved_usd
from router.contracts.logprobs import without_end
from router.contracts.records import Answer, AnswerKind, Record, Signals, Usage
from router.errors import (
    BudgetSpent,
    CircuitOpen,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnable,
    UpstreamUnreachable,
    UpstreamUnusable,
)
from router.metrics.metrics import Metrics
from router.policy.policy import Policy
from router.pricing import cost_usd
from router.routing.budget import Reservation
from router.routing.lengths import AloneCost
from router.scoring.text.features import FEATURES_VERSION, Features
from router.store.base import Store
from router.wire.chat import ChatRequest, Headers
from router.wire.estimates import asked_in, estimated_usage, said_in, unless_free, usage_or
from router.wire.usage import ToldUsage

CLIENT_LEFT = 499
"""The status recorded where the client was gone before its answer (nginx's convention)."""


_CAUSES = (
    (BudgetSpent, Fallback.BUDGET),
    (CircuitOpen, Fallback.CIRCUIT_OPEN),
    (UpstreamRateLimited, Fallback.RATE_LIMITED),
    (UpstreamTimeout, Fallback.TIMEOUT),
    (UpstreamUnreachable, Fallback.UNREACHABLE),
    (UpstreamUnusable, Fallback.UNUSABLE),
    (UpstreamUnable, Fallback.UNABLE),
)


def fallback_cause(error: UpstreamError | UpstreamRefused) -> Fallback:
    """The closed set's name for a failure."""
    return next((cause for kind, cause in _CAUSES if isinstance(error, kind)), Fallback.SERVER_ERROR)


@dataclass(slots=True)
class Exchange:
    """The state of one request while it is served. ``live`` is what it began with, whatever is swapped in.
    ``committed``: the answer has begun to leave, so its tier is settled and nothing can be taken back;
    ``sent``: in how many parts so far; ``ended``: the last of a stream has left, or is about to. ``held``: the money
    for the answer that is asked for, of those before it ``booked_usd`` are booked; ``expected_tokens``: as long as one
    is taken for that never came; ``owed``: what backends must get back of earlier answers; ``received``: bytes of
    answers, whoever got them."""

    chat: ChatRequest
    policy: Policy
    live: LiveBundle
    features: Features
    decision: Decision
    reason: Reason
    waited: WaitingTime = field(default_factory=WaitingTime)
    created_at: float = field(default_factory=time.time)
    began: float = field(default_factory=time.perf_counter)
    tier: Tier | None = None
    deferral: Deferral | None = None
    fallback: Fallback | None = None
    status: int = 500
    committed: bool = False
    sent: int = 0
    ended: bool = False
    answers: list[Answer] = field(default_factory=list)
    alone: AloneCost = field(default_factory=AloneCost)
    acceptance: float | None = None
    held: Reservation | None = None
    booked_usd: Decimal = Decimal(0)
    expected_tokens: int = 0
    owed: Debts = field(default_factory=Debts)
    received: int = 0

    @property
    def own_temperature(self) -> float | None:
        """By what temperature a student answers, where the client says none; None where it does."""
        return None if self.chat.body.get("temperature") is not None else self.policy.student.temperature

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self.began

    def fell_back(self, error: UpstreamError) -> None:
        """A failure moves the request on; the first cause is the one that is told."""
        self.reason = Reason.FALLBACK
        self.fallback = self.fallback or fallback_cause(error)

    def used(
        self,
        backend: Backend,
        message: Mapping[str, Any],
        told: ToldUsage | None,
        *,
        signals: Signals | None = None,
        cut: bool = False,
        beyond: int = 0,
        others: Sequence[Mapping[str, Any]] = (),
        unsaid: int = 0,
    ) -> Usage:
        """What is billed of an answer, and told to its client: what it did not tell is estimated from its texts.
        ``cut``: it was cut off, so that what it told is of its beginning; ``beyond``: tokens told of that ended it,
        which count for none of its on any engine; ``others``: what its further choices say, ``unsaid``: how many are
        paid for that had said nothing yet when it was cut off."""
        seen = signals.tokens if signals and signals.complete and not others else 0
        said = [said_in(choice) for choice in (message, *others)]

        def guessed() -> Usage:
            usage = estimated_usage(self.features.input_tokens, said, seen)
            if not unsaid:
                return usage
            longest = max(estimated_usage(0, [text]).output_tokens for text in said) or self.expected_tokens
            return replace(usage, output_tokens=usage.output_tokens + unsaid * longest)

        used = usage_or(
            unless_free(told) if backend.has_own_price else told,
            guessed,
            asked_tier=self.chat.body.get("service_tier"),
            cut=cut,
            said="".join(said),
            asked_tokens=self.features.input_tokens,
            asked=partial(asked_in, self.chat.body),
        )
        several = (self.chat.body.get("n") or 1) != 1
        if not several and (own := without_end(used.output_tokens, seen, beyond)) != used.output_tokens:
            used = replace(used, output_tokens=own)
        return used

    def answered(
        self,
        backend: Backend,
        kind: AnswerKind,
        *,
        message: dict[str, Any],
        finish_reason: object,
        usage: Usage,
        model: object,
        seconds: float,
        first_token_seconds: float | None = None,
        signals: Signals | None = None,
        top_logprobs: list[Any] | None = None,
        broken: bool = False,
        temperature: float | None = None,
    ) -> Answer:
        """Costs one backend's answer, drawn by a ``temperature`` that the client did not say, or None. A ``model`` or a
        ``finish_reason`` that is no string says nothing. ``broken``: something is missing, so it counts as one that has
        no end."""
        return Answer(
            tier=backend.tier,
            kind=kind,
            model=model if isinstance(model, str) and model else backend.label,
            message=message,
            finish_reason=finish_reason if isinstance(finish_reason, str) and not broken else None,
            usage=usage,
            cost_usd=cost_usd(usage, backend.price) if backend.price else Decimal(0),
            seconds=seconds,
            first_token_seconds=first_token_seconds,
            student_version=backend.version,
            signals=signals,
            training_rights=backend.rights,
            top_logprobs=top_logprobs,
            broken=broken,
            temperature=temperature,
        )

    def owe(self, backend: Backend, turns: Iterable[Mapping[str, Any]]) -> None:
        """Remembers what the backend must get back of its turns. A client that speaks its dialect gives it back
        itself; what students write nobody needs."""
        chat = self.chat
        if backend.tier is Tier.TEACHER and (chat.native is None or chat.native.dialect is not backend.dialect):
            self.owed.keep(turns, backend.name, chat.owner or "", chat.conversation_id)

    def given_back(self, backend: Backend) -> Sequence[Any]:
        """The client's messages, with what the backend wrote and the client had no place for."""
        chat = self.chat
        messages: Sequence[Any] = chat.body["messages"]
        if backend.tier is Tier.STUDENT:
            return messages
        return self.owed.given_back(messages, backend.name, chat.owner or "", chat.conversation_id)

    def serve(self, answer: Answer, alone: AloneCost) -> None:
        """The client gets this answer: it comes first in the record."""
        self.tier, self.alone = answer.tier, alone
        self.answers.insert(0, answer)

    def discard(self, answer: Answer) -> None:
        """The answer was paid for, and is kept to learn from; the client never sees it."""
        self.answers.append(replace(answer, kind=AnswerKind.DISCARDED))

    @contextmanager
    def discarding(self, answer: Answer) -> Iterator[None]:
        """Around what is done before it is known whether the answer leaves: it was paid, whoever does not wait."""
        try:
            yield
        except asyncio.CancelledError:
            self.discard(answer)
            raise

    def headers(self) -> Headers:
        """What happened, as far as it is known now: the decision always, money once there is an answer."""
        decision = self.decision
        found = [
            (b"x-locum-request-id", self.chat.request_id.encode()),
            (b"x-locum-policy", self.policy.name.encode()),
            (b"x-locum-reason", self.reason.encode()),
            (b"x-locum-bundle", (self.live.bundle or "base").encode()),
        ]
        if self.tier is not None:
            found.append((b"x-locum-tier", self.tier.encode()))
            if self.tier is Tier.STUDENT and (own := self.own_temperature) is not None:
                found.append((b"x-locum-temperature", b"%g" % own))
        if decision.score is not None:
            found.append((b"x-locum-score", b"%.4f" % decision.score))
        if decision.worth is not None:
            found.append((b"x-locum-worth", b"%.4f" % decision.worth))
        if decision.threshold is not None:
            found.append((b"x-locum-threshold", b"%.4f" % decision.threshold))
        if self.answers and self.answers[0].kind is AnswerKind.SERVED:
            spent = sum((a.cost_usd for a in self.answers[1:]), self.answers[0].cost_usd)
            found.append((b"x-locum-cost-usd", f"{spent:f}".encode()))
            found.append((b"x-locum-saved-usd", f"{saved_usd(self.alone.usd, spent):f}".encode()))
        return found

    def record(self, policy_version: str) -> Record:
        """What is kept of it. Redaction is the store's."""
        chat = self.chat
        seconds = self.elapsed
        return Record(
            request_id=chat.request_id,
            conversation_id=chat.conversation_id,
            created_at=self.created_at,
            policy=self.policy.name,
            policy_version=policy_version,
            bundle=self.live.bundle,
            features_version=FEATURES_VERSION,
            owner=chat.owner,
            user=chat.user,
            task=chat.task,
            decision=self.decision,
            tier=self.tier,
            reason=self.reason,
            deferral=self.deferral,
            fallback=self.fallback,
            status=self.status,
            streamed=chat.streamed,
            request=dict(chat.body),
            answers=self.answers,
            counterfactual_usd=self.alone.usd,
            counterfactual_tokens=self.alone.tokens,
            counterfactual_by=self.alone.by,
            acceptance=self.acceptance,
            seconds=seconds,
            overhead_seconds=max(0.0, seconds - self.waited.seconds),
        )


@dataclass(frozen=True, slots=True)
class Services:
    """What all policies share, for the life of the process."""

    tiers: BackendClient
    store: Store
    metrics: Metrics
    drain: Drain
    owed: Debts = field(default_factory=Debts)

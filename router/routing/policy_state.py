"""What deciding needs beside the request: the first look at it, the conversation, the draws, the money left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from router.bundles.watcher import LiveBundle
from router.contracts.decision import Decision, Fallback, Reason, Tier, is_moved
from router.contracts.definitions import alone_usd
from router.contracts.records import Answer, Record
from router.metrics.labels import TOO_HARD
from router.policy.policy import Policy
from router.pricing import Prices, counterfactual_usd
from router.routing.budget import DailyBudget, Till, audit_usd, teacher_usd
from router.routing.conversations import Conversations, Identities
from router.routing.decision import Facts, RequestView, audit_rate, decide, drawn
from router.routing.lengths import AloneCost, AuditedLengths
from router.routing.state.base import Quantile, SharedState
from router.scoring.prior import prior_score
from router.scoring.scorer import Look, Scorer
from router.scoring.statistics.thresholds import Pace
from router.scoring.text.features import Features, extract
from router.scoring.worth import Extra, worth
from router.wire.chat import ChatRequest


class RequestSeen(NamedTuple):
    """A request, read once. ``look`` is None without a scorer."""

    features: Features
    look: Look | None


def look_at(body: Mapping[str, Any], scorer: Scorer | None) -> RequestSeen:
    """Reads a parsed chat-completions request, and scores it."""
    features = extract(body)
    return RequestSeen(features, scorer.look(features) if scorer else None)


SCORERS = 2
"""How many scorers judge a policy's traffic at once: the live bundle's, and a canary's."""


class RoutingState:
    """One policy's running state of deciding. It outlives edits of the policy file (``follow``), so that
    an edit forgets neither conversations nor what was spent today."""

    def __init__(self, policy: Policy, state: SharedState, *, clock: Callable[[], float] = time.time) -> None:
        self._policy, self._prices = policy, Prices.of(policy)
        self._extra = Extra.of(self._prices)
        self._conversations = Conversations(policy.name, state, policy.conversation.idle_seconds)
        self._identities = Identities(state)
        self._shares: dict[str, Quantile] = {}
        self._pace = Pace()
        self.lengths = AuditedLengths()
        self._state = state
        self._clock = clock
        self._share = 0.0
        served = state.account(policy.name, "served")
        self.till = Till(DailyBudget(policy.objective.cap, served, clock=clock))
        self.audit_budget = DailyBudget(policy.audit.usd_per_day, state.account(policy.name, "audited"))

    def follow(self, policy: Policy) -> None:
        self._policy, self._prices = policy, Prices.of(policy)
        self._extra = Extra.of(self._prices)
        self._conversations.idle_seconds = policy.conversation.idle_seconds
        self.till.budget.cap(policy.objective.cap)
        self.audit_budget.cap(policy.audit.usd_per_day)

    def spent_before(self, at: float, served_usd: Decimal, audited_usd: Decimal) -> None:
        """What the teacher cost, for clients and for audits, on the day of ``at`` before then (unix time)."""
        self.till.budget.spent_before(at, served_usd)
        self.audit_budget.spent_before(at, audited_usd)

    def decide(self, chat: ChatRequest, live: LiveBundle, seen: RequestSeen) -> Decision:
        """Draws the request's audit and decides. ``seen`` is what ``live``'s scorer saw in it."""
        policy, (features, look) = self._policy, seen
        held = self._worth(look, features, live.scorer) if look and live.scorer else None
        prior = 0.0 if look else prior_score(features)
        compared = (look.score if held is None else held) if look else prior
        affordable = self.till.affords(chat.dearest, self._prices)
        rate = max(live.audit_rate, audit_rate(policy, live.thresholds, live.wary))
        state = Facts(
            student_ready=live.student is not None,
            escalated=chat.has_assistant_turn and self._conversations.escalated(chat.conversation_id),
            score=look.score if look else None,
            gain=look.gain if look else None,
            worth=held,
            novelty=look.novelty if look else None,
            teacher_tokens=look.tokens if look else None,
            prior=prior,
            thresholds=live.thresholds,
            share_threshold=self._share_threshold(live, compared, affordable, counts=chat.tier is None),
            teacher_affordable=affordable,
            propensity=rate,
            audited=drawn(chat.request_id, rate),
            explore=drawn(chat.conversation_id, policy.audit.explore, "explore"),
        )
        return decide(policy, RequestView(features, chat.body, chat.tier), state)

    def _worth(self, look: Look, features: Features, scorer: Scorer) -> float | None:
        """What a share or money is decided by, where that is not the score; None for the other objectives."""
        aim, lengths = self._policy.objective, scorer.learned.lengths
        gain = 1 - look.score if look.gain is None else look.gain
        if aim.cap is not None and lengths is not None and look.tokens is not None:
            return worth(gain, self._extra.dearness(lengths.usual, features.input_tokens, look.tokens))
        declared = aim.starts_from_prior
        return worth(gain) if declared and look.gain is not None else None

    def _share_threshold(self, live: LiveBundle, score: float, affordable: bool, *, counts: bool) -> float | None:
        """Follows the scores of all traffic, or worths; another scorer or aim has other ones, so it starts anew.
        Where a spent budget refuses what the teacher would get, that is what it last got. What ``counts`` not, or
        finds no student ready, is told where it stands, and moves nothing."""
        aim = self._policy.objective
        if not aim.starts_from_prior:
            return None
        kind = "share" if aim.cap is None else "money"
        scored_by = f"{kind} {live.bundle}" if live.scorer and live.bundle else "prior"
        followed = self._shares.pop(scored_by, None) or self._state.quantile(self._policy.name, scored_by)
        self._shares = dict([*self._shares.items(), (scored_by, followed)][-SCORERS:])
        if counts and live.student is not None:
            followed.observe(score)
        share = aim.share
        if share is None:
            self._pace.observe(self._clock())
            if affordable or not aim.refuses:
                left_usd, left_seconds = self.till.budget.left_today()
                part_usd = left_usd / self._state.workers  # each paces its own
                self._share = self._pace.student_share(part_usd, left_seconds)
            share = self._share
        return followed.threshold(share)

    def alone(self, chat: ChatRequest, answer: Answer, fallback: Fallback | None) -> AloneCost:
        """What the first teacher alone would have cost for what this answer was given to; ``fallback``: what failed
        before."""
        teacher = self._prices.teacher()
        if answer.tier is Tier.TEACHER or is_moved(fallback):
            return AloneCost(alone_usd(fallback, answer.cost_usd, counterfactual_usd(answer.usage, teacher)))
        usage, by = self.lengths.expected(chat.task, answer.usage)
        cached = self._conversations.cached_share(chat.conversation_id)
        return AloneCost(counterfactual_usd(usage, teacher, cached_share=cached), usage.output_tokens, by)

    def answered(self, chat: ChatRequest, message: Mapping[str, Any]) -> None:
        """Remembers what the client is about to be told, so that its next request is known to go on from there."""
        if chat.which is not None:
            self._identities.answered(chat.which, message)

    def learn(self, record: Record) -> None:
        """Takes a finished request into account: what it cost, and what its conversation showed."""
        escalated, usd = record.tier is Tier.TEACHER, float(teacher_usd(record.answers))
        self._pace.learn(usd, by_score=record.reason is Reason.SCORE, escalated=escalated)
        if not escalated:
            return
        self._conversations.remember(
            record.conversation_id,
            escalated=record.reason in TOO_HARD,
            cached_share=_cached_share(record.answers[0]) if record.answers else None,
        )


def teacher_spend(record: Record) -> tuple[Decimal, Decimal]:
    """US dollars that this request cost at the teacher: (for the client, for its audit, the judge included)."""
    return teacher_usd(record.answers), audit_usd(record.audit) if record.audit else Decimal(0)


def _cached_share(answer: Answer) -> float:
    return answer.usage.cached_input_tokens / max(1, answer.usage.input_tokens)

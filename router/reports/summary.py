"""A stretch of traffic in figures: who answered, what it cost and saved, how good and how fast it was."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from router.contracts.decision import Reason, Tier
from router.contracts.records import Answer, AnswerKind, Record, Rights
from router.metrics.labels import TOO_HARD
from router.reports.spending import Spending
from router.scoring.statistics.estimates import weighted_rate

UNTAGGED = "no task tag"
UNJUDGED = "unjudged"
"""Beside the causes of missed audits: both tiers answered, and the judge could not tell."""


@dataclass(frozen=True, slots=True)
class AuditOutcome:
    """One audit with a verdict: who served, whether the student's answer was acceptable, and how likely
    the request was to be drawn."""

    served: Tier | None
    acceptable: bool
    propensity: float


@dataclass(frozen=True, slots=True)
class ParityShare:
    """Share of all traffic for which the client got what is as good as the teacher's answer.

    ``low`` and ``high`` bound it at 95%, exactly; ``estimate`` is None where nothing was audited.
    """

    audits: int
    student_served: int
    unacceptable: int
    estimate: float | None
    low: float
    high: float


def parity(audits: Iterable[AuditOutcome]) -> ParityShare:
    """Parity from one bundle's sample that was drawn without looking at the requests.

    Only what the student served and the judge refused counts against it: a teacher's answer is as
    good as itself. Where the audit rate changed along the way, each audit counts for the 1/propensity
    requests it stands for; at one rate that is 1 - unacceptable / audits.
    """
    sample = list(audits)
    bad = [a.served is Tier.STUDENT and not a.acceptable for a in sample]
    served = sum(a.served is Tier.STUDENT for a in sample)
    lost = weighted_rate(bad, [a.propensity for a in sample])
    estimate = None if lost.estimate is None else 1 - lost.estimate
    return ParityShare(len(sample), served, sum(bad), estimate, 1 - lost.high, 1 - lost.low)


def quantile(values: Sequence[float], q: float) -> float | None:
    """The nearest-rank quantile; None of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else None


@dataclass(slots=True)
class Summary:
    """Figures of one policy. Amounts are US dollars, times seconds. ``estimated_usd`` is among all that was spent, that
    on ``embeddings`` too, which is beside ``spend``."""

    requests: int = 0
    unanswered: int = 0
    answered_by: Counter[tuple[Tier, Reason]] = field(default_factory=Counter)
    traffic: Counter[Tier] = field(default_factory=Counter)
    spend: dict[tuple[Tier, AnswerKind], Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    counterfactual_usd: Decimal = Decimal(0)
    audits: dict[str | None, list[AuditOutcome]] = field(default_factory=lambda: defaultdict(list))
    missed_audits: Counter[str] = field(default_factory=Counter)
    seconds: dict[Tier, list[float]] = field(default_factory=lambda: defaultdict(list))
    first_token_seconds: dict[Tier, list[float]] = field(default_factory=lambda: defaultdict(list))
    overhead_seconds: list[float] = field(default_factory=list)
    embeddings: int = 0
    embeddings_usd: Decimal = Decimal(0)
    estimated_usd: Decimal = Decimal(0)
    spending: Spending = field(default_factory=Spending)
    escalations: int = 0
    trainable: int = 0
    redacted: Counter[str] = field(default_factory=Counter)

    @property
    def answered(self) -> int:
        return self.requests - self.unanswered

    @property
    def spent_usd(self) -> Decimal:
        return sum(self.spend.values(), Decimal(0))

    @property
    def saved_usd(self) -> Decimal:
        """Signed, and net of everything in ``spend``."""
        return self.counterfactual_usd - self.spent_usd

    def as_dict(self) -> dict[str, Any]:
        """Plain values for tools: amounts as text, so that none loses a digit."""
        return {
            "requests": self.requests,
            "unanswered": self.unanswered,
            "student_share": self.share(Tier.STUDENT),
            "spend_usd": {f"{tier}/{kind}": str(usd) for (tier, kind), usd in sorted(self.spend.items())},
            "spent_usd": str(self.spent_usd),
            "teacher_alone_usd": str(self.counterfactual_usd),
            "saved_usd": str(self.saved_usd),
            "embeddings": self.embeddings,
            "embeddings_usd": str(self.embeddings_usd),
            "estimated_usd": str(self.estimated_usd),
            "spent_by": self.spending.as_dict(),
        }

    def share(self, tier: Tier) -> float:
        """The tier's share of the answered traffic: what was forced or moved by a failure is none."""
        return self.traffic[tier] / max(1, self.traffic.total())

    def add(self, record: Record, may_train: bool) -> None:
        """Counts one record. ``may_train``: the policy allows training on its teacher's answers."""
        self.spending.add(record)
        self.estimated_usd += record.estimated_usd
        if record.embedding:  # no tier was chosen, so nothing was saved or lost by one
            self.embeddings += 1
            self.embeddings_usd += record.cost_usd
            return
        self.requests += 1
        self.counterfactual_usd += record.counterfactual_usd
        self.overhead_seconds.append(record.overhead_seconds)
        for answer in record.answers:
            self.spend[answer.tier, answer.kind] += answer.cost_usd
        if record.tier is None:
            self.unanswered += 1
        else:
            self._add_answered(record, record.tier)
        self._add_audit(record)
        if record.is_traffic:
            self.escalations += record.tier is Tier.TEACHER and record.reason in TOO_HARD
            self.trainable += _trainable(record, may_train)
            self._add_redacted(record)

    def _add_redacted(self, record: Record) -> None:
        """By task tag, what can neither be learnt from nor measured by: redaction changed it."""
        if record.status == 200 and record.request is not None and not record.as_said(Tier.TEACHER):
            self.redacted[record.task or UNTAGGED] += 1

    def _add_answered(self, record: Record, tier: Tier) -> None:
        self.answered_by[tier, record.reason] += 1
        self.traffic[tier] += record.is_traffic
        self.seconds[tier].append(record.seconds)
        if record.answers and (first := record.answers[0].first_token_seconds) is not None:
            self.first_token_seconds[tier].append(first)

    def _add_audit(self, record: Record) -> None:
        audit = record.audit
        if audit is None:
            return
        if audit.answer:
            self.spend[audit.answer.tier, audit.answer.kind] += audit.answer.cost_usd
        if audit.judge_usd:  # paid to a provider, as the teacher is
            self.spend[Tier.TEACHER, AnswerKind.JUDGED] += audit.judge_usd
        if not record.is_traffic:
            return
        if audit.missed:
            self.missed_audits[audit.missed] += 1
        elif audit.acceptable is not None:
            seen = AuditOutcome(record.tier, audit.acceptable, record.decision.propensity)
            self.audits[record.bundle].append(seen)
        else:
            self.missed_audits[UNJUDGED] += 1


def _trainable(record: Record, may_train: bool) -> bool:
    """A teacher's answer with its text and the right to it; what was audited is kept for evaluation."""
    answer: Answer | None = record.answer_of(Tier.TEACHER)
    if answer is None or answer.message is None or record.request is None or record.decision.audited:
        return False
    return record.as_said(Tier.TEACHER) and (may_train or answer.training_rights is Rights.ALLOWED)

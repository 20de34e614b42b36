"""A stretch of traffic in figures: who answered, what it cost and saved, how good and how fast it was."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from router.contracts.decision import Reason, Tier
from router.contracts.definitions import saved_share, saved_usd, student_share
from router.contracts.records import AnswerKind, LengthBasis, Record, Rights
from router.metrics.labels import NO_BUNDLE, TOO_HARD
from router.policy.objective import Parity
from router.reports.quality import FloorFinding, Quality
from router.reports.spending import OTHERS, Spending

UNTAGGED = "no task tag"
MOST_TASKS = 1000
"""Of one bundle are told apart at most: clients choose them."""
UNJUDGED = "unjudged"
"""Beside the causes of missed audits: both tiers answered, and the judge could not tell."""


def quantile(values: Sequence[float], q: float) -> float | None:
    """The nearest-rank quantile; None of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else None


@dataclass(slots=True)
class Summary:
    """Figures of one policy, by the definitions that all share (``router.contracts.definitions``). Amounts are US
    dollars, times seconds. ``alone_by`` is the student's part of ``counterfactual_usd``, by whose lengths that is.
    ``estimated_usd`` is among all that was spent, that on ``embeddings`` too, which is beside ``spend``. ``traffic`` is
    what was answered by tier and reason, and neither forced nor moved by a failure; ``quality`` is by bundle, and
    ``slices`` part it by task."""

    requests: int = 0
    unanswered: int = 0
    answered_by: Counter[tuple[Tier, Reason]] = field(default_factory=Counter)
    traffic: Counter[tuple[Tier, Reason]] = field(default_factory=Counter)
    spend: dict[tuple[Tier, AnswerKind], Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    counterfactual_usd: Decimal = Decimal(0)
    alone_by: dict[LengthBasis, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    quality: dict[str | None, Quality] = field(default_factory=lambda: defaultdict(Quality))
    slices: dict[str | None, dict[str, Quality]] = field(default_factory=lambda: defaultdict(dict))
    audits: int = 0
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
        return saved_usd(self.counterfactual_usd, self.spent_usd)

    @property
    def saved_share(self) -> float | None:
        return saved_share(self.counterfactual_usd, self.spent_usd)

    @property
    def answered_traffic(self) -> Counter[Tier]:
        """By tier."""
        found = Counter[Tier]()
        for (tier, _), n in self.traffic.items():
            found[tier] += n
        return found

    @property
    def student_share(self) -> float:
        return student_share(self.answered_traffic)

    def floors(self, bundle: str | None, floor: Parity) -> dict[str, FloorFinding]:
        """What the bundle's audits show of the floor task by task, each taken alone; the most audited first."""
        found = {task: part.beside(floor) for task, part in self.slices.get(bundle, {}).items() if part.audits}
        return dict(sorted(found.items(), key=lambda item: (-item[1].found.audits, item[0])))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for tools: amounts as text, so that none loses a digit."""
        return {
            "requests": self.requests,
            "unanswered": self.unanswered,
            "traffic": {tier.value: self.answered_traffic[tier] for tier in Tier},
            "student_share": self.student_share,
            "parity": {bundle or NO_BUNDLE: found.parity().as_dict() for bundle, found in self.quality.items()},
            "spend_usd": {f"{tier}/{kind}": str(usd) for (tier, kind), usd in sorted(self.spend.items())},
            "spent_usd": str(self.spent_usd),
            "teacher_alone_usd": str(self.counterfactual_usd),
            "teacher_alone_by": {by.value: str(usd) for by, usd in sorted(self.alone_by.items())},
            "saved_usd": str(self.saved_usd),
            "saved_share": self.saved_share,
            "embeddings": self.embeddings,
            "embeddings_usd": str(self.embeddings_usd),
            "estimated_usd": str(self.estimated_usd),
            "spent_by": self.spending.as_dict(),
        }

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
        if record.tier is Tier.STUDENT:
            self.alone_by[record.counterfactual_by or LengthBasis.STUDENT] += record.counterfactual_usd
        self.overhead_seconds.append(record.overhead_seconds)
        for answer in record.answers:
            self.spend[answer.tier, answer.kind] += answer.cost_usd
        if record.tier is None:
            self.unanswered += 1
        else:
            self._add_answered(record, record.tier)
        self._add_audit(record)
        if record.is_traffic:
            self._add_quality(record)
            self.escalations += record.tier is Tier.TEACHER and record.reason in TOO_HARD
            self.trainable += _trainable(record, may_train)
            self._add_redacted(record)

    def _add_quality(self, record: Record) -> None:
        if record.tier is not None:
            self.traffic[record.tier, record.reason] += 1
        self.quality[record.bundle].add(record)
        tasks, task = self.slices[record.bundle], record.task or UNTAGGED
        if task not in tasks and len(tasks) >= MOST_TASKS:
            task = OTHERS
        tasks.setdefault(task, Quality()).add(record)

    def _add_redacted(self, record: Record) -> None:
        """By task tag, what can neither be learnt from nor measured by: redaction changed it."""
        if record.status == 200 and record.request is not None and not record.as_said(Tier.TEACHER):
            self.redacted[record.task or UNTAGGED] += 1

    def _add_answered(self, record: Record, tier: Tier) -> None:
        self.answered_by[tier, record.reason] += 1
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
            self.audits += 1
        else:
            self.missed_audits[UNJUDGED] += 1


def _trainable(record: Record, may_train: bool) -> bool:
    """A teacher's answer with its text and the right to it; what was audited is kept for evaluation."""
    answer = record.answer_of(Tier.TEACHER)
    if answer is None or not record.usable or record.decision.audited:
        return False
    return may_train or answer.training_rights is Rights.ALLOWED

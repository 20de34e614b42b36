"""The money of one policy's traffic, by who served: what was spent, and what the teacher alone would have cost."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from decimal import Decimal

from router.contracts.decision import Tier
from router.contracts.definitions import saved_usd, student_share
from router.contracts.prices import Price
from router.contracts.records import Answer, AnswerKind, Record, Usage
from router.pricing import counterfactual_usd, reckoned_usd

DAY_SECONDS = 86_400
LEAST_DAYS = 1 / 24
"""Traffic of less than an hour counts as an hour's."""
LEAST_SERVED = 30
"""Requests of one tier below which what goes with serving them is not read from the log."""

STUDENT, TEACHER = Tier.STUDENT, Tier.TEACHER


@dataclass(frozen=True, slots=True)
class Rates:
    """USD per million tokens to reckon with. ``teacher`` None, and ``student_given`` False: each answer's own cost, as
    it was recorded, by its provider's own bill and tier; at a price that is given no other's bill counts. ``student``
    is always needed: what the teacher answered is priced by it too."""

    student: Price
    student_given: bool = False
    teacher: Price | None = None

    def cost(self, answer: Answer) -> Decimal:
        price = self.teacher if answer.tier is TEACHER else self.student if self.student_given else None
        return answer.cost_usd if price is None else reckoned_usd(answer.usage, price)

    def alone(self, record: Record) -> Decimal:
        """What the teacher alone would have cost; at a price that is given no prompt cache is reckoned with for what
        the student served."""
        if self.teacher is None or not record.answers:
            return record.counterfactual_usd
        served = record.answers[0]
        if served.tier is TEACHER:
            return reckoned_usd(served.usage, self.teacher)
        tokens = record.counterfactual_tokens
        usage = served.usage if tokens is None else replace(served.usage, output_tokens=tokens)
        return counterfactual_usd(usage, self.teacher, cached_share=0.0)


@dataclass(slots=True)
class Flow:
    """Sums over the traffic; amounts are US dollars. What is forced or moved by a failure does not recur.

    ``served``: answered requests by the tier that served. ``own``: what its answers to them cost; ``beside``: what was
    spent beside on them (audits with their judge, discarded answers). ``alone``: what the teacher alone would have
    cost. ``swapped``: what the teacher's tokens would have cost at the student's price. ``by_kind`` is all spending by
    purpose. ``tokens`` are those of what was served.
    """

    first_at: float = 0.0
    last_at: float = 0.0
    served: Counter[Tier] = field(default_factory=Counter)
    own: dict[Tier, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    beside: dict[Tier, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    alone: Decimal = Decimal(0)
    swapped: Decimal = Decimal(0)
    by_kind: dict[AnswerKind, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    tokens: Usage = field(default_factory=Usage)

    def add(self, record: Record, rates: Rates) -> None:
        """Counts one record; what tells nothing of the traffic counts nothing, one that nobody answered its money."""
        if not record.is_traffic:
            return
        audit, tier = record.audit, record.tier
        for answer in [*record.answers, *([audit.answer] if audit and audit.answer else [])]:
            usd = rates.cost(answer)
            self.by_kind[answer.kind] += usd
            if tier is not None:
                (self.own if answer.kind is AnswerKind.SERVED else self.beside)[tier] += usd
        if audit and audit.judge_usd:
            self.by_kind[AnswerKind.JUDGED] += audit.judge_usd
            if tier is not None:
                self.beside[tier] += audit.judge_usd
        if tier is not None and record.answers:
            self._add_answered(record, tier, rates)

    def _add_answered(self, record: Record, tier: Tier, rates: Rates) -> None:
        self.first_at = min(self.first_at, record.created_at) if self.requests else record.created_at
        self.last_at = max(self.last_at, record.created_at)
        self.served[tier] += 1
        self.alone += rates.alone(record)
        usage = record.answers[0].usage
        self.tokens.input_tokens += usage.input_tokens
        self.tokens.output_tokens += usage.output_tokens
        if tier is TEACHER:
            self.swapped += reckoned_usd(usage, rates.student)

    @property
    def requests(self) -> int:
        return self.served.total()

    @property
    def days(self) -> float:
        return max(LEAST_DAYS, (self.last_at - self.first_at) / DAY_SECONDS)

    @property
    def requests_per_day(self) -> float:
        return self.requests / self.days

    @property
    def share(self) -> float:
        """The student's share."""
        return student_share(self.served)

    @property
    def spent(self) -> Decimal:
        return sum(self.by_kind.values(), Decimal(0))

    @property
    def saved_per_request(self) -> Decimal:
        """Signed, net of all that was spent on requests; rounds are not in it."""
        return saved_usd(self.alone, self.spent) / max(1, self.requests)

    def moved_per_request(self, audit_rate: float) -> Decimal:
        """What one more request is worth that the student serves instead of the teacher, signed: the teacher's answers
        to what it serves now, with all beside them, less the same tokens at the student's price with what goes beside
        what the student serves (by ``audit_rate`` where it serves too little to tell)."""
        teacher, student = self.served[TEACHER], self.served[STUDENT]
        if not teacher:
            return Decimal(0)
        answer = self.own[TEACHER] / teacher
        beside = self.beside[STUDENT] / student if student >= LEAST_SERVED else Decimal(str(audit_rate)) * answer
        return answer + self.beside[TEACHER] / teacher - self.swapped / teacher - beside


def flow_of(records: Iterable[Record], rates: Rates) -> Flow:
    """The sums over all records."""
    flow = Flow()
    for record in records:
        flow.add(record, rates)
    return flow

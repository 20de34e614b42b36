"""How long the teacher's answers are beside the student's: what the teacher alone would have cost goes by that.

An audit of what the student served has both tiers' answers to one request. Of a task with enough of them their ratio
holds, else that of all such audits of the policy, else the student's own length stands for the teacher's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal

from router.contracts.decision import Tier
from router.contracts.records import LengthBasis, Record, Usage

LEAST_PAIRS = 20
"""Audits from which on their ratio is believed."""
KEPT_PAIRS = 500
"""The newest of one task, or of all, go by: students and traffic change."""
MOST_TASKS = 1000
"""Are told apart at most, since clients choose them."""


@dataclass(slots=True)
class _Pairs:
    """Output tokens of both tiers' answers to the same requests, the newest last, and their sums."""

    pairs: deque[tuple[int, int]] = field(default_factory=deque)
    student: int = 0
    teacher: int = 0

    def add(self, student: int, teacher: int) -> None:
        self.pairs.append((student, teacher))
        self.student, self.teacher = self.student + student, self.teacher + teacher
        if len(self.pairs) > KEPT_PAIRS:
            student, teacher = self.pairs.popleft()
            self.student, self.teacher = self.student - student, self.teacher - teacher

    @property
    def known(self) -> bool:
        return len(self.pairs) >= LEAST_PAIRS and self.student > 0


@dataclass(frozen=True, slots=True)
class AloneCost:
    """What the teacher alone would have cost for an answer, in US dollars; for the student's with how many output
    ``tokens``, by whose lengths."""

    usd: Decimal = Decimal(0)
    tokens: int | None = None
    by: LengthBasis | None = None


class AuditedLengths:
    """One policy's audits, as far as lengths go."""

    def __init__(self) -> None:
        self._all = _Pairs()
        self._tasks: dict[str, _Pairs] = {}

    def observe(self, record: Record) -> None:
        """Takes an audited record into account; one that tells nothing is passed over."""
        if (pair := audited_pair(record)) is not None:
            self.add(record.task, *pair)

    def add(self, task: str | None, student: int, teacher: int) -> None:
        """The output tokens of both tiers' answers to one request."""
        for pairs in self._of(task):
            pairs.add(student, teacher)

    def _of(self, task: str | None) -> Iterator[_Pairs]:
        yield self._all
        if task is not None and (task in self._tasks or len(self._tasks) < MOST_TASKS):
            yield self._tasks.setdefault(task, _Pairs())

    def expected(self, task: str | None, said: Usage) -> tuple[Usage, LengthBasis]:
        """``said``, what the student's answer counts, with the length that the teacher's would have had; and by whose
        lengths that is told."""
        own = self._tasks.get(task) if task is not None else None
        if own is not None and own.known:
            return _longer(said, own), LengthBasis.TASK
        if self._all.known:
            return _longer(said, self._all), LengthBasis.POLICY
        return said, LengthBasis.STUDENT


def _longer(said: Usage, pairs: _Pairs) -> Usage:
    return replace(said, output_tokens=round(said.output_tokens * pairs.teacher / pairs.student))


def audited_pair(record: Record) -> tuple[int, int] | None:
    """The output tokens of both tiers' whole answers to a request that the student served; None where it is no such."""
    audited = record.audit.answer if record.audit else None
    if record.counts_for is not Tier.STUDENT or audited is None or audited.tier is not Tier.TEACHER:
        return None
    served = record.answers[0] if record.answers else None
    if served is None or served.finish_reason is None or audited.finish_reason is None or audited.usage.estimated:
        return None
    return served.usage.output_tokens, audited.usage.output_tokens

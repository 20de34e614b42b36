"""How good what clients got was, by audits: parity of one bundle, and of a task under it beside the floor."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from router.contracts.decision import Tier
from router.contracts.definitions import parity, student_share
from router.contracts.records import Record
from router.policy.objective import Parity
from router.scoring.statistics.estimates import exact_interval

MOST_AUDITS = 1_000_000
Verdict = Literal["kept", "broken", "unknown"]


@dataclass(frozen=True, slots=True)
class ParityShare:
    """Share of the traffic for which the client got what is as good as the teacher's answer.

    It lies between ``low`` and ``high``, exactly; ``estimate`` is None where the student serves and none of its
    answers was judged. ``audits`` are those with a verdict, ``student_served`` of what the student answered, of which
    ``unacceptable``.
    """

    audits: int
    student_served: int
    unacceptable: int
    estimate: float | None
    low: float
    high: float

    def as_dict(self) -> dict[str, Any]:
        return {
            "audits": self.audits,
            "student_audits": self.student_served,
            "unacceptable": self.unacceptable,
            "estimate": self.estimate,
            "low": self.low,
            "high": self.high,
        }


@dataclass(frozen=True, slots=True)
class FloorFinding:
    """A floor beside what audits show, each bound at the floor's own confidence: is it ``kept``, ``broken``, or is that
    ``unknown``? Then about how many ``more`` audits of the student's answers tell, if they are like these; None:
    more than anybody makes."""

    verdict: Verdict
    found: ParityShare
    more: int | None = 0

    def as_dict(self) -> dict[str, Any]:
        return {"floor": self.verdict, "more_audits": self.more, **self.found.as_dict()}


@dataclass(slots=True)
class Quality:
    """The traffic of one bundle, or a part of it, as far as parity goes by it."""

    answered: Counter[Tier] = field(default_factory=Counter)
    audits: Counter[tuple[Tier, bool]] = field(default_factory=Counter)
    good: float = 0.0
    bad: float = 0.0
    squares: float = 0.0

    def add(self, record: Record) -> None:
        """Counts one record; one that is no traffic, or that nobody answered, counts nothing."""
        if (tier := record.counts_for) is None:
            return
        self.answered[tier] += 1
        audit = record.audit
        if audit is None or audit.missed or audit.acceptable is None:
            return
        self.audits[tier, audit.acceptable] += 1
        if tier is Tier.STUDENT:
            self.good += record.stands_for if audit.acceptable else 0.0
            self.bad += 0.0 if audit.acceptable else record.stands_for
            self.squares += record.stands_for**2

    @property
    def share(self) -> float:
        return student_share(self.answered)

    @property
    def risk(self) -> float | None:
        """Of what the student answered, the part that is not as good; None where nothing was judged."""
        judged = self.good + self.bad
        return self.bad / judged if judged else None

    @property
    def effective(self) -> float:
        """How many audits of the student's answers, drawn at one rate, would tell as much (Kish 1965)."""
        return (self.good + self.bad) ** 2 / self.squares if self.squares else 0.0

    def parity(self, confidence: float = 0.95) -> ParityShare:
        """With its two-sided interval at ``confidence``: the share is known, so it is the risk's exact one."""
        low, high = exact_interval(self.risk or 0.0, self.effective, confidence)
        served = {ok: self.audits[Tier.STUDENT, ok] for ok in (True, False)}
        bounds = (1 - self.share * high, 1 - self.share * low) if self.share else (1.0, 1.0)
        total, mine = sum(self.audits.values()), sum(served.values())
        return ParityShare(total, mine, served[False], parity(self.share, self.risk), *bounds)

    def beside(self, floor: Parity) -> FloorFinding:
        """What is known of the floor here, taken alone."""
        both = 2 * floor.confidence - 1
        found = self.parity(both)
        if found.low >= floor.at_least:
            return FloorFinding("kept", found)
        if found.high < floor.at_least:
            return FloorFinding("broken", found)
        return FloorFinding("unknown", found, self._more(floor.at_least, both))

    def _more(self, least: float, confidence: float) -> int | None:
        """Audits of the student's answers until the floor is known to be kept or broken, at the rate seen; where none
        was judged, if all were good."""
        rate, have = self.risk or 0.0, self.effective

        def told(more: int) -> bool:
            low, high = exact_interval(rate, have + more, confidence)
            return 1 - self.share * high >= least or 1 - self.share * low < least

        found = bisect_left(range(MOST_AUDITS), True, key=told)
        return found if found < MOST_AUDITS else None

"""What may be spent in one UTC day, what of it is left, and the till where a policy's teachers are paid from it: what
one can cost is held before it is asked."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from decimal import Decimal

from router.backends.base import Backend
from router.contracts.decision import Tier
from router.contracts.records import Answer, Audit
from router.errors import BudgetSpent
from router.pricing import Prices
from router.routing.state.base import NANO, Account
from router.scoring.statistics.thresholds import Mean
from router.wire.ceiling import Dearest

NOTHING = Decimal(0)

DAY_SECONDS = 86_400


class Reservation:
    """Money held for one answer until it is known what that cost."""

    __slots__ = ("_budget", "_nano")

    def __init__(self, budget: DailyBudget, nano: int) -> None:
        self._budget, self._nano = budget, nano

    def settle(self, spent_usd: Decimal) -> None:
        """Gives back what was held and books what was spent, which may be more, on the day that it is now. Once."""
        self._budget.book(spent_usd, held=self._nano)


class DailyBudget:
    """Counts US dollars spent since midnight UTC against a daily cap; None: it only counts.

    What an answer can cost at most is held before it is asked for, so that many at once cannot all pass a check
    that only one should. It must fit into what is left; where it is more than that, it is let through all the same
    as long as nothing else is held: so the cap is passed by one answer at most, and small caps buy something.
    Fractions of a nano-dollar are rounded up. ``counted``: where all that spend count together.
    """

    def __init__(
        self, usd_per_day: Decimal | None, counted: Account, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.cap(usd_per_day)
        self._counted, self._clock = counted, clock

    def cap(self, usd_per_day: Decimal | None) -> None:
        """Changes the cap; what was spent stays spent."""
        self._cap = None if usd_per_day is None else _nano(usd_per_day)

    @property
    def capped(self) -> bool:
        return self._cap is not None

    @property
    def cap_usd(self) -> Decimal | None:
        return None if self._cap is None else Decimal(self._cap) / NANO

    @property
    def spent_usd(self) -> Decimal:
        return Decimal(self._counted.spent(self._today())) / NANO

    @property
    def reserved_usd(self) -> Decimal:
        return Decimal(self._counted.reserved()) / NANO

    @property
    def exhausted(self) -> bool:
        """Whether nothing at all is left today, whatever was held."""
        return self._cap is not None and self._counted.spent(self._today()) >= self._cap

    def left_today(self) -> tuple[float, float]:
        """What is not spent, in US dollars, and how many seconds of the day it has to last."""
        day, second = divmod(self._clock(), DAY_SECONDS)
        left = math.inf if self._cap is None else max(0, self._cap - self._counted.spent(int(day))) / NANO
        return left, DAY_SECONDS - second

    def affords(self, usd: Decimal) -> bool:
        """Whether ``reserve`` would hold so much now."""
        return self._cap is None or self._counted.fits(self._today(), _nano(usd), self._cap)

    def reserve(self, usd: Decimal) -> Reservation | None:
        """Holds so much until the reservation is settled; None where the cap leaves no room for it."""
        if self._cap is None:
            return Reservation(self, 0)
        nano = _nano(usd)
        return Reservation(self, nano) if self._counted.reserve(self._today(), nano, self._cap) else None

    def book(self, spent_usd: Decimal, *, held: int = 0) -> None:
        """Counts what was spent; ``held``: nano-dollars that are given back for it."""
        self._counted.settle(self._today(), held, _nano(spent_usd))

    def spent_before(self, at: float, usd: Decimal) -> None:
        """Seeds the count: what was spent on the UTC day of ``at`` (unix time) before then. Idempotent."""
        self._counted.spent_before(int(at // DAY_SECONDS), _nano(usd))

    def refusal(self, whose: str) -> BudgetSpent:
        """What to tell a client for whom nothing was held. ``whose``: the budget's owner, in words."""
        left_usd, left_seconds = self.left_today()
        seconds, again = math.ceil(left_seconds), "it is whole again at midnight UTC"
        if left_usd > 0:  # answers under way hold it, and most cost less; or what was spent before the start is unknown
            why = f"what is left of {whose} for today is held for requests under way: try again in a moment; {again}"
            return BudgetSpent(why, wait_seconds=1)
        return BudgetSpent(f"{whose} for today is spent; {again}, in {_hours(seconds)}", wait_seconds=seconds)

    def _today(self) -> int:
        return int(self._clock() // DAY_SECONDS)


def _nano(usd: Decimal) -> int:
    return math.ceil(usd * NANO)


def _hours(seconds: int) -> str:
    hours, minutes = divmod(math.ceil(seconds / 60), 60)
    return f"{hours} h {minutes:02} min"


def audit_usd(audit: Audit) -> Decimal:
    """What an audit draws on the day's cap, in US dollars: a teacher's answer, and the judge."""
    answer = audit.answer
    asked = answer.cost_usd if answer is not None and answer.tier is Tier.TEACHER else NOTHING
    return asked + audit.judge_usd


class Till:
    """One policy's. It outlives edits of the policy file. ``usual_tokens``: how long its teachers' answers are."""

    def __init__(self, budget: DailyBudget) -> None:
        self.budget = budget
        self.usual_tokens = Mean()

    def affords(self, dearest: Dearest, prices: Prices) -> bool:
        """Whether some teacher could be asked this now."""
        if not self.budget.capped:
            return True
        return any(self.budget.affords(dearest.usd(model, price)) for model, price in prices.teachers.items())

    def hold(self, backend: Backend, dearest: Dearest) -> Reservation:
        """Holds the dearest that ``backend`` can make of a request. Raises BudgetSpent where that does not fit."""
        capped = self.budget.capped and backend.price is not None
        usd = dearest.usd(backend.label, backend.price) if capped and backend.price else NOTHING
        if (held := self.budget.reserve(usd)) is None:
            raise self.budget.refusal("the budget")
        return held


def teacher_usd(answers: list[Answer]) -> Decimal:
    """US dollars that a request's answers cost at the teachers."""
    return sum((answer.cost_usd for answer in answers if answer.tier is Tier.TEACHER), NOTHING)

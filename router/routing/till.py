"""Where a policy's teachers are paid: what one can cost is held before it is asked."""

from __future__ import annotations

from decimal import Decimal

from router.backends.base import Backend
from router.contracts.decision import Tier
from router.contracts.records import Answer
from router.pricing import Prices
from router.routing.budget import DailyBudget, Reservation
from router.scoring.statistics.thresholds import Mean
from router.wire.ceiling import Dearest

NOTHING = Decimal(0)


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

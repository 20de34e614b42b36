"""Where a policy's teachers are paid: what one can cost is held before it is asked, what it did cost is booked after.

The money that is booked is that of the answers in the request's record, so a start that reads the records counts the
same. Who was asked and gave no answer may be paid all the same: a client that left, an answer that broke off or came
too late. Then the record has an answer that was thrown away, with no text and an estimated usage.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal

from router.budget import DailyBudget, Reservation
from router.contracts.decision import Tier
from router.contracts.records import Answer, Kind, Usage
from router.dearest import Dearest
from router.errors import UpstreamError, UpstreamRefused
from router.exchange import Exchange
from router.pricing import Prices
from router.scoring.thresholds import Mean
from router.upstream.base import Backend
from router.upstream.faults import surely_unpaid

NOTHING = Decimal(0)
USUAL_TOKENS = 500
"""How long a teacher's answer is taken for that never came, as long as none has come."""


class Till:
    """One policy's. It outlives edits of the policy file."""

    def __init__(self, budget: DailyBudget) -> None:
        self.budget = budget
        self._usual_tokens = Mean()

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

    @contextmanager
    def paying(self, exchange: Exchange, backend: Backend) -> Iterator[None]:
        """Around asking a teacher. Raises BudgetSpent on entering."""
        exchange.held, exchange.waited.lost = self.hold(backend, exchange.chat.dearest), 0
        known, unpaid = len(exchange.answers), False
        try:
            yield
        except (UpstreamError, UpstreamRefused) as error:
            unpaid = surely_unpaid(error)
            raise
        finally:
            if exchange.tier is Tier.TEACHER and len(exchange.answers) > known:
                self._usual_tokens.add(exchange.answers[0].usage.output_tokens)
            lost = exchange.waited.lost + (len(exchange.answers) == known and not unpaid)
            for _ in range(lost):
                exchange.answers.append(self.lost(exchange, backend, Kind.DISCARDED))
            self.settle(exchange)

    def settle(self, exchange: Exchange) -> None:
        """Books what the exchange has cost by now, and gives back what was held for it; nothing twice."""
        usd = teacher_usd(exchange.answers)
        if exchange.held is not None:
            exchange.held.settle(usd - exchange.booked_usd)
        elif usd > exchange.booked_usd:
            self.budget.book(usd - exchange.booked_usd)
        exchange.held, exchange.booked_usd = None, usd

    def lost(self, exchange: Exchange, backend: Backend, kind: Kind) -> Answer:
        """What stands for an answer that may be paid and never came: an input of this length, an output of the
        expected one, else of the usual one."""
        tokens = exchange.decision.teacher_tokens or self._usual_tokens.value or USUAL_TOKENS
        usage = Usage(input_tokens=exchange.features.input_tokens, output_tokens=int(tokens), estimated=True)
        answer = exchange.answered(
            backend, kind, message={}, finish_reason=None, usage=usage, model=None, seconds=exchange.elapsed
        )
        return replace(answer, message=None)


def teacher_usd(answers: list[Answer]) -> Decimal:
    """US dollars that a request's answers cost at the teachers."""
    return sum((answer.cost_usd for answer in answers if answer.tier is Tier.TEACHER), NOTHING)

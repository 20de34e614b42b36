"""A day's money: capped, and fresh at midnight UTC."""

from __future__ import annotations

from decimal import Decimal

from router.budget import DAY_SECONDS, DailyBudget


class Clock:
    now = 20_000.0 * DAY_SECONDS

    def __call__(self) -> float:
        return self.now


def test_what_is_reserved_counts_until_it_is_settled() -> None:
    budget = DailyBudget(Decimal(1))
    budget.reserve(Decimal(1))
    assert budget.exhausted
    budget.settle(Decimal(1), Decimal("0.25"))
    assert not budget.exhausted
    assert budget.spent_usd == Decimal("0.25")


def test_what_is_left_has_to_last_until_midnight() -> None:
    clock = Clock()
    budget = DailyBudget(Decimal(10), clock=clock)
    assert budget.left_today() == (10.0, DAY_SECONDS)
    budget.settle(Decimal(0), Decimal(4))
    budget.reserve(Decimal(1))
    clock.now += DAY_SECONDS / 4
    assert budget.left_today() == (5.0, 0.75 * DAY_SECONDS)
    budget.settle(Decimal(1), Decimal(8))
    assert budget.left_today() == (0.0, 0.75 * DAY_SECONDS)
    clock.now += 0.75 * DAY_SECONDS
    assert budget.left_today() == (10.0, DAY_SECONDS)


def test_a_new_day_is_a_new_budget_and_yesterdays_reservations_still_end() -> None:
    clock = Clock()
    budget = DailyBudget(Decimal(1), clock=clock)
    budget.spent_before(clock.now, Decimal(1))
    budget.reserve(Decimal("0.5"))
    assert budget.exhausted
    clock.now += DAY_SECONDS
    assert not budget.exhausted
    budget.settle(Decimal("0.5"), Decimal("0.5"))
    assert (budget.spent_usd, budget.reserved_usd) == (Decimal("0.5"), 0)


def test_no_money_buys_nothing() -> None:
    budget = DailyBudget(Decimal(0))
    assert budget.exhausted
    assert budget.left_today()[0] == 0

"""A day's money: capped, and fresh at midnight UTC."""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal

import pytest

from router.routing.budget import DAY_SECONDS, DailyBudget, Reservation
from router.routing.state.machine import MachineState


class Clock:
    now = 20_000.0 * DAY_SECONDS

    def __call__(self) -> float:
        return self.now


def budget_of(usd_per_day: Decimal | None, clock: Callable[[], float] = time.time) -> DailyBudget:
    return DailyBudget(usd_per_day, MachineState().account("served"), clock=clock)


def held(budget: DailyBudget, usd: str) -> Reservation:
    found = budget.reserve(Decimal(usd))
    assert found is not None
    return found


def test_what_is_held_leaves_no_room_until_it_is_settled() -> None:
    budget = budget_of(Decimal(1))
    first = held(budget, "0.75")
    assert budget.reserve(Decimal("0.5")) is None
    assert not budget.affords(Decimal("0.5"))
    first.settle(Decimal("0.25"))
    assert budget.affords(Decimal("0.5"))
    held(budget, "0.5").settle(Decimal("0.5"))
    assert (budget.spent_usd, budget.reserved_usd) == (Decimal("0.75"), 0)


def test_what_never_fits_is_let_through_alone_so_the_cap_is_passed_by_one_at_most() -> None:
    budget = budget_of(Decimal(1))
    for _ in range(4):
        one = held(budget, "9")
        assert budget.reserve(Decimal("9")) is None
        assert budget.reserve(Decimal("0.1")) is None
        one.settle(Decimal("0.3"))
    assert budget.exhausted
    assert budget.reserve(Decimal("0.1")) is None
    assert budget.spent_usd == Decimal("1.2")


def test_without_a_cap_all_is_held_and_what_was_spent_counts_once_there_is_one() -> None:
    budget = budget_of(None)
    held(budget, "1000").settle(Decimal(7))
    assert not budget.exhausted and budget.left_today()[0] > 10**9
    budget.cap(Decimal(7))
    assert budget.exhausted and budget.reserve(Decimal(0)) is not None, "what costs nothing may always"


def test_what_is_left_has_to_last_until_midnight() -> None:
    clock = Clock()
    budget = budget_of(Decimal(10), clock)
    assert budget.left_today() == (10.0, DAY_SECONDS)
    budget.book(Decimal(4))
    clock.now += DAY_SECONDS / 4
    assert budget.left_today() == (6.0, 0.75 * DAY_SECONDS)
    budget.book(Decimal(8))
    assert budget.left_today() == (0.0, 0.75 * DAY_SECONDS)
    clock.now += 0.75 * DAY_SECONDS
    assert budget.left_today() == (10.0, DAY_SECONDS)


def test_what_was_held_yesterday_is_booked_on_the_day_it_is_known() -> None:
    clock = Clock()
    budget = budget_of(Decimal(1), clock)
    budget.spent_before(clock.now, Decimal("0.4"))
    late = held(budget, "0.5")
    clock.now += DAY_SECONDS
    assert budget.reserve(Decimal("0.6")) is None, "it is held across midnight"
    late.settle(Decimal("0.5"))
    assert (budget.spent_usd, budget.reserved_usd) == (Decimal("0.5"), 0)


@pytest.mark.parametrize("days", [0.01, 1, 3, 20_000])
def test_a_clock_that_steps_back_and_forward_again_loses_and_doubles_nothing(days: float) -> None:
    clock = Clock()
    budget = budget_of(Decimal(1), clock)
    budget.book(Decimal("0.3"))
    under_way = held(budget, "0.2")
    clock.now -= days * DAY_SECONDS
    assert budget.spent_usd == Decimal("0.3")
    under_way.settle(Decimal("0.2"))
    budget.book(Decimal("0.1"))
    assert budget.spent_usd == Decimal("0.6")
    clock.now += days * DAY_SECONDS
    assert budget.spent_usd == Decimal("0.6")
    clock.now += DAY_SECONDS
    assert budget.spent_usd == 0


def test_who_is_refused_is_told_when_there_is_money_again() -> None:
    clock = Clock()
    clock.now += DAY_SECONDS - 3_661.5
    budget = budget_of(Decimal(1), clock)
    held(budget, "1")
    soon = budget.refusal("the budget")
    assert (soon.status, soon.code, soon.headers()) == (429, "insufficient_quota", [(b"retry-after", b"1")])
    budget.book(Decimal(1))
    spent = budget.refusal("the budget")
    assert spent.headers() == [(b"retry-after", b"3662")]
    assert "midnight UTC, in 1 h 02 min" in str(spent)


def test_an_amount_beyond_all_sense_counts_as_very_much_and_breaks_nothing() -> None:
    budget = budget_of(Decimal(1))
    for _ in range(3):
        if (reservation := budget.reserve(Decimal(10) ** 40)) is not None:
            reservation.settle(Decimal(10) ** 60)
    assert budget.exhausted and budget.reserved_usd == 0


def test_no_money_buys_nothing() -> None:
    budget = budget_of(Decimal(0))
    assert budget.exhausted and budget.reserve(Decimal("0.000000001")) is None
    assert budget.left_today()[0] == 0

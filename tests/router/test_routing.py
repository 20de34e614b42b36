"""What deciding remembers from request to request: how a day's money is spent, and by how many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from router.budget import DAY_SECONDS
from router.bundles import Live
from router.contracts.decision import Reason, Tier
from router.contracts.records import Record
from router.exchange import ChatRequest
from router.policy import Policy
from router.routing import Routing
from router.shared import SharedState, create
from router.students import Target

MakeRecord = Callable[..., Record]
ANSWER_USD = Decimal("0.01")
QUESTIONS = ("what is a card", "why is the fee so high and how was it computed, step by step", "prove the theorem")


class Clock:
    now = 20_000.0 * DAY_SECONDS

    def __call__(self) -> float:
        return self.now


def policy(usd_per_day: float) -> Policy:
    return Policy.model_validate(
        {
            "name": "p",
            "student": {"model": "s", "engine": "embedded", "usd_per_million": {"input": 0, "output": 0}},
            "teacher": {"model": "t", "url": "http://127.0.0.1:9/v1", "usd_per_million": {"input": 1, "output": 1}},
            "objective": {"usd_per_day": usd_per_day},
            "audit": {"explore": 0},
        }
    )


def spent_by_noon(routings: list[Routing], clock: Clock, make_record: MakeRecord) -> tuple[float, dict[Reason, int]]:
    """Sends 1,200 requests, evenly over half a day and the workers; what the teacher's answers cost, and why."""
    live, usd, reasons = Live(student=Target("http://127.0.0.1:7/v1", "s", "s")), Decimal(0), dict.fromkeys(Reason, 0)
    for n in range(1200):
        clock.now += DAY_SECONDS / 2400
        routing = routings[n % len(routings)]
        body = {"messages": [{"role": "user", "content": f"{QUESTIONS[n * 7 % 3]} {1000 + n}"}]}
        _, decision = routing.decide(ChatRequest(f"r-{n}", f"c-{n}", body), live)
        reasons[decision.reason] += 1
        record = make_record(f"r-{n}", tier=decision.tier, reason=decision.reason, decision=decision)
        cost = ANSWER_USD if decision.tier is Tier.TEACHER else Decimal(0)
        routing.learn(replace(record, answers=[replace(a, cost_usd=cost) for a in record.answers]))
        usd += cost
    return float(usd), reasons


@pytest.mark.parametrize("usd_per_day", [4.0, 12.0])
@pytest.mark.parametrize("workers", [1, 3])
def test_half_the_money_is_spent_by_noon_and_no_request_is_refused_the_teacher_for_want_of_it(
    usd_per_day: float, workers: int, make_record: MakeRecord, tmp_path: Path
) -> None:
    clock = Clock()
    with create(tmp_path, workers) as file:
        states = [SharedState(file.fileno(), slot, clock) for slot in range(workers)]
        routings = [Routing(policy(usd_per_day), state, clock=clock) for state in states]
        usd, reasons = spent_by_noon(routings, clock, make_record)
    assert usd == pytest.approx(usd_per_day / 2, rel=0.1)
    assert reasons[Reason.SCORE] == 1200


def test_money_for_all_sends_all_to_the_teacher_and_none_sends_none(make_record: MakeRecord) -> None:
    for usd_per_day, least, most in ((1000.0, 11.5, 12.0), (0.0, 0.0, 0.0)):
        clock = Clock()
        routing = Routing(policy(usd_per_day), SharedState(clock=clock), clock=clock)
        assert least <= spent_by_noon([routing], clock, make_record)[0] <= most

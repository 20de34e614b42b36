"""What deciding remembers from request to request: how a day's money is spent, and by how many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from router.bundles.students import StudentTarget
from router.bundles.watcher import LiveBundle
from router.contracts.bundles import Thresholds
from router.contracts.decision import Decision, Reason, Tier
from router.contracts.records import Record
from router.policy.policy import Policy
from router.routing.budget import DAY_SECONDS
from router.routing.policy_state import RoutingState, look_at
from router.routing.state.base import Quantile
from router.routing.state.machine import MachineState, create
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.text.features import extract
from router.wire.chat import ChatRequest

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


def spent_by_noon(
    routings: list[RoutingState], clock: Clock, make_record: MakeRecord
) -> tuple[float, dict[Reason, int]]:
    """Sends 1,200 requests, evenly over half a day and the workers; what the teacher's answers cost, and why."""
    live, usd, reasons = (
        LiveBundle(student=StudentTarget("http://127.0.0.1:7/v1", "s", "s")),
        Decimal(0),
        dict.fromkeys(Reason, 0),
    )
    for n in range(1200):
        clock.now += DAY_SECONDS / 2400
        routing = routings[n % len(routings)]
        body = {"messages": [{"role": "user", "content": f"{QUESTIONS[n * 7 % 3]} {1000 + n}"}]}
        decision = routing.decide(ChatRequest(f"r-{n}", f"c-{n}", body), live, look_at(body, live.scorer))
        reasons[decision.reason] += 1
        record = make_record(f"r-{n}", tier=decision.tier, reason=decision.reason, decision=decision)
        cost = ANSWER_USD if decision.tier is Tier.TEACHER else Decimal(0)
        routing.till.budget.book(cost)
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
        states = [MachineState(file.fileno(), slot, clock) for slot in range(workers)]
        states[0].know_spending()
        routings = [RoutingState(policy(usd_per_day), state, clock=clock) for state in states]
        usd, reasons = spent_by_noon(routings, clock, make_record)
    assert usd == pytest.approx(usd_per_day / 2, rel=0.1)
    assert reasons[Reason.SCORE] == 1200


def test_money_for_all_sends_all_to_the_teacher_and_none_sends_none(make_record: MakeRecord) -> None:
    for usd_per_day, least, most in ((1000.0, 11.5, 12.0), (0.0, 0.0, 0.0)):
        clock = Clock()
        routing = RoutingState(policy(usd_per_day), MachineState(clock=clock), clock=clock)
        assert least <= spent_by_noon([routing], clock, make_record)[0] <= most


KINDS = {
    "greet": ("say hello to {} kindly", 1.0, 1.0, 20),
    "tax": ("which tax is due on {}?", 0.3, 0.9, 30),
    "prove": ("prove that {} holds:\n```latex\n\\sum_{{i=1}}^{{n}} x_i^2 = 0\n```", 0.3, 0.9, 900),
    "riddle": ("what am I, {}, if not myself!?", 0.1, 0.1, 40),
}
"""Of each kind: what is asked, how often the student and the teacher are right, how long the teacher's answer is."""
ANY = Thresholds(route=0.5, accept=0.0)


def asked(kind: str, rng: np.random.Generator) -> dict[str, object]:
    word = " ".join(rng.choice(["amber", "birch", "cedar", "dune", "ember", "fjord"], 2).tolist())
    return {"messages": [{"role": "user", "content": KINDS[kind][0].format(word)}]}


@pytest.fixture(scope="module")
def two_headed() -> Scorer:
    rng, made = np.random.default_rng(0), []
    for kind in rng.choice(list(KINDS), 600).tolist():
        _, *rates, tokens = KINDS[kind]
        student, teacher = (bool(rng.uniform() < rate) for rate in rates)
        made.append(
            Example(
                extract(asked(kind, rng)),
                None,
                student or not teacher,
                student=student,
                teacher=teacher,
                teacher_tokens=int(tokens * rng.uniform(0.8, 1.2)),
            )
        )
    return Scorer.fit(made, None)


def escalated(
    scorer: Scorer, objective: dict[str, object], make_record: MakeRecord
) -> tuple[dict[str, float], Decision]:
    """Of each kind the share that went to the teacher, of the last 800 of 1,600 requests over a day; a decision."""
    clock = Clock()
    changed = policy(0).model_dump(exclude_none=True) | {"objective": objective}
    routing = RoutingState(Policy.model_validate(changed), MachineState(clock=clock), clock=clock)
    live = LiveBundle(
        bundle="b", student=StudentTarget("http://127.0.0.1:7/v1", "s", "s"), scorer=scorer, thresholds=ANY
    )
    rng, found = np.random.default_rng(1), {kind: list[bool]() for kind in KINDS}
    for n, kind in enumerate(rng.choice(list(KINDS), 1600).tolist()):
        clock.now += DAY_SECONDS / 1700
        body = asked(kind, rng)
        decision = routing.decide(ChatRequest(f"r-{n}", f"c-{n}", body), live, look_at(body, scorer))
        record = make_record(f"r-{n}", tier=decision.tier, reason=decision.reason, decision=decision)
        cost = Decimal(KINDS[kind][3]) / 10**6 if decision.tier is Tier.TEACHER else Decimal(0)
        routing.till.budget.book(cost)
        routing.learn(replace(record, answers=[replace(a, cost_usd=cost) for a in record.answers]))
        if n >= 800:
            found[kind].append(decision.tier is Tier.TEACHER)
    return {kind: float(np.mean(went)) for kind, went in found.items()}, decision


def test_a_share_goes_where_escalating_gains_most_and_not_where_both_are_wrong(
    two_headed: Scorer, make_record: MakeRecord
) -> None:
    went, decision = escalated(two_headed, {"student_share": 0.5}, make_record)
    assert min(went["tax"], went["prove"]) > 0.9
    assert max(went["greet"], went["riddle"]) < 0.1, "nobody knows the riddles, so the teacher's word is worth nothing"
    assert decision.gain is not None and decision.worth is not None and decision.score is not None


def test_a_days_money_goes_first_where_it_gains_most_for_its_cost(two_headed: Scorer, make_record: MakeRecord) -> None:
    went, decision = escalated(two_headed, {"usd_per_day": 0.012 + 0.036}, make_record)
    assert went["tax"] > 0.9, "as much is gained as by a proof, for a thirtieth of the money"
    assert 0.02 < went["prove"] < 0.4
    assert max(went["greet"], went["riddle"]) < 0.2
    assert decision.teacher_tokens is not None and decision.worth is not None


def test_a_floor_and_a_fixed_threshold_are_held_against_the_score(two_headed: Scorer, make_record: MakeRecord) -> None:
    objectives: list[dict[str, object]] = [{"threshold": 0.6}, {"parity": {"at_least": 0.95}}]
    for objective in objectives:
        _, decision = escalated(two_headed, objective, make_record)
        assert decision.worth is None and decision.gain is not None


def test_a_canary_and_what_is_live_keep_the_share_each_by_its_own_scores(two_headed: Scorer) -> None:
    changed = policy(0).model_dump(exclude_none=True) | {"objective": {"student_share": 0.5}}
    routing = RoutingState(Policy.model_validate(changed), MachineState())
    target = StudentTarget("http://127.0.0.1:7/v1", "s", "s")
    lives = [
        LiveBundle(bundle="b", student=target, scorer=two_headed, thresholds=ANY),
        LiveBundle(
            bundle="c",
            student=target,
            scorer=Scorer.fit([Example(extract(asked("tax", np.random.default_rng(0))), None, True)] * 8, None),
            thresholds=ANY,
        ),
    ]
    rng, followed = np.random.default_rng(1), []
    for n, kind in enumerate(rng.choice(list(KINDS), 800).tolist()):
        body, live = asked(kind, rng), lives[n % 2]
        decision = routing.decide(ChatRequest(f"r-{n}", f"c-{n}", body), live, look_at(body, live.scorer))
        if n >= 400 and n % 2 == 0:
            followed.append(decision.tier is Tier.STUDENT)
    assert np.mean(followed) == pytest.approx(0.5, abs=0.1)


def test_scores_are_followed_where_the_state_says_under_one_name_for_all_that_serve_a_policy() -> None:
    class Together(MachineState):
        followed: ClassVar[dict[tuple[str, ...], Quantile]] = {}

        def quantile(self, *name: str) -> Quantile:
            return self.followed.setdefault(name, super().quantile(*name))

    changed = policy(0).model_dump(exclude_none=True) | {"objective": {"student_share": 0.5}}
    routings = [RoutingState(Policy.model_validate(changed), Together()) for _ in range(2)]
    live = LiveBundle(student=StudentTarget("http://127.0.0.1:7/v1", "s", "s"))
    for n in range(40):
        body = {"messages": [{"role": "user", "content": QUESTIONS[n % 3]}]}
        routings[n % 2].decide(ChatRequest(f"r-{n}", f"c-{n}", body), live, look_at(body, None))
    assert list(Together.followed) == [("p", "prior")]
    alone = RoutingState(Policy.model_validate(changed), MachineState())
    asked = ChatRequest("r", "c", {"messages": [{"role": "user", "content": QUESTIONS[0]}]})
    seen = look_at(asked.body, None)
    assert routings[0].decide(asked, live, seen).threshold != alone.decide(asked, live, seen).threshold


def test_a_canarys_requests_are_audited_at_its_own_rate_and_that_is_what_is_logged(two_headed: Scorer) -> None:
    routing = RoutingState(policy(5.0), MachineState())
    body = {"messages": [{"role": "user", "content": "hello"}]}
    rates = []
    for rate in (0.0, 0.7):
        live = LiveBundle("b", two_headed, ANY, StudentTarget("http://127.0.0.1:7/v1", "s", "s"), audit_rate=rate)
        decisions = [
            routing.decide(ChatRequest(f"r-{n}", "c", body), live, look_at(body, two_headed)) for n in range(200)
        ]
        rates.append({d.propensity for d in decisions})
        assert sum(d.audited for d in decisions) == pytest.approx(200 * decisions[0].propensity, abs=25)
    assert rates == [{policy(5.0).audit.rate}, {0.7}]

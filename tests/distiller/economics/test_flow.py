"""What traffic cost and saved, by who served, checked by hand; and when the next round is weighed."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from distiller.economics.flow import Flow, Rates, flow_of
from distiller.economics.scales import Scales
from distiller.home import RoundKind, remember
from distiller.rounds.trigger import Tally, due
from router.contracts.decision import Decision, Reason, Tier
from router.contracts.guard_report import GuardReport
from router.contracts.prices import Price, TierPrice
from router.contracts.records import Answer, AnswerKind, Audit, Record, Usage
from router.contracts.rounds import CANARY
from router.policy.policy import Policy
from router.settings import Settings
from router.store.access import open_store

DAY = 86_400.0
STUDENT, TEACHER = Price(input=Decimal("0.1"), output=Decimal("0.1")), Price(input=Decimal(1), output=Decimal(4))
RATES = Rates(STUDENT)


def answer(tier: Tier, kind: AnswerKind, usd: str) -> Answer:
    usage = Usage(input_tokens=1000, output_tokens=500)
    return Answer(tier=tier, kind=kind, model="m", usage=usage, cost_usd=Decimal(usd), finish_reason="stop")


def record(n: int, tier: Tier, *, at: float = 0.0, more: tuple[Answer, ...] = (), audit: Audit | None = None) -> Record:
    """The student's answers cost 0.00015, the teacher's 0.003."""
    usd = "0.00015" if tier is Tier.STUDENT else "0.003"
    return Record(
        request_id=f"r-{n}",
        conversation_id=f"c-{n}",
        created_at=at,
        policy="p",
        policy_version="1",
        features_version="1",
        decision=Decision(tier=tier, reason=Reason.SCORE),
        tier=tier,
        reason=Reason.SCORE,
        answers=[answer(tier, AnswerKind.SERVED, usd), *more],
        counterfactual_usd=Decimal("0.003"),
        audit=audit,
    )


def traffic() -> list[Record]:
    """Over two days 4 requests that the student served, one of them audited by the teacher, and 6 that the teacher
    did, two of them after the student's answer was thrown away."""
    audit = Audit(answer=answer(Tier.TEACHER, AnswerKind.AUDITED, "0.003"), acceptable=True, judge_usd=Decimal("0.001"))
    made = [record(n, Tier.STUDENT, at=n * DAY / 5, audit=audit if n == 0 else None) for n in range(4)]
    thrown = (answer(Tier.STUDENT, AnswerKind.DISCARDED, "0.00015"),)
    made += [record(n, Tier.TEACHER, at=(n - 3) * DAY / 3, more=thrown if n < 6 else ()) for n in range(4, 10)]
    return made


def test_everything_that_was_spent_is_in_the_saving() -> None:
    flow = flow_of(traffic(), RATES)
    assert (flow.requests, flow.share, flow.days, flow.requests_per_day) == (10, 0.4, 2.0, 5.0)
    assert flow.alone == Decimal("0.030")
    assert flow.spent == Decimal("0.0006") + Decimal("0.018") + Decimal("0.004") + Decimal("0.0003")
    assert flow.saved_per_request == (Decimal("0.030") - Decimal("0.0229")) / 10
    assert flow.by_kind[AnswerKind.AUDITED] == Decimal("0.003") and flow.by_kind[AnswerKind.JUDGED] == Decimal("0.001")


def test_one_request_more_for_the_student_is_worth_the_teachers_answer_less_its_own_and_its_audits() -> None:
    flow = flow_of(traffic(), RATES)
    # 0.003 + the thrown-away answers' 0.0003 / 6, less the same tokens at 0.1: 0.00015, less a tenth audited
    assert flow.moved_per_request(0.1) == Decimal("0.003") + Decimal("0.00005") - Decimal("0.00015") - Decimal("0.0003")
    assert flow_of([], RATES).moved_per_request(0.1) == 0


def test_where_the_student_serves_enough_its_audits_are_taken_as_they_were() -> None:
    audit = Audit(answer=answer(Tier.TEACHER, AnswerKind.AUDITED, "0.003"), acceptable=True)
    made = [record(n, Tier.STUDENT, audit=audit if n < 6 else None) for n in range(30)]
    flow = flow_of([*made, record(30, Tier.TEACHER)], RATES)
    assert flow.moved_per_request(0.9) == Decimal("0.003") - Decimal("0.00015") - 6 * Decimal("0.003") / 30


def test_other_prices_are_reckoned_from_the_tokens() -> None:
    dear = Price(input=Decimal(10), output=Decimal(40))
    flow = flow_of(traffic(), Rates(STUDENT, student_given=True, teacher=dear))
    assert flow.alone == 10 * Decimal("0.03")
    assert flow.by_kind[AnswerKind.AUDITED] == Decimal("0.03")
    assert flow.by_kind[AnswerKind.SERVED] == 4 * Decimal("0.00015") + 6 * Decimal("0.03")


def test_a_bill_of_the_providers_own_is_what_was_spent_and_no_other_price_is_lost_to_it() -> None:
    """With a tier and a cache that the bill has in it already."""
    billed = Usage(
        input_tokens=1000, output_tokens=500, cached_input_tokens=900, service_tier="flex", billed_usd=Decimal("0.0007")
    )
    records = traffic()
    for made in records:
        if made.tier is Tier.TEACHER:
            made.answers[0].usage, made.answers[0].cost_usd = billed, Decimal("0.0007")
            made.counterfactual_usd = Decimal("0.0007")
    flow = flow_of(records, RATES)
    assert flow.own[Tier.TEACHER] == 6 * Decimal("0.0007")
    assert flow.alone == 6 * Decimal("0.0007") + 4 * Decimal("0.003")
    assert flow.swapped == 6 * Decimal("0.00015"), "the same tokens at the student's price, whoever billed them"
    tiers = {"flex": TierPrice(input=Decimal("0.5"), output=Decimal(2), cached_input=Decimal("0.1"))}
    given = Price(input=Decimal(1), output=Decimal(4), tiers=tiers)
    other = flow_of(records, Rates(STUDENT, teacher=given))
    each = (100 * Decimal("0.5") + 900 * Decimal("0.1") + 500 * 2) / 10**6
    assert other.own[Tier.TEACHER] == 6 * each
    assert other.alone == 6 * each + 4 * Decimal("0.003")


def test_a_saving_may_be_a_loss() -> None:
    costly = Rates(Price(input=Decimal(5), output=Decimal(5)), student_given=True)
    assert flow_of(traffic(), costly).saved_per_request < 0
    assert flow_of(traffic(), costly).moved_per_request(0.0) < 0


def test_unanswered_requests_count_nothing() -> None:
    flow = Flow()
    lost = record(0, Tier.TEACHER)
    lost.tier, lost.answers = None, []
    flow.add(lost, RATES)
    assert (flow.requests, flow.spent) == (0, 0)


def policy(**changes: Any) -> Policy:
    values: dict[str, Any] = {
        "name": "p",
        "student": {"model": "s", "engine": "embedded", "usd_per_million": {"input": "0.1", "output": "0.1"}},
        "teacher": {"model": "t", "usd_per_million": {"input": 1, "output": 4}},
        "objective": {"parity": {}},
        "audit": {"rate": 0, "explore": 0},
        "distil": {"min_new_records": 500, "usd_per_hour": 1, "payback_days": 30},
    }
    return Policy.model_validate(values | changes)


def line(before: float, after: float, bundle: str | None = "b-1") -> dict[str, Any]:
    tally = {"seq": 1, "trainable": 500, "audited": 100, "acceptable": 90, "strange": 0}
    return {
        "kind": "train", "at": 1.0, "bundle": bundle, "counts": {"train": 500}, "incumbent_share": before,
        "share": after, "seconds": {"train": 3600.0}, "cost_usd": "1", "paid_usd": "0", "tally": tally, "reasons": [],
    }  # fmt: skip


NOW = 10 * DAY


def logged(folder: Path, records: list[Record], *lines: dict[str, Any]) -> Settings:
    settings = Settings(home=folder)
    store = open_store(settings, [policy()])

    async def write() -> None:
        for one in records:
            store.append(one)
        await store.flush()

    asyncio.run(write())
    store.close()
    for one in lines:
        remember(settings.work("p"), one)
    return settings


def week(per_day: int) -> list[Record]:
    """Seven days that the teacher served alone, up to ``NOW``."""
    n = 7 * per_day
    return [record(i, Tier.TEACHER, at=NOW - 7 * DAY + i * 7 * DAY / (n - 1)) for i in range(n)]


def test_a_round_is_weighed_by_the_last_week_and_the_rounds_before(tmp_path: Path) -> None:
    settings = logged(tmp_path, [record(-1, Tier.STUDENT, at=1.0), *week(10)], line(0.0, 0.0, None))
    worth = Scales(settings, lambda: NOW).worth(policy())
    assert worth is not None
    assert worth.cost == 1
    # a fifth of a round beside one that closed nothing: a tenth of all requests, of 10 a day, each worth 0.00285
    assert float(worth.usd_per_day[0]) == pytest.approx(0.1 * 10 * 0.00285)
    assert not worth.pays
    assert "not worth it within 30 days" in worth.why


def test_what_the_canary_rolled_back_closed_nothing(tmp_path: Path) -> None:
    undone = {"kind": CANARY, "bundle": "b-1", "began_at": 1.0, "at": 2.0, "kept": False, "cost_usd": "0"}
    before = Scales(logged(tmp_path / "a", week(10), line(0.0, 0.5)), lambda: NOW).worth(policy())
    after = Scales(logged(tmp_path / "b", week(10), line(0.0, 0.5), undone), lambda: NOW).worth(policy())
    assert before is not None and after is not None
    assert after.usd_per_day[0] < before.usd_per_day[0]


def test_nothing_is_weighed_that_costs_nothing_or_that_nobody_can_tell(tmp_path: Path) -> None:
    scales = Scales(logged(tmp_path, week(10), line(0.0, 0.0, None)), lambda: NOW)
    assert scales.worth(policy(distil={"min_new_records": 500})) is None
    assert scales.worth(policy(objective={"student_share": 0.5})) is None
    first = Scales(logged(tmp_path / "first", week(10)), lambda: NOW)
    assert first.worth(policy()) is None  # the first round tells what one costs


def test_the_log_is_read_once_an_hour(tmp_path: Path) -> None:
    now = [NOW]
    scales = Scales(logged(tmp_path, week(10), line(0.0, 0.0, None)), lambda: now[0])
    first = scales.worth(policy())
    now[0] = NOW + 6 * DAY
    assert scales.worth(policy()) != first
    again = scales.worth(policy())
    now[0] += 60.0
    assert scales.worth(policy()) is again


def test_watch_trains_nothing_that_does_not_pay_and_says_why(tmp_path: Path) -> None:
    worth = Scales(logged(tmp_path, week(10), line(0.0, 0.0, None)), lambda: NOW).worth(policy())
    rounds, tally = [line(0.0, 0.0, None)], Tally(9, 1200, 110, 90)
    assert due(policy(), tally, rounds)[0] is RoundKind.TRAIN
    wanted, why = due(policy(), tally, rounds, None, worth)
    assert wanted is None
    assert why.startswith("700 new trainable records, but a round would cost 1.00 USD and save 0.00")
    assert (
        due(policy(), Tally(9, 1200, 160, 90), rounds, None, worth)[0] is RoundKind.CALIBRATE
    )  # that still may be due
    broke = GuardReport(bundle="b", changed_at=2.0, route=1.01, accept=1.01)
    assert due(policy(), tally, rounds, broke, worth)[0] is RoundKind.TRAIN  # quality goes before money


def test_watch_trains_what_pays(tmp_path: Path) -> None:
    worth = Scales(logged(tmp_path, week(300), line(0.0, 0.5)), lambda: NOW).worth(policy())
    assert worth is not None and worth.pays
    assert due(policy(), Tally(9, 1200, 110, 90), [line(0.0, 0.5)], None, worth)[0] is RoundKind.TRAIN

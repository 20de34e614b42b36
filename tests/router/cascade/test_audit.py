"""Audits: both tiers answer, the pair is judged, the record amended, and what is missed says why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from router.cascade.audit import Auditor, MissReason, Quiet
from router.contracts.decision import Decision, Reason, Tier
from router.contracts.records import Answer, AnswerKind, Audit, Record
from router.errors import JudgeError, LocumError, UpstreamRefused, UpstreamTimeout
from router.judges.base import Means, ModelReply
from router.judges.judge import Judges
from router.metrics.labels import MISSED
from router.policy.judges import Feedback, Llm
from router.policy.policy import Policy
from router.routing.budget import DailyBudget, audit_usd
from router.routing.state.machine import MachineState
from router.settings import Settings
from router.store.access import open_store
from router.store.base import Store

STUDENT, TEACHER = Tier.STUDENT, Tier.TEACHER
MakeRecord = Callable[..., Record]
Ask = Callable[[Tier, str], Awaitable[Answer]]


def policy(**audit: Any) -> Policy:
    return Policy.model_validate(
        {
            "name": "default",
            "student": {"model": "s", "engine": "embedded", "usd_per_million": {"input": 0, "output": 0}},
            "teacher": {"model": "t"},
            "objective": {"parity": {}},
            "audit": audit,
        }
    )


def answer(
    tier: Tier, text: str, finish: str | None = "stop", usd: str = "0.001", kind: AnswerKind = AnswerKind.AUDITED
) -> Answer:
    message = {"role": "assistant", "content": text}
    return Answer(tier=tier, kind=kind, model="m", message=message, finish_reason=finish, cost_usd=Decimal(usd))


def says(text: str, usd: str = "0.001") -> Ask:
    async def ask(tier: Tier, request: str) -> Answer:
        return answer(tier, text, usd=usd)

    return ask


async def never(tier: Tier, request: str) -> Answer:
    raise AssertionError("nobody was to be asked")


async def waits_for_ever(tier: Tier, request: str) -> Answer:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(Settings(home=tmp_path), [policy()])
    yield opened
    opened.close()


class Told(list[Audit]):
    """Every outcome, in the order told."""

    def __init__(self, expected: int = 0) -> None:
        super().__init__()
        self.expected, self.reached = expected, asyncio.Event()

    def __call__(self, record: Record, audit: Audit) -> None:
        self.append(audit)
        if len(self) == self.expected:
            self.reached.set()


def counted(usd_per_day: Decimal | None) -> DailyBudget:
    return DailyBudget(usd_per_day, MachineState().account("audited"))


@asynccontextmanager
async def auditing(
    store: Store,
    ask: Ask,
    *,
    judges: Judges | None = None,
    ready: bool = True,
    quiet: Quiet | None = None,
    capacity: int = 256,
    expected: int = 0,
    dearest: Decimal = Decimal(0),
    lost: Answer | None = None,
    budget: DailyBudget | None = None,
    **audit: Any,
) -> AsyncIterator[tuple[Auditor[str], Told]]:
    told, declared = Told(expected), policy(**audit)
    auditor: Auditor[str] = Auditor(
        declared,
        ask=ask,
        judges=judges or Judges(declared.judge),
        store=store,
        student_ready=lambda: ready,
        observe=told,
        quiet=quiet or Quiet(),
        capacity=capacity,
        dearest=lambda _: dearest,
        lost=lambda _: lost,
        budget=budget or counted(declared.audit.usd_per_day),
    )
    yield auditor, told
    await auditor.close(drain_seconds=5)


def served(make_record: MakeRecord, tier: Tier, text: str = "Card arrival", **changes: Any) -> Record:
    """A drawn request that this tier answered."""
    id = changes.pop("id", "r-1")
    decision = Decision(tier=tier, reason=changes.pop("decided", Reason.SCORE), audited=True, propensity=0.02)
    given = changes.pop("answers", [answer(tier, text, kind=AnswerKind.SERVED)])
    return make_record(id, tier=tier, decision=decision, answers=given, **changes)


async def outcome(store: Store, told: Told, id: str = "r-1") -> Audit:
    """The one outcome that was told, which must be the one that was stored."""
    await store.flush()
    found = store.get(id)
    assert found is not None
    assert found.audit == told[-1]
    assert len(told) == 1
    return told[0]


@pytest.mark.parametrize(("text", "acceptable"), [("card arrival.", True), ("card lost", False)])
@pytest.mark.parametrize("tier", [STUDENT, TEACHER])
async def test_the_other_tier_answers_and_the_pair_is_judged(
    store: Store, make_record: MakeRecord, tier: Tier, text: str, acceptable: bool
) -> None:
    record = served(make_record, tier)
    store.append(record)
    async with auditing(store, says(text)) as (auditor, told):
        auditor.submit(record, "request")
    audit = await outcome(store, told)
    assert (audit.acceptable, audit.judge, audit.missed) == (acceptable, "normalised", None)
    assert audit.answer is not None
    assert audit.answer.tier is tier.other


async def test_a_deferral_that_was_seen_whole_is_a_pair_already(store: Store, make_record: MakeRecord) -> None:
    pair = [
        answer(TEACHER, "card arrival", kind=AnswerKind.SERVED),
        answer(STUDENT, "card lost", kind=AnswerKind.DISCARDED),
    ]
    record = served(make_record, TEACHER, answers=pair, reason=Reason.DEFERRAL)
    store.append(record)
    async with auditing(store, never) as (auditor, told):
        auditor.submit(record, "request")
    audit = await outcome(store, told)
    assert (audit.acceptable, audit.answer) == (False, None)


async def test_a_deferral_after_the_first_tokens_is_asked_again_whole(store: Store, make_record: MakeRecord) -> None:
    cut = [
        answer(TEACHER, "card arrival", kind=AnswerKind.SERVED),
        answer(STUDENT, "card", finish=None, kind=AnswerKind.DISCARDED),
    ]
    record = served(make_record, TEACHER, answers=cut, reason=Reason.DEFERRAL)
    store.append(record)
    async with auditing(store, says("card arrival")) as (auditor, told):
        auditor.submit(record, "request")
    assert (await outcome(store, told)).acceptable
    kept = store.get("r-1")
    assert kept is not None
    whole = kept.answer_of(STUDENT)
    assert whole is not None
    assert whole.kind is AnswerKind.AUDITED


@pytest.mark.parametrize("error", [UpstreamTimeout("slow"), UpstreamRefused("no", reply_status=400, reply_body=b"{}")])
async def test_a_failing_upstream_is_a_missed_audit(store: Store, make_record: MakeRecord, error: LocumError) -> None:
    async def fails(tier: Tier, request: str) -> Answer:
        raise error

    record = served(make_record, STUDENT)
    store.append(record)
    async with auditing(store, fails) as (auditor, told):
        auditor.submit(record, "request")
    assert (await outcome(store, told)).missed == MissReason.UPSTREAM_ERROR


async def test_our_own_failure_is_a_missed_audit_too(store: Store, make_record: MakeRecord) -> None:
    record = served(make_record, STUDENT)
    store.append(record)
    async with auditing(store, never) as (auditor, told):
        auditor.submit(record, "request")
    assert (await outcome(store, told)).missed == MissReason.INTERNAL_ERROR


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"decided": Reason.CAPABILITY}, MissReason.CAPABILITY),
        ({"reason": Reason.CAPABILITY}, MissReason.CAPABILITY),
        ({"answers": []}, MissReason.UNANSWERED),
        ({"answers": [answer(TEACHER, "cut of", finish=None)]}, MissReason.UNANSWERED),
    ],
)
async def test_where_nothing_can_be_compared_nobody_is_asked(
    store: Store, make_record: MakeRecord, changes: dict[str, Any], cause: MissReason
) -> None:
    record = served(make_record, TEACHER, **changes)
    store.append(record)
    async with auditing(store, never) as (auditor, told):
        auditor.submit(record, "request", unfit="decided" in changes)
    assert (await outcome(store, told)).missed == cause


async def test_a_student_that_is_not_there_is_not_asked(store: Store, make_record: MakeRecord) -> None:
    record = served(make_record, TEACHER)
    store.append(record)
    async with auditing(store, never, ready=False) as (auditor, told):
        auditor.submit(record, "request")
    assert (await outcome(store, told)).missed == MissReason.STUDENT_UNREADY


async def test_the_days_money_bounds_teacher_audits_and_only_those(store: Store, make_record: MakeRecord) -> None:
    async with auditing(store, says("x", usd="0.6"), usd_per_day=1, concurrency=1) as (auditor, told):
        for tier, id in ((STUDENT, "a"), (STUDENT, "b"), (STUDENT, "c"), (TEACHER, "d")):
            auditor.submit(served(make_record, tier, id=id), "request")
    assert [a.missed for a in told] == [None, None, MissReason.BUDGET, None]


async def test_many_at_once_cannot_overrun_the_days_money(store: Store, make_record: MakeRecord) -> None:
    asked = under_way = most = 0

    async def slow(tier: Tier, request: str) -> Answer:
        nonlocal asked, under_way, most
        asked, under_way = asked + 1, under_way + 1
        most = max(most, under_way)
        for _ in range(10):
            await asyncio.sleep(0)
        under_way -= 1
        return answer(tier, "x", usd="0.3")

    async with auditing(store, slow, usd_per_day=1, concurrency=8, expected=8, dearest=Decimal("0.5")) as (
        auditor,
        told,
    ):
        for i in range(8):
            auditor.submit(served(make_record, STUDENT, id=f"r-{i}"), "request")
        await asyncio.wait_for(told.reached.wait(), 10)
    assert (asked, most) == (4, 2), "three within a dollar, the fourth alone and over it, the others never"
    assert [a.missed for a in told].count(MissReason.BUDGET) == 4


async def test_a_teachers_answer_that_never_came_and_may_be_paid_is_kept_as_such(
    store: Store, make_record: MakeRecord
) -> None:
    async def lost(tier: Tier, request: str) -> Answer:
        return replace(answer(tier, "", None, usd="0.4"), message=None)

    record = served(make_record, STUDENT)
    store.append(record)
    async with auditing(store, lost) as (auditor, told):
        auditor.submit(record, "request")
    audit = await outcome(store, told)
    assert (audit.missed, audit.acceptable, audit_usd(audit)) == (MissReason.UPSTREAM_ERROR, None, Decimal("0.4"))


async def test_no_more_than_the_declared_number_run_at_once(store: Store, make_record: MakeRecord) -> None:
    running = most = 0

    async def counts(tier: Tier, request: str) -> Answer:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(3):
            await asyncio.sleep(0)
        running -= 1
        return answer(tier, "x")

    async with auditing(store, counts, concurrency=3) as (auditor, told):
        for i in range(10):
            auditor.submit(served(make_record, TEACHER, id=f"r-{i}"), "request")
    assert most == 3
    assert len(told) == 10


async def test_what_does_not_fit_the_queue_is_counted(store: Store, make_record: MakeRecord) -> None:
    async with auditing(store, says("x"), capacity=2) as (auditor, told):
        for i in range(5):
            auditor.submit(served(make_record, TEACHER, id=f"r-{i}"), "request")
        assert [a.missed for a in told] == [MissReason.QUEUE_FULL] * 3
        assert auditor.depth == 2
    assert len(told) == 5


async def test_a_stop_marks_what_is_left_as_missed(store: Store, make_record: MakeRecord) -> None:
    async with auditing(store, waits_for_ever) as (auditor, told):
        for i in range(3):
            auditor.submit(served(make_record, TEACHER, id=f"r-{i}"), "request")
        await auditor.close(drain_seconds=0.01)
        auditor.submit(served(make_record, TEACHER, id="late"), "request")
    assert [a.missed for a in told] == [MissReason.SHUTDOWN] * 4
    assert auditor.depth == 0


def llm_judge(*replies: str | JudgeError, usd: str = "0.25") -> Judges:
    """One that gives these replies in turn, the last one for ever."""
    left = list(replies)

    async def complete(judge: Llm, body: Mapping[str, Any]) -> ModelReply:
        reply = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(reply, JudgeError):
            raise reply
        return ModelReply(reply, Decimal(usd))

    return Judges(Llm(model="j"), Means(complete))


async def test_what_the_judge_costs_is_in_the_record_and_drawn_on_the_days_money(
    store: Store, make_record: MakeRecord
) -> None:
    judges = llm_judge("VERDICT: TIE")
    async with auditing(store, says("other words"), judges=judges, usd_per_day=1, concurrency=1) as (auditor, told):
        for id in ("a", "b", "c"):  # the teacher served: the students' answers cost nothing, two questions $0.50
            record = served(make_record, TEACHER, id=id)
            store.append(record)
            auditor.submit(record, "request")
    assert [(a.missed, a.acceptable, a.judge_usd) for a in told] == [
        (None, True, Decimal("0.5")),
        (None, True, Decimal("0.5")),
        (MissReason.BUDGET, None, Decimal(0)),
    ]
    await store.flush()
    kept = store.get("a")
    assert kept is not None and kept.audit is not None
    assert kept.audit.judge == "llm:j"
    assert kept.cost_usd == sum((a.cost_usd for a in kept.answers), Decimal("0.501"))
    assert audit_usd(kept.audit) == Decimal("0.5")


async def test_a_judge_that_fails_is_a_cause_of_its_own_and_the_answer_is_kept(
    store: Store, make_record: MakeRecord
) -> None:
    record = served(make_record, STUDENT)
    store.append(record)
    async with auditing(store, says("x"), judges=llm_judge("VERDICT: A", JudgeError("down"))) as (auditor, told):
        auditor.submit(record, "request")
    audit = await outcome(store, told)
    assert (audit.missed, audit.acceptable, audit.judge_usd) == (MissReason.JUDGE_FAILED, None, Decimal("0.25"))
    assert audit.answer is not None


async def test_a_judge_that_cannot_tell_is_no_missed_audit_and_no_verdict(
    store: Store, make_record: MakeRecord
) -> None:
    record = served(make_record, STUDENT)
    store.append(record)
    async with auditing(store, says("x"), judges=llm_judge("hm")) as (auditor, told):
        auditor.submit(record, "request")
    audit = await outcome(store, told)
    assert (audit.missed, audit.acceptable, audit.judge) == (None, None, "llm:j")


async def test_a_teachers_answer_that_a_stop_cut_off_is_booked_since_it_may_be_billed(
    store: Store, make_record: MakeRecord
) -> None:
    budget, record = counted(Decimal(1)), served(make_record, STUDENT)
    store.append(record)
    asking = asyncio.Event()

    async def ask(tier: Tier, request: str) -> Answer:
        asking.set()
        return await waits_for_ever(tier, request)

    lost = replace(answer(TEACHER, "", finish=None, usd="0.002"), message=None)
    async with auditing(store, ask, dearest=Decimal("0.01"), lost=lost, budget=budget) as (auditor, told):
        auditor.submit(record, "request")
        await asyncio.wait_for(asking.wait(), 10)
        await auditor.close(drain_seconds=0.01)
    audit = await outcome(store, told)
    assert audit.missed == MissReason.SHUTDOWN
    assert audit_usd(audit) == budget.spent_usd == Decimal("0.002")
    assert budget.reserved_usd == 0


async def test_a_stop_while_the_judge_thinks_keeps_the_answer_that_was_paid_for(
    store: Store, make_record: MakeRecord
) -> None:
    thinking = asyncio.Event()

    async def complete(judge: Llm, body: Mapping[str, Any]) -> ModelReply:
        thinking.set()
        await asyncio.Event().wait()
        raise AssertionError

    record = served(make_record, STUDENT)
    store.append(record)
    judges = Judges(Llm(model="j"), Means(complete, lambda *_: Decimal("0.015")))  # it is asked twice
    async with auditing(store, says("x"), judges=judges) as (auditor, told):
        auditor.submit(record, "request")
        await asyncio.wait_for(thinking.wait(), 10)
        await auditor.close(drain_seconds=0.01)
    audit = await outcome(store, told)
    assert audit.missed == MissReason.SHUTDOWN
    assert audit.answer is not None and audit.judge_usd == Decimal("0.03")  # its dearest: it may be billed
    assert audit_usd(audit) == Decimal("0.031")


@pytest.mark.parametrize(
    ("tier", "score", "expected"),
    [
        (STUDENT, 1.0, (True, None, "feedback")),
        (STUDENT, 0.0, (False, None, "feedback")),
        (STUDENT, 0.5, (False, None, "feedback, else normalised")),
        (STUDENT, None, (False, None, "feedback, else normalised")),
        (TEACHER, 0.9, (False, True, "feedback, else normalised")),
        (TEACHER, 0.1, (False, False, "feedback, else normalised")),
    ],
)
async def test_a_users_word_holds_for_the_tier_that_served_whenever_it_comes(
    store: Store, make_record: MakeRecord, tier: Tier, score: float | None, expected: tuple[Any, ...]
) -> None:
    """``expected``: acceptable, teacher_acceptable, judge."""
    async with auditing(store, says("another"), judges=Judges(Feedback())) as (auditor, _):
        for id in ("early", "late"):
            record = served(make_record, tier, "one thing", id=id)
            store.append(record)
            if id == "early":
                store.amend(id, feedback=score)
            auditor.submit(record, "request")
    store.amend("late", feedback=score)
    await store.flush()
    for id in ("early", "late"):
        kept = store.get(id)
        assert kept is not None and kept.audit is not None
        assert (kept.audit.acceptable, kept.audit.teacher_acceptable, kept.audit.judge) == expected


async def test_an_audit_waits_until_the_student_serves_nobody(store: Store, make_record: MakeRecord) -> None:
    quiet, asked = Quiet(), asyncio.Event()

    async def ask(tier: Tier, request: str) -> Answer:
        asked.set()
        return answer(tier, "x")

    async with auditing(store, ask, quiet=quiet) as (auditor, _):
        with quiet:
            with quiet:
                auditor.submit(served(make_record, TEACHER), "request")
                for _ in range(10):
                    await asyncio.sleep(0)
            assert not asked.is_set()
        await asyncio.wait_for(asked.wait(), 10)


async def test_a_student_that_is_never_idle_is_audited_all_the_same() -> None:
    quiet = Quiet()
    with quiet:
        await asyncio.wait_for(quiet.wait(0.01), 10)


async def test_an_audit_of_the_teacher_does_not_wait_for_the_student(store: Store, make_record: MakeRecord) -> None:
    class NeverAsked(Quiet):
        async def wait(self, at_most_seconds: float) -> None:
            raise AssertionError("nobody was to wait")

    async with auditing(store, says("x"), quiet=NeverAsked()) as (auditor, told):
        auditor.submit(served(make_record, STUDENT), "request")
    assert told[0].missed is None


def test_the_metrics_know_every_cause() -> None:
    assert set(MissReason) == MISSED

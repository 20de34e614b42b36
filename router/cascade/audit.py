"""The audit: a uniform sample of the traffic is answered by both tiers, after the client has its answer.

It is the only honest estimate of quality and of saving, since escalations alone show hard requests
only, and the served student's answers alone show nothing to compare with. The draw never looks at
the request, and an audit that could not happen is recorded with its cause, so that what is missing
from the sample is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from decimal import Decimal
from enum import StrEnum
from functools import partial
from typing import Generic, TypeVar

import structlog

from router.contracts.decision import Reason, Tier
from router.contracts.records import Answer, Audit, Record
from router.errors import JudgeError, UpstreamError, UpstreamRefused
from router.judges.judge import Judges
from router.judges.pair import Pair, Verdict
from router.policy.policy import Policy
from router.routing.budget import DailyBudget, audit_usd
from router.store.base import Store
from router.wire.threads import LARGE_BYTES, UNMEASURED, aside

log = structlog.get_logger(__name__)

Request = TypeVar("Request")

NOTHING = Decimal(0)
RETRY_SECONDS = 0.1
PATIENCE_SECONDS = 2.0
"""How long an audit waits at most until the student serves nobody."""


class MissReason(StrEnum):
    """Why an audit that was drawn has no verdict. A closed set: it is a metric label.

    Where the judge failed (``judge_failed``) the other tier's answer is kept all the same.
    """

    QUEUE_FULL = "queue_full"
    BUDGET = "budget"
    CAPABILITY = "capability"
    STUDENT_UNREADY = "student_unready"
    UNANSWERED = "unanswered"
    UPSTREAM_ERROR = "upstream_error"
    JUDGE_FAILED = "judge_failed"
    INTERNAL_ERROR = "internal_error"
    SHUTDOWN = "shutdown"


class Quiet:
    """Where clients are served: a context manager around each of them. Audits wait until nobody is there.

    Beside the engine's ``priority`` this is needed, since that orders only who begins: an answer under way is slowed
    by whoever joins its batch, and llama-server knows no priority.
    """

    def __init__(self) -> None:
        self._served = 0
        self._nobody = asyncio.Event()
        self._nobody.set()

    def __enter__(self) -> None:
        self._served += 1
        self._nobody.clear()

    def __exit__(self, *_: object) -> None:
        self._served -= 1
        if not self._served:
            self._nobody.set()

    async def wait(self, at_most_seconds: float) -> None:
        """Returns once nobody is served, or after so long: a student that is never idle is audited too."""
        with suppress(TimeoutError):
            async with asyncio.timeout(at_most_seconds):
                await self._nobody.wait()


class Auditor(Generic[Request]):
    """Asks the other tier in the background, has the pair judged, amends the record.

    Args:
        ask: (tier, request) -> that tier's whole answer, costed, of kind ``audited``; raises
            ``UpstreamError`` or ``UpstreamRefused`` where there is none.
        judges: the policy's judges.
        student_ready: whether a student is there to be asked.
        observe: told every (record, outcome), missed ones included: for metrics.
        budget: the day's cap for teacher answers and judges. A student's answers are counted in the record but do
            not draw on it.
        dearest: what a teacher's answer to a request can cost at most, in US dollars.
        lost: what stands for a teacher's answer to a request that was cut off, and may be paid all the same.
        quiet: tells when the student serves nobody.
        capacity: audits that may wait; one more is missed (``queue_full``).
    """

    def __init__(
        self,
        policy: Policy,
        *,
        ask: Callable[[Tier, Request], Awaitable[Answer]],
        judges: Judges,
        store: Store,
        student_ready: Callable[[], bool],
        observe: Callable[[Record, Audit], None],
        budget: DailyBudget,
        quiet: Quiet,
        dearest: Callable[[Request], Decimal] = lambda _: NOTHING,
        lost: Callable[[Request], Answer | None] = lambda _: None,
        capacity: int = 256,
    ) -> None:
        self._ask = ask
        self._judges = judges
        self._store = store
        self._student_ready = student_ready
        self._observe = observe
        self._budget, self._dearest = budget, dearest
        self._lost = lost
        self._quiet = quiet
        self._capacity = capacity
        self._slots = asyncio.Semaphore(policy.audit.concurrency)
        self._waiting: dict[asyncio.Task[None], tuple[Record, Audit]] = {}
        self._closed = False

    @property
    def depth(self) -> int:
        """How many audits wait or are under way."""
        return len(self._waiting)

    def submit(self, record: Record, request: Request, *, unfit: bool = False) -> None:
        """Takes one record with ``decision.audited``, after its answer left and it was stored. ``unfit``: the
        student cannot do what was asked.

        Never blocks, and never raises for what the upstreams do.
        """
        if (cause := _no_audit(record, unfit)) is not None:
            self._finish(record, Audit(missed=cause))
        elif self._judges.immediate(record.task) and (pair := _pair(record)) and pair.size <= LARGE_BYTES:
            audit = Audit()
            self._heed(audit, self._judges.now(pair), record.task)
            self._finish(record, audit)
        elif self._closed or len(self._waiting) >= self._capacity:
            self._finish(record, Audit(missed=MissReason.SHUTDOWN if self._closed else MissReason.QUEUE_FULL))
        else:
            audit = Audit()
            task = asyncio.create_task(self._audit(audit, record, request))
            self._waiting[task] = record, audit
            task.add_done_callback(self._done)

    async def close(self, drain_seconds: float = 2.0) -> None:
        """Lets audits under way end for ``drain_seconds``, then marks the rest missed (``shutdown``)."""
        self._closed = True
        if self._waiting:
            await asyncio.wait(list(self._waiting), timeout=drain_seconds)
        left = list(self._waiting)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _audit(self, audit: Audit, record: Record, request: Request) -> None:
        """Fills in ``audit`` as it goes: where it is cut short, what was paid for is kept."""
        assert record.tier is not None  # _no_audit saw to it
        async with self._slots:
            other = None if _pair(record) else record.tier.other
            if other is Tier.STUDENT:
                await self._quiet.wait(PATIENCE_SECONDS)
            costs = other is Tier.TEACHER or self._judges.paid(record.task)
            if other is Tier.STUDENT and not self._student_ready():
                audit.missed = MissReason.STUDENT_UNREADY
            elif costs and self._budget.exhausted:
                audit.missed = MissReason.BUDGET
            else:
                await self._asked(audit, other, record, request)
        self._finish(record, audit)

    async def _asked(self, audit: Audit, other: Tier | None, record: Record, request: Request) -> None:
        """Asks the ``other`` tier (None: both have answered) and the judge, within the budget."""
        try:
            if other is not None:
                await self._answered(audit, other, request)
            if audit.missed is None and (pair := _pair(replace(record, audit=audit))) is not None:
                await self._judged(audit, pair)
        except (UpstreamError, UpstreamRefused) as e:
            log.info("audit_missed", request_id=record.request_id, tier=other, error=str(e))
            unable = other is Tier.STUDENT and isinstance(e, UpstreamRefused)
            audit.missed = MissReason.CAPABILITY if unable else MissReason.UPSTREAM_ERROR
        except JudgeError as e:
            log.warning("audit_unjudged", request_id=record.request_id, error=str(e))
            audit.missed, audit.judge_usd, audit.judge_estimated = MissReason.JUDGE_FAILED, e.usd, e.usd > 0

    async def _answered(self, audit: Audit, other: Tier, request: Request) -> None:
        """Raises UpstreamError and UpstreamRefused."""
        if other is Tier.STUDENT:
            audit.answer = await self._ask(other, request)
            return
        async with self._paying(audit, self._dearest(request)) as held:
            if held:
                try:
                    audit.answer = await self._ask(other, request)
                except asyncio.CancelledError:
                    audit.answer = self._lost(request)
                    raise
                if audit.answer.message is None:  # it never came, and may be paid all the same
                    audit.missed = MissReason.UPSTREAM_ERROR

    async def _judged(self, audit: Audit, pair: Pair) -> None:
        """Raises JudgeError."""
        if not self._judges.paid(pair.task):
            self._heed(audit, await self._judges.verdict(pair), pair.task)
            return
        dearest_usd = await aside(partial(self._judges.dearest_usd, pair), UNMEASURED)
        async with self._paying(audit, dearest_usd) as held:
            if held:
                try:
                    self._heed(audit, await self._judges.verdict(pair), pair.task)
                except asyncio.CancelledError:
                    audit.judge_usd, audit.judge_estimated = dearest_usd, True  # how much is billed nobody will tell
                    raise

    @asynccontextmanager
    async def _paying(self, audit: Audit, dearest_usd: Decimal) -> AsyncIterator[bool]:
        """Around what costs money: so much is held back before, what it did cost is booked after. Nobody waits for an
        audit, so it waits while only answers under way stand in its way. Where that is of no use it is missed."""
        while self._budget.exhausted or (held := self._budget.reserve(dearest_usd)) is None:
            if self._closed or self._budget.exhausted:
                audit.missed = MissReason.BUDGET
                yield False
                return
            await asyncio.sleep(RETRY_SECONDS)
        before, spent = audit_usd(audit), NOTHING
        try:
            yield True
        except JudgeError as e:
            spent = e.usd
            raise
        finally:
            held.settle(spent + audit_usd(audit) - before)

    def _heed(self, audit: Audit, verdict: Verdict | None, task: str | None) -> None:
        if verdict is None:
            return
        audit.judge, audit.judge_usd = self._judges.label(task), verdict.usd
        audit.judge_estimated = verdict.estimated
        audit.acceptable, audit.teacher_acceptable = verdict.acceptable, verdict.teacher_acceptable
        audit.student_acceptable = verdict.student_acceptable

    def _finish(self, record: Record, outcome: Audit) -> None:
        self._store.amend(record.request_id, audit=outcome)
        self._observe(record, outcome)

    def _done(self, task: asyncio.Task[None]) -> None:
        """The top of a background task: whatever became of it, the drawn audit gets an outcome."""
        record, audit = self._waiting.pop(task)
        if task.cancelled():
            audit.missed = MissReason.SHUTDOWN
            self._finish(record, audit)
        elif (error := task.exception()) is not None:
            log.error("audit_failed", request_id=record.request_id, exc_info=error)
            audit.missed = MissReason.INTERNAL_ERROR
            self._finish(record, audit)


def _no_audit(record: Record, unfit: bool) -> MissReason | None:
    """Why there is nothing to compare: the client got no whole answer, or the student is unfit for the request
    (declared so, or found so by its own server). What it only has not proven yet is compared."""
    if record.tier is None or not record.answers or record.answers[0].finish_reason is None:
        return MissReason.UNANSWERED
    refused = record.reason is Reason.CAPABILITY and record.decision.reason is not Reason.CAPABILITY
    return MissReason.CAPABILITY if unfit or refused else None


def _pair(record: Record) -> Pair | None:
    """Both tiers' answers, where both are there and whole: after a deferral, or once the other tier was asked."""
    student, teacher = record.answer_of(Tier.STUDENT), record.answer_of(Tier.TEACHER)
    if student is None or teacher is None or None in (student.finish_reason, teacher.finish_reason):
        return None
    if student.message is None or teacher.message is None:
        return None
    return Pair(student.message, teacher.message, record.request, record.task, record.request_id)

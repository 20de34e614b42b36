"""The audit: a uniform sample of the traffic is answered by both tiers, after the client has its answer.

It is the only honest estimate of quality and of saving, since escalations alone show hard requests
only, and the served student's answers alone show nothing to compare with. The draw never looks at
the request, and an audit that could not happen is recorded with its cause, so that what is missing
from the sample is known.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from decimal import Decimal
from enum import StrEnum
from functools import cache
from typing import Generic, TypeVar

import structlog

from router.budget import DailyBudget
from router.contracts.decision import Reason, Tier
from router.contracts.records import Answer, Audit, Record
from router.errors import UpstreamError, UpstreamRefused
from router.policy import Policy
from router.scoring.judge import acceptable
from router.store.base import Store

log = structlog.get_logger(__name__)

Request = TypeVar("Request")


class Missed(StrEnum):
    """Why an audit that was drawn did not happen. A closed set: it is a metric label."""

    QUEUE_FULL = "queue_full"
    BUDGET = "budget"
    CAPABILITY = "capability"
    STUDENT_UNREADY = "student_unready"
    UNANSWERED = "unanswered"
    UPSTREAM_ERROR = "upstream_error"
    INTERNAL_ERROR = "internal_error"
    SHUTDOWN = "shutdown"


def drawn(id: str, rate: float, purpose: str = "audit") -> bool:
    """Whether the request (or conversation) is drawn, with probability ``rate``, by a hash of its id alone.

    ``purpose`` keys the hash: draws for different purposes ("audit", "explore") are independent.
    What is drawn at one rate is drawn at every higher one.
    """
    digest = _keyed(purpose).copy()
    digest.update(id.encode())
    return int.from_bytes(digest.digest()) < rate * 2**64


@cache
def _keyed(purpose: str) -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=8, key=purpose.encode())


class Auditor(Generic[Request]):
    """Asks the other tier in the background, judges the pair, amends the record.

    Args:
        ask: (tier, request) -> that tier's whole answer, costed, of kind ``audited``; raises
            ``UpstreamError`` or ``UpstreamRefused`` where there is none.
        student_ready: whether a student is there to be asked.
        observe: told every (record, outcome), missed ones included: for metrics.
        budget: the day's cap for teacher answers; the policy's ``audit.usd_per_day`` by default.
            A student's answers are counted in the record but do not draw on it.
        capacity: audits that may wait; one more is missed (``queue_full``).
    """

    def __init__(
        self,
        policy: Policy,
        *,
        ask: Callable[[Tier, Request], Awaitable[Answer]],
        store: Store,
        student_ready: Callable[[], bool],
        observe: Callable[[Record, Audit], None],
        budget: DailyBudget | None = None,
        capacity: int = 256,
    ) -> None:
        self._policy = policy
        self._ask = ask
        self._store = store
        self._student_ready = student_ready
        self._observe = observe
        self._budget = budget or DailyBudget(policy.audit.usd_per_day)
        self._capacity = capacity
        self._slots = asyncio.Semaphore(policy.audit.concurrency)
        self._waiting: dict[asyncio.Task[None], Record] = {}
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
        elif (pair := _pair(record)) is not None:
            self._finish(record, self._judged(*pair))
        elif self._closed or len(self._waiting) >= self._capacity:
            self._finish(record, Audit(missed=Missed.SHUTDOWN if self._closed else Missed.QUEUE_FULL))
        else:
            task = asyncio.create_task(self._audit(record, request))
            self._waiting[task] = record
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

    async def _audit(self, record: Record, request: Request) -> None:
        assert record.tier is not None  # _no_audit saw to it
        tier = record.tier.other
        async with self._slots:
            if tier is Tier.STUDENT and not self._student_ready():
                outcome = Audit(missed=Missed.STUDENT_UNREADY)
            elif tier is Tier.TEACHER and self._budget.exhausted:
                outcome = Audit(missed=Missed.BUDGET)
            else:
                outcome = await self._ask_other(tier, record, request)
        self._finish(record, outcome)

    async def _ask_other(self, tier: Tier, record: Record, request: Request) -> Audit:
        charged = tier is Tier.TEACHER
        reserved = record.counterfactual_usd if charged else Decimal(0)
        spent = Decimal(0)
        self._budget.reserve(reserved)
        try:
            answer = await self._ask(tier, request)
            spent = answer.cost_usd if charged else spent
        except (UpstreamError, UpstreamRefused) as e:
            log.info("audit missed", request_id=record.request_id, tier=tier, error=str(e))
            return Audit(missed=Missed.UPSTREAM_ERROR)
        finally:
            self._budget.settle(reserved, spent)
        served = record.answers[0]
        pair = (answer, served) if tier is Tier.STUDENT else (served, answer)
        return replace(self._judged(*pair), answer=answer)

    def _judged(self, student: Answer, teacher: Answer) -> Audit:
        if student.message is None or teacher.message is None:
            return Audit()
        verdict = acceptable(self._policy.judge, student.message, teacher.message)
        return Audit(acceptable=verdict, judge=self._policy.judge)

    def _finish(self, record: Record, outcome: Audit) -> None:
        self._store.amend(record.request_id, audit=outcome)
        self._observe(record, outcome)

    def _done(self, task: asyncio.Task[None]) -> None:
        """The top of a background task: whatever became of it, the drawn audit gets an outcome."""
        record = self._waiting.pop(task)
        if task.cancelled():
            self._finish(record, Audit(missed=Missed.SHUTDOWN))
        elif (error := task.exception()) is not None:
            log.error("audit failed", request_id=record.request_id, exc_info=error)
            self._finish(record, Audit(missed=Missed.INTERNAL_ERROR))


def _no_audit(record: Record, unfit: bool) -> Missed | None:
    """Why there is nothing to compare: the client got no whole answer, or the student is
    unfit for the request (declared so, or found so by its own server)."""
    if record.tier is None or not record.answers or record.answers[0].finish_reason is None:
        return Missed.UNANSWERED
    reasons = (record.decision.reason, record.reason)
    return Missed.CAPABILITY if unfit or Reason.CAPABILITY in reasons else None


def _pair(record: Record) -> tuple[Answer, Answer] | None:
    """(student's, teacher's) where the request already has both whole: after a deferral."""
    student, teacher = record.answer_of(Tier.STUDENT), record.answer_of(Tier.TEACHER)
    if student is None or teacher is None or None in (student.finish_reason, teacher.finish_reason):
        return None
    return student, teacher

"""The audit: a uniform sample of the traffic is answered by both tiers, after the client has its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Generic, TypeVar

from router.budget import DailyBudget
from router.contracts.decision import Tier
from router.contracts.records import Answer, Audit, Record
from router.policy import Policy
from router.store.base import Store

Request = TypeVar("Request")


class Missed(StrEnum):
    """Why an audit that was drawn did not happen. A closed set."""

    QUEUE_FULL = "queue_full"
    BUDGET = "budget"
    CAPABILITY = "capability"
    STUDENT_UNREADY = "student_unready"
    UNANSWERED = "unanswered"
    UPSTREAM_ERROR = "upstream_error"
    SHUTDOWN = "shutdown"


def drawn(request_id: str, rate: float, purpose: str = "audit") -> bool:
    """Whether the request is drawn, with probability ``rate``, by a hash of its id alone.

    ``purpose`` keys the hash: draws for different purposes ("audit", "explore") are independent.
    """
    raise NotImplementedError


class Auditor(Generic[Request]):
    """Asks the other tier in the background, judges the pair, amends the record.

    ``ask(tier, request)`` returns that tier's whole answer, costed, or raises ``UpstreamError``.
    ``student_ready()`` says whether a student is there to be asked. ``observe(record, audit)`` is
    told every outcome, missed ones included.
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
        raise NotImplementedError

    def submit(self, record: Record, request: Request) -> None:
        """Takes one record with ``decision.audited`` after its answer left. Never blocks, never raises."""
        raise NotImplementedError

    async def close(self, drain_seconds: float = 2.0) -> None:
        """Lets audits under way end for ``drain_seconds``, then marks the rest missed (shutdown)."""
        raise NotImplementedError

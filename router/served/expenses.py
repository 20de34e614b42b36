"""What was spent on the day of a start before it, read from the log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from decimal import Decimal

import structlog

from router.errors import StoreError
from router.routing.budget import DAY_SECONDS
from router.routing.policy_state import RoutingState, teacher_spend
from router.routing.state.base import SharedState
from router.store.base import Records

log = structlog.get_logger(__name__)

AGAIN_SECONDS = 5.0
LOOK_SECONDS = 0.02
LONGEST_SECONDS = 3600.0
"""Of a request: one that began so long before midnight may have ended after it."""
NOTHING = Decimal(0)


async def count_before(
    records: Records, state: SharedState, routings: Callable[[], Mapping[str, RoutingState]]
) -> None:
    """Counts for each policy; reads off the event loop. One worker does it for all. A log that cannot be read now is
    read again later: as long as it is unknown what was spent, nothing is."""
    if state.slot:
        return
    for name, routing in routings().items():
        while (spent := await asyncio.to_thread(spent_before, records, name, state.began_at)) is None:  # noqa: ASYNC110
            await asyncio.sleep(AGAIN_SECONDS)
        routing.spent_before(*spent)
    state.know_spending()


async def known(state: SharedState, at_most_seconds: float = 5.0) -> None:
    """Returns once all is counted, or after so long: a start need not wait for a very long day."""
    with suppress(TimeoutError):
        async with asyncio.timeout(at_most_seconds):
            while not state.knows_spending:  # noqa: ASYNC110  (another process says it)
                await asyncio.sleep(LOOK_SECONDS)


def spent_before(records: Records, policy: str, began: float) -> tuple[float, Decimal, Decimal] | None:
    """US dollars spent on the teacher on the UTC day of ``began`` (unix time), before it: (a time on that day, for
    clients, for audits); None where the log cannot be read. A request counts on the day on which it ended. What is
    dated on the day after was spent today, by a clock that was set back.

    All that an unreadable row still tells of money counts as spent for clients, since nobody can tell what for.
    """
    today, now = int(began // DAY_SECONDS), time.time()
    spent = NOTHING, NOTHING

    def add(created_at: float, seconds: float, served: Decimal, audited: Decimal) -> None:
        nonlocal spent
        day = int((created_at + seconds) // DAY_SECONDS)
        if day in (today, today + 1) and not began <= created_at <= now:  # what is from since then is counted already
            spent = spent[0] + max(served, NOTHING), spent[1] + max(audited, NOTHING)

    try:
        for _, record in records.records(policy, since=today * DAY_SECONDS - LONGEST_SECONDS, embeddings=True):
            add(record.created_at, record.seconds, *teacher_spend(record))
    except StoreError as e:
        log.error("spending_unknown", policy=policy, why=str(e))
        return None
    for row in records.unread:
        if row.policy == policy:
            add(row.created_at, 0.0, row.usd, NOTHING)
    return today * DAY_SECONDS, *spent

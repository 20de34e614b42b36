"""Reads one policy's audits, once for all in this process that go by them, in the order in which they were judged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from typing import Protocol
from weakref import WeakSet

import structlog

from router.contracts.records import Record
from router.errors import StoreError
from router.store.base import Records

log = structlog.get_logger(__name__)

PAGE = 200
"""Audits read at a time, off the event loop."""
EVERY_SECONDS = 5.0
BEFORE_SECONDS = 30 * 86_400.0
"""How far before its start it looks back."""


class AuditFollower(Protocol):
    def observe(self, record: Record) -> None:
        """Takes the next audited record into account. Never called by two threads at once."""
        ...


class AuditReader:
    """Feeds its followers from ``records``, so that every worker, and every restart, comes to the same state from the
    same records. Who follows is kept by others: it is forgotten with them."""

    def __init__(self, policy: str, records: Records) -> None:
        self._policy, self._records = policy, records
        self._since, self._seen = time.time() - BEFORE_SECONDS, 0
        self._followers: WeakSet[AuditFollower] = WeakSet()
        self._lock = asyncio.Lock()

    async def follow(self, follower: AuditFollower, since: float) -> None:
        """From now on it is told every audit; first, of those that were read already, what was asked since then (unix
        time). Raises StoreError where they cannot be read."""
        async with self._lock:
            if self._seen:
                await asyncio.to_thread(self._catch_up, follower, since)
            else:
                self._since = min(self._since, since)
            self._followers.add(follower)

    def leave(self, follower: AuditFollower) -> None:
        self._followers.discard(follower)

    @asynccontextmanager
    async def up_to_date(self) -> AsyncIterator[None]:
        """Reads what came since the last time; inside, nobody is told more. Raises StoreError where it cannot."""
        async with self._lock:
            while await asyncio.to_thread(self._read):
                pass
            yield

    async def run(self, every_seconds: float = EVERY_SECONDS) -> None:
        """Until cancelled, for those who only follow. What cannot be read now is read the next time."""
        while True:
            try:
                async with self.up_to_date():
                    pass
            except StoreError as e:
                log.warning("audits_unread", policy=self._policy, why=str(e))
            await asyncio.sleep(every_seconds)

    def _read(self) -> bool:
        """Takes in a page; whether there may be more."""
        page = list(islice(self._records.audits(self._policy, self._seen, self._since), PAGE))
        for at, record in page:
            self._seen = at
            for follower in list(self._followers):
                follower.observe(record)
        return len(page) == PAGE

    def _catch_up(self, follower: AuditFollower, since: float) -> None:
        for at, record in self._records.audits(self._policy, 0, since):
            if at > self._seen:
                return
            follower.observe(record)

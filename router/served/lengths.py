"""Follows the log's audits, so that every worker, and every restart, knows how long the teacher's answers are."""

from __future__ import annotations

import asyncio
import time
from itertools import islice

import structlog

from router.errors import StoreError
from router.routing.lengths import AuditedLengths
from router.store.base import Records

log = structlog.get_logger(__name__)

PAGE = 200
"""Audits read at a time, off the event loop."""
EVERY_SECONDS = 5.0
BEFORE_SECONDS = 30 * 86_400.0
"""How far before its start it looks back."""


class LengthWatch:
    """Feeds one policy's ``lengths`` from ``records``."""

    def __init__(self, policy: str, records: Records, lengths: AuditedLengths) -> None:
        self._policy, self._records, self._lengths = policy, records, lengths
        self._since, self._seen = time.time() - BEFORE_SECONDS, 0

    async def run(self, every_seconds: float = EVERY_SECONDS) -> None:
        """Until cancelled. What cannot be read now is read the next time."""
        while True:
            try:
                while await asyncio.to_thread(self._read):
                    pass
            except StoreError as e:
                log.warning("lengths_unread", policy=self._policy, why=str(e))
            await asyncio.sleep(every_seconds)

    def _read(self) -> bool:
        """Takes in a page; whether there may be more."""
        page = list(islice(self._records.audits(self._policy, self._seen, self._since), PAGE))
        for at, record in page:
            self._lengths.add(record)
            self._seen = at
        return len(page) == PAGE

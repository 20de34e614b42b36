"""Records and what came to them later, as the rows that are kept of them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping

import structlog

from router.contracts.records import Audit, Record, ReductionReason
from router.policy.policy import LogPart
from router.store.damage import reason
from router.store.pseudonyms import Pseudonyms
from router.store.queue import Amendment, Drop, Losses
from router.store.record_json import UNFIT, kept_audit, kept_record
from router.store.repair import mended, mended_audit, reduced, reduced_audit
from router.store.tables import ADD_FILE, ADD_USE, DROP_FEEDBACK, POLICY_OF

Row = tuple[str, str, float, str]

log = structlog.get_logger(__name__)


class RecordRows:
    """Makes the rows of one transaction by each policy's rules, and counts what they lack in ``losses``.
    ``files``: those to be kept beside them, by request and mark."""

    def __init__(self, db: sqlite3.Connection, policies: Mapping[str, LogPart], pseudonyms: Pseudonyms) -> None:
        self._db, self._policies, self._pseudonyms = db, policies, pseudonyms
        self.losses = Losses()
        self.files: dict[str, dict[str, str]] = {}

    def of(self, item: Record | Amendment) -> Row | None:
        """What is kept of it; None where nothing of it can be, now or ever."""
        error: Exception | None = None
        for form in self._record(item) if isinstance(item, Record) else self._amendment(item):
            try:
                return form()
            except UNFIT as e:
                error = error or e
        self.unfit(item, error)
        return None

    def unfit(self, item: Record | Amendment, error: Exception | None) -> None:
        log.error("record_unfit", request_id=item.request_id, error=reason(error) if error else "")
        self.losses.drops[Drop.UNFIT] += 1

    def _record(self, record: Record) -> Iterator[Callable[[], Row]]:
        """As it is; where that could not be read back, with its texts mended; else without them."""
        rules = self._policies.get(record.policy)

        def row(form: Record) -> Row:
            files = self._files_of(record.request_id)
            body = kept_record(form, rules, self._unspelled, files, self._pseudonyms)
            return record.request_id, record.policy, record.created_at, body

        yield lambda: row(record)
        yield lambda: row(mended(record))
        self.losses.reduced[ReductionReason.UNFIT] += 1
        log.error("record_reduced", request_id=record.request_id)
        yield lambda: row(reduced(record, ReductionReason.UNFIT))

    def _files_of(self, request_id: str) -> dict[str, str]:
        self.files[request_id] = {}
        return self.files[request_id]

    def keep_files(self) -> None:
        """Writes those of the rows made so far, each once."""
        for request_id, files in self.files.items():
            if files:
                self._db.executemany(ADD_FILE, files.items())
                self._db.executemany(ADD_USE, [(request_id, mark) for mark in files])
        self.files.clear()

    def _unspelled(self) -> None:
        self.losses.unspelled += 1

    def _amendment(self, item: Amendment) -> Iterator[Callable[[], Row]]:
        told = item.request_id, item.kind, item.created_at
        if (audit := item.audit) is None:
            self._db.execute(DROP_FEEDBACK, (item.request_id,))
            yield lambda: (*told, json.dumps(item.feedback))
            return
        row = self._db.execute(POLICY_OF, (item.request_id,)).fetchone()
        rules, task = (self._policies.get(row[0]), row[1]) if row else (None, None)

        def kept(form: Audit) -> Row:
            return *told, kept_audit(form, rules, self._files_of(item.request_id), task=task)

        yield lambda: kept(audit)
        yield lambda: kept(mended_audit(audit))
        yield lambda: kept(reduced_audit(audit))

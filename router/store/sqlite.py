"""Writing records to SQLite: one thread, a bounded queue, group commits.

What is promised. A record handed to ``append`` is committed within 50 ms (the writer gathers for
20 ms, then commits at least every 15) while the writer keeps up with the traffic. What is committed
is with the operating system, so nothing that happens to this process, ``kill -9`` included, loses
it. Against a power cut the promise is weaker (``synchronous=NORMAL``): the file stays sound, but
commits since the last checkpoint may be gone. An fsync for every commit would cost more disk time
than these records are worth.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import structlog

from router.contracts.records import Audit, Record, Reduced
from router.policy import LogPart, Policy
from router.store.kept import UNFIT, kept_audit, kept_record
from router.store.mending import mended, mended_audit, reduced, reduced_audit
from router.store.opening import open_owned
from router.store.reader import DB_VERSION, SqliteReader

GATHER_SECONDS = 0.020
COMMIT_SECONDS = 0.015
ROWS_AT_ONCE = 32
YIELD_ROWS = 16
RETRY_SECONDS = (0.1, 5.0)
ROOM_FOR_TOLD = 256
"""Records that may wait to be written before what a teacher told of its tokens is given up."""
PAGE_BYTES = 8192  # several records a page: half the cost of SQLite's own
CHECKPOINT_PAGES = 2000
PRAGMAS = (f"page_size = {PAGE_BYTES}", f"wal_autocheckpoint = {CHECKPOINT_PAGES}")
PRUNE_SECONDS = 3600.0
PRUNE_ROWS = 500
DAY_SECONDS = 86_400.0

SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id TEXT NOT NULL UNIQUE,
    policy TEXT NOT NULL,
    created_at REAL NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS records_by_age ON records (created_at);
CREATE TABLE IF NOT EXISTS amendments (
    id INTEGER PRIMARY KEY,
    request_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    created_at REAL NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS amendments_by_request ON amendments (request_id);
CREATE TRIGGER IF NOT EXISTS amendments_go_with_their_record AFTER DELETE ON records
BEGIN DELETE FROM amendments WHERE request_id = old.request_id; END;
"""
ADD_RECORDS = "INSERT OR IGNORE INTO records (request_id, policy, created_at, body) VALUES "
DROP_FEEDBACK = "DELETE FROM amendments WHERE request_id = ? AND kind = 'feedback'"  # the last word holds alone
ADD_AMENDMENTS = "INSERT INTO amendments (request_id, kind, created_at, body) VALUES "
PRUNE = """DELETE FROM records WHERE seq IN
    (SELECT seq FROM records WHERE policy = ? AND created_at < ? ORDER BY created_at LIMIT ?)"""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Amendment:
    request_id: str
    kind: str
    created_at: float
    audit: Audit | None = None
    feedback: float | None = None


_Item = Record | _Amendment | Future[None]
_Row = tuple[str, str, float, str]


class SqliteStore(SqliteReader):
    """Both sides. ``policies``: each policy's word on text, redaction and retention.

    A policy that is not among them keeps no text. ``capacity`` bounds what may wait to be written,
    ``max_pages`` (of ``PAGE_BYTES``) the file; ``busy_seconds`` is how long another writer is waited for at a
    time; ``clock`` tells the unix time that retention goes by.

    Raises:
        StoreError: the database cannot be opened, or a newer Locum wrote it.
    """

    def __init__(
        self,
        path: Path,
        policies: Mapping[str, LogPart],
        *,
        capacity: int = 10_000,
        max_pages: int | None = None,
        busy_seconds: float = 5.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(path)
        self._policies = policies
        self._capacity = capacity
        self._clock = clock
        self._waiting: deque[_Item] = deque()
        self._wake = threading.Event()  # set where something may wait that the writer has not seen
        self._counting = threading.Lock()
        self._dropped = 0
        self._errors = 0
        self._unspelled = 0
        self._reduced: Counter[Reduced] = Counter()
        self._failing = ""
        self._taken = 0
        self._closed = threading.Event()
        self._db = open_owned(
            path, "records", version=DB_VERSION, schema=SCHEMA, busy_seconds=busy_seconds, pragmas=PRAGMAS
        )
        if max_pages:
            self._db.execute(f"PRAGMA max_page_count = {max_pages}")
        self._writer = threading.Thread(target=self._write_all, name="locum-records", daemon=True)
        self._writer.start()

    @property
    def dropped(self) -> int:
        return self._dropped

    @property
    def errors(self) -> int:
        return self._errors

    @property
    def unspelled(self) -> int:
        return self._unspelled

    @property
    def reduced(self) -> Mapping[Reduced, int]:
        return self._reduced

    @property
    def problems(self) -> Sequence[str]:
        found = []
        if self._failing:
            found.append(f"records cannot be written, and {self.depth} wait: {self._failing}")
        if said := self.unread.said():
            found.append(said)
        return found

    @property
    def depth(self) -> int:
        return len(self._waiting) + self._taken

    def append(self, record: Record) -> None:
        if self.depth >= ROOM_FOR_TOLD:  # unpacked they take megabytes
            for answer in record.answers:
                self._unspelled += isinstance(answer.top_logprobs, list)
                answer.top_logprobs = None
        self._put(record)

    def follow(self, policies: Sequence[Policy]) -> None:
        self._policies = {p.name: p.log for p in policies}

    def amend(self, request_id: str, *, audit: Audit | None = None, feedback: float | None = None) -> None:
        now = self._clock()
        if audit is not None:
            self._put(_Amendment(request_id, "audit", now, audit=audit))
        if feedback is not None:
            self._put(_Amendment(request_id, "feedback", now, feedback=feedback))

    def _put(self, item: Record | _Amendment) -> None:
        if self._closed.is_set() or self.depth >= self._capacity:
            self._drop(1)
        else:
            self._hand_over(item)

    def _hand_over(self, item: _Item) -> None:
        self._waiting.append(item)
        if not self._wake.is_set():  # once a round: waking a thread costs more than the rest
            self._wake.set()

    def _drop(self, count: int) -> None:
        with self._counting:  # appenders may be several threads
            self._dropped += count

    async def flush(self) -> None:
        if self._closed.is_set():
            return
        done: Future[None] = Future()
        self._hand_over(done)
        await asyncio.wrap_future(done)

    def close(self) -> None:
        """Writes what waits, as far as the disk takes it within 15 s, and closes. Twice is once."""
        if not self._closed.is_set():
            self._closed.set()
            self._hand_over(Future())
            self._writer.join(timeout=15.0)

    # ---- the writer thread ----

    def _write_all(self) -> None:
        next_prune = 0.0
        try:
            while self._waiting or not self._closed.is_set():
                self._write(self._gather(timeout=max(0.0, next_prune - time.monotonic())))
                if time.monotonic() >= next_prune:
                    next_prune = time.monotonic() + (0.0 if self._prune() else PRUNE_SECONDS)
        finally:  # however it ends: nothing waits for a writer that is gone, and what is lost is counted
            self._closed.set()
            self._give_up(self._behind())
            self._db.close()

    def _gather(self, timeout: float) -> list[_Item]:
        """All that waits, once something does; empty where nothing came within ``timeout`` seconds."""
        if not self._waiting and not self._wake.wait(timeout):
            return []
        self._closed.wait(GATHER_SECONDS)  # let some company come, for one commit together
        self._wake.clear()  # before looking: what comes from here on wakes the next round
        return self._behind()

    def _behind(self) -> list[_Item]:
        """What waits now."""
        items = [self._waiting.popleft() for _ in range(len(self._waiting))]
        self._taken += len(items)
        return items

    def _write(self, batch: list[_Item]) -> None:
        """Writes the batch, however often the disk must be asked, in transactions of ``COMMIT_SECONDS``."""
        pause, waiting, most = RETRY_SECONDS[0], batch, len(batch)
        while waiting:
            try:
                waiting = waiting[self._commit_some(waiting[:most]) :]
                self._taken = len(waiting)
                pause, most, self._failing = RETRY_SECONDS[0], len(batch), ""
            except sqlite3.Error as e:
                waiting = [*waiting, *self._behind()]  # a flush that came meanwhile is told too
                self._refused(e, waiting)
                if self._closed.is_set() and most == 1:
                    self._give_up(waiting)
                    break
                self._closed.wait(pause)
                pause, most = min(2 * pause, RETRY_SECONDS[1]), 1  # alone, a record may still fit
        self._taken = 0

    def _commit_some(self, items: Sequence[_Item]) -> int:
        """One transaction over the first items, and how many it took."""
        end = time.monotonic() + COMMIT_SECONDS
        done = lost = 0
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            while done < len(items) and (not done or time.monotonic() < end):
                run = _run(items, done)
                lost += len(run) - self._inserted(run)
                done += len(run)
        self._drop(lost)
        for item in items[:done]:
            _resolve(item)
        return done

    def _inserted(self, run: Sequence[_Item]) -> int:
        """How many of these are in the transaction: several records, or one of anything else."""
        kept = [item for item in run if not isinstance(item, Future)]
        return self._insert(kept) if kept else len(run)

    def _insert(self, items: Sequence[Record | _Amendment]) -> int:
        """All of one kind, in one statement: SQLite lets go of the interpreter's lock once for all of them, and
        the event loop next door is not held up by each."""
        rows = []
        for n, item in enumerate(items, 1):
            if (row := self._row(item)) is not None:
                rows.append(row)
            if n % YIELD_ROWS == 0:
                time.sleep(0)  # lets go of the lock: the event loop waits for a few rows at most
        if not rows:
            return 0
        statement = ADD_RECORDS if isinstance(items[0], Record) else ADD_AMENDMENTS
        values = ", ".join(["(?, ?, ?, ?)"] * len(rows))
        try:
            added = self._db.execute(statement + values, list(chain.from_iterable(rows))).rowcount
        except sqlite3.DataError as e:  # one of them is beyond what SQLite holds
            if len(items) > 1:
                return sum(self._insert([item]) for item in items)
            log.error("not fit for the records", request_id=items[0].request_id, error=str(e))
            return 0
        if added < len(rows):
            log.error("two records with one id", lost=len(rows) - added)
        return added

    def _row(self, item: Record | _Amendment) -> tuple[object, ...] | None:
        """What is kept of it; None where nothing of it can be, now or ever."""
        forms = self._record_rows(item) if isinstance(item, Record) else self._amendment_rows(item)
        error: Exception | None = None
        for form in forms:
            try:
                return form()
            except UNFIT as e:
                error = error or e
        log.error("not fit for the records", request_id=item.request_id, error=str(error))
        return None

    def _record_rows(self, record: Record) -> Iterator[Callable[[], _Row]]:
        """As it is; where that could not be read back with its texts mended, else without them."""
        rules = self._policies.get(record.policy)

        def row(form: Record) -> _Row:
            return record.request_id, record.policy, record.created_at, kept_record(form, rules, self._count_unspelled)

        yield lambda: row(record)
        yield lambda: row(mended(record))
        self._count_reduced(Reduced.UNFIT, record)
        yield lambda: row(reduced(record, Reduced.UNFIT))

    def _count_reduced(self, why: Reduced, record: Record) -> None:
        self._reduced[why] += 1
        log.error("record kept without its texts", request_id=record.request_id, why=why.value)

    def _count_unspelled(self) -> None:
        self._unspelled += 1

    def _amendment_rows(self, item: _Amendment) -> Iterator[Callable[[], _Row]]:
        told = item.request_id, item.kind, item.created_at
        if (audit := item.audit) is None:
            self._db.execute(DROP_FEEDBACK, (item.request_id,))
            yield lambda: (*told, json.dumps(item.feedback))
            return
        row = self._db.execute("SELECT policy FROM records WHERE request_id = ?", (item.request_id,)).fetchone()
        rules = self._policies.get(row[0]) if row else None
        yield lambda: (*told, kept_audit(audit, rules))
        yield lambda: (*told, kept_audit(mended_audit(audit), rules))
        yield lambda: (*told, kept_audit(reduced_audit(audit), rules))

    def _refused(self, error: sqlite3.Error, waiting: Sequence[_Item]) -> None:
        """Counts and tells a refused write; whoever waits for a flush waits no longer."""
        self._errors += 1
        self._failing = str(error)
        log.error("records cannot be written", error=str(error), waiting=len(waiting))
        for item in waiting:
            _resolve(item)

    def _give_up(self, items: Sequence[_Item]) -> None:
        self._drop(sum(not isinstance(item, Future) for item in items))
        for item in items:
            _resolve(item)

    def _prune(self) -> bool:
        """Deletes some of what each policy's retention has passed; whether there may be more."""
        now, more = self._clock(), False
        try:
            with self._db:
                for policy, rules in self._policies.items():
                    oldest = now - rules.retention_days * DAY_SECONDS
                    more |= self._db.execute(PRUNE, (policy, oldest, PRUNE_ROWS)).rowcount == PRUNE_ROWS
                longest = max((rules.retention_days for rules in self._policies.values()), default=0)
                if longest:  # what amends a record that was dropped belongs to none
                    self._db.execute("DELETE FROM amendments WHERE created_at < ?", (now - longest * DAY_SECONDS,))
        except sqlite3.Error as e:
            self._refused(e, [])
        return more


def _run(items: Sequence[_Item], start: int) -> Sequence[_Item]:
    """The records that follow each other from ``start`` on, ``ROWS_AT_ONCE`` at most; or what else is there."""
    end = start
    while end < min(len(items), start + ROWS_AT_ONCE) and isinstance(items[end], Record):
        end += 1
    return items[start : max(end, start + 1)]


def _resolve(item: _Item) -> None:
    """Ends a flush, unless it was cancelled or ended before."""
    if isinstance(item, Future) and not item.done() and item.set_running_or_notify_cancel():
        item.set_result(None)

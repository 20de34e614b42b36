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
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from itertools import chain
from pathlib import Path

import structlog

from router.contracts.records import Audit, Record, ReductionReason
from router.errors import StoreError
from router.policy.policy import LogPart, Policy
from router.store.connection import OwnedFile
from router.store.pseudonyms import Pseudonyms
from router.store.queue import Amendment, Drop, Item, Losses, WaitingRecords, resolve
from router.store.reader import SqliteReader
from router.store.rows import RecordRows
from router.store.supported_time import DAY_SECONDS, SupportedTime, machine_uptime
from router.store.tables import (
    ADD_AMENDMENTS,
    ADD_RECORDS,
    DATE_ANEW,
    DB_VERSION,
    NEWEST,
    PRAGMAS,
    PRUNE,
    PRUNE_AMENDMENTS,
    SCHEMA,
)

GATHER_SECONDS = 0.020
COMMIT_SECONDS = 0.015
LOOK_SECONDS = 1.0
"""How often a writer with nothing to write looks whether its file is still there."""
STALLED_SECONDS = 2.0
ROWS_AT_ONCE = 32
ITEMS_AT_ONCE = 512
YIELD_ROWS = 16
RETRY_SECONDS = (0.1, 5.0)
END_SECONDS = 15.0
ROOM_FOR_TOLD = 256
"""Records that may wait to be written before what a teacher told of its tokens is given up."""
QUEUE_BYTES = 64 * 2**20
PRUNE_SECONDS = 3600.0
PRUNE_ROWS = 500

FAILURES = (sqlite3.Error, StoreError)

log = structlog.get_logger(__name__)


class SqliteStore(SqliteReader):
    """Both sides. ``policies``: each policy's word on text, redaction and retention.

    A policy that is not among them keeps no text. ``capacity`` bounds how many may wait to be written,
    ``queue_bytes`` how much text, ``max_pages`` (of ``PAGE_BYTES``) the file; ``busy_seconds`` is how long another
    writer is waited for at a time; ``clock`` tells the unix time, by which retention goes as far as ``uptime`` supports
    it (``router.store.supported_time``). A disk that refuses is asked again for ``end_seconds`` after ``close``.

    A file that is deleted or replaced meanwhile is opened anew, and what was written to it counts as lost.

    Raises:
        StoreError: the database cannot be opened, or a newer Locum wrote it.
    """

    def __init__(
        self,
        path: Path,
        policies: Mapping[str, LogPart],
        *,
        capacity: int = 10_000,
        queue_bytes: int = QUEUE_BYTES,
        max_pages: int | None = None,
        busy_seconds: float = 5.0,
        clock: Callable[[], float] = time.time,
        uptime: Callable[[], float] = machine_uptime,
        end_seconds: float = END_SECONDS,
    ) -> None:
        super().__init__(path)
        self._policies, self._pseudonyms = policies, Pseudonyms(path.parent)
        self._clock, self._time = clock, SupportedTime(NEWEST, clock, uptime)
        self._waiting = WaitingRecords(capacity, queue_bytes)
        self._wake = threading.Event()  # set where something may wait that the writer has not seen
        self._errors = 0
        self._failing = ""
        self._moved_at = time.monotonic()
        self._written = 0
        self._gone = ""
        self._closed, self._end_seconds, self._end = threading.Event(), end_seconds, 0.0
        pragmas = (*PRAGMAS, f"max_page_count = {max_pages}") if max_pages else PRAGMAS
        self._file = OwnedFile(
            path, "records", version=DB_VERSION, schema=SCHEMA, busy_seconds=busy_seconds, pragmas=pragmas
        )
        self._writer = threading.Thread(target=self._write_all, name="locum-records", daemon=True)
        self._writer.start()

    @property
    def dropped(self) -> int:
        return self._waiting.losses.drops.total()

    @property
    def drops(self) -> Mapping[Drop, int]:
        return self._waiting.losses.drops

    @property
    def errors(self) -> int:
        return self._errors

    @property
    def unspelled(self) -> int:
        return self._waiting.losses.unspelled

    @property
    def reduced(self) -> Mapping[ReductionReason, int]:
        return self._waiting.losses.reduced

    @property
    def problems(self) -> Sequence[str]:
        found = (self._stalled(), self._read_only(), self._gone, self._lost(), self._time.problem, self.unread.said())
        return [said for said in found if said]

    @property
    def depth(self) -> int:
        return len(self._waiting)

    def append(self, record: Record) -> None:
        if self.depth >= ROOM_FOR_TOLD:  # unpacked they take megabytes
            unspelled = 0
            for answer in record.answers:
                unspelled += isinstance(answer.top_logprobs, list)
                answer.top_logprobs = None
            self._waiting.count(Losses(unspelled=unspelled))
        self._put(record)

    def follow(self, policies: Sequence[Policy]) -> None:
        self._policies = {p.name: p.log for p in policies}

    def amend(self, request_id: str, *, audit: Audit | None = None, feedback: float | None = None) -> None:
        now = self._clock()
        if audit is not None:
            self._put(Amendment(request_id, "audit", now, audit=audit))
        if feedback is not None:
            self._put(Amendment(request_id, "feedback", now, feedback=feedback))

    def _put(self, item: Record | Amendment) -> None:
        if self._closed.is_set():
            self._waiting.lose(Drop.UNWRITTEN, 1)
        elif self._waiting.put(item):
            self._wake_up()

    def _wake_up(self) -> None:
        if not self._wake.is_set():  # once a round: waking a thread costs more than the rest
            self._wake.set()

    async def flush(self) -> None:
        if self._closed.is_set():
            return
        done: Future[None] = Future()
        self._waiting.mark(done)
        self._wake_up()
        await asyncio.wrap_future(done)

    def close(self) -> None:
        """Writes what waits, as far as the disk takes it within ``END_SECONDS``, and closes; the log says how much is
        lost. Twice is once."""
        if not self._closed.is_set():
            self._end = time.monotonic() + self._end_seconds
            self._closed.set()
            self._wake_up()
            self._writer.join(timeout=self._end_seconds + RETRY_SECONDS[0] + 1.0)
            if self._writer.is_alive():  # it waits for another process, or for a disk that does not answer
                log.error("records_lost", lost=self.depth, why=self._failing or "the disk did not answer")

    # ---- what there is to tell ----

    def _stalled(self) -> str:
        waits = time.monotonic() - self._moved_at
        if not self._failing and (not self.depth or waits < STALLED_SECONDS):
            return ""
        why = self._failing or "another process keeps the file to itself, or the disk is slow"
        return f"records cannot be written: {why}; {self.depth} wait for it since {waits:.0f} s"

    def _read_only(self) -> str:
        try:
            writable = os.access(self._path, os.W_OK) and self._path.stat().st_mode & 0o222
        except OSError:
            return ""  # what is gone is opened anew
        return "" if writable else f"{self._path} was made read-only: what is open goes on, but the next start fails"

    def _lost(self) -> str:
        lost = [f"{count} {cause}" for cause, count in self.drops.items() if count]
        lost += [f"{count} without their texts ({why})" for why, count in self.reduced.items() if count]
        return f"records lost since the start: {', '.join(lost)}" if lost else ""

    # ---- the writer thread ----

    def _write_all(self) -> None:
        next_prune = 0.0
        try:
            while self.depth or not self._closed.is_set():
                if time.monotonic() >= next_prune:  # first, since what is written next the clock dated
                    next_prune = time.monotonic() + (0.0 if self._prune() else PRUNE_SECONDS)
                self._gather(timeout=max(0.0, min(LOOK_SECONDS, next_prune - time.monotonic())))
                self._write()
        finally:  # however it ends: nothing waits for a writer that is gone, and what is lost is counted
            self._closed.set()
            self._give_up()
            self._file.close()

    def _gather(self, timeout: float) -> None:
        """Waits until something waits, and then for some company; ``timeout`` seconds at most."""
        if self.depth or self._wake.wait(timeout):
            self._moved_at = time.monotonic()
            self._closed.wait(GATHER_SECONDS)  # one commit together
            self._wake.clear()  # before looking: what comes from here on wakes the next round

    def _write(self) -> None:
        """Writes what waits now, however often the disk must be asked, in transactions of ``COMMIT_SECONDS``."""
        (pause, longest), most, left = RETRY_SECONDS, ITEMS_AT_ONCE, self.depth
        while True:
            try:
                db = self._opened()
                if not left:
                    self._failing = ""
                    return
                done = self._commit_some(db, self._waiting.first(min(most, left)))
                left -= done
                self._moved_at = time.monotonic()
                pause, most, self._failing = RETRY_SECONDS[0], ITEMS_AT_ONCE, ""
            except FAILURES as e:
                self._refused(e)
                if self._closed.is_set():
                    if isinstance(e, StoreError) or time.monotonic() >= self._end:
                        self._give_up()
                        return
                    pause = RETRY_SECONDS[0]
                    time.sleep(pause)
                self._closed.wait(pause)
                pause, most, left = min(2 * pause, longest), 1, self.depth  # alone, a record may still fit

    def _opened(self) -> sqlite3.Connection:
        """The database, opened anew where its file is no longer the one that was written to."""
        times = self._file.times_gone
        db = self._file.current()
        if self._file.times_gone != times:
            self._pseudonyms.keep()
            self._waiting.lose(Drop.GONE, self._written)
            at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._clock()))
            self._gone = (
                f"{self._path} was deleted or replaced under the running proxy, and opened anew at {at}: "
                f"{self._written} rows that this process had written to it may be gone"
            )
            self._written = 0
        return db

    def _commit_some(self, db: sqlite3.Connection, items: Sequence[Item]) -> int:
        """One transaction over the first items, and how many it took."""
        end = time.monotonic() + COMMIT_SECONDS
        done, added, rows = 0, 0, RecordRows(db, self._policies, self._pseudonyms)
        with db:
            db.execute("BEGIN IMMEDIATE")
            while done < len(items) and (not done or time.monotonic() < end):
                run = _run(items, done)
                added += self._insert(db, rows, [item for item in run if not isinstance(item, Future)])
                rows.keep_files()
                done += len(run)
        self._written += added
        self._waiting.release(done)
        self._waiting.count(rows.losses)
        for item in items[:done]:
            if isinstance(item, Future):
                resolve(item)
        return done

    def _insert(self, db: sqlite3.Connection, make: RecordRows, items: Sequence[Record | Amendment]) -> int:
        """How many of these, all of one kind, were added in one statement: SQLite lets go of the interpreter's lock
        once for all of them, and the event loop next door is not held up by each."""
        rows, behind = [], self._time.behind  # what a clock that is behind calls old is not
        for n, item in enumerate(items, 1):
            if (row := make.of(item)) is not None:
                rows.append((*row[:2], row[2] + behind, row[3]))
            if n % YIELD_ROWS == 0:
                time.sleep(0)  # lets go of the lock: the event loop waits for a few rows at most
        if not rows:
            return 0
        statement = ADD_RECORDS if isinstance(items[0], Record) else ADD_AMENDMENTS
        values = ", ".join(["(?, ?, ?, ?)"] * len(rows))
        try:
            added = db.execute(statement + values, list(chain.from_iterable(rows))).rowcount
        except sqlite3.DataError as e:  # one of them is beyond what SQLite holds
            if len(items) > 1:
                return sum(self._insert(db, make, [item]) for item in items)
            make.unfit(items[0], e)
            return 0
        if added < len(rows):
            log.error("record_ids_repeated", lost=len(rows) - added)
            make.losses.drops[Drop.TWICE] += len(rows) - added
        return added

    def _refused(self, error: Exception) -> None:
        """Counts and tells a refused write; whoever waits for a flush waits no longer."""
        self._errors += 1
        self._failing = str(error)
        log.error("records_unwritten", error=str(error), waiting=self.depth)
        for flush in self._waiting.flushes():
            resolve(flush)

    def _give_up(self) -> None:
        if lost := self.depth - sum(1 for _ in self._waiting.flushes()):
            log.error("records_lost", lost=lost, why=self._failing)
        while items := self._waiting.first(ITEMS_AT_ONCE):
            self._waiting.release(len(items))
            self._waiting.lose(Drop.UNWRITTEN, sum(not isinstance(item, Future) for item in items))
            for item in items:
                if isinstance(item, Future):
                    resolve(item)

    def _prune(self) -> bool:
        """Deletes some of what each policy's retention has passed; whether there may be more."""
        more = False
        try:
            with self._opened() as db:
                self._time.look(db)
                now = self._time.now
                if self._time.believed:  # what a clock that was ahead wrote would be kept until then, and as long again
                    db.execute(DATE_ANEW, (now, now + DAY_SECONDS))
                for policy, rules in self._policies.items():
                    oldest = now - rules.retention_days * DAY_SECONDS
                    more |= db.execute(PRUNE, (policy, oldest, PRUNE_ROWS)).rowcount == PRUNE_ROWS
                longest = max((rules.retention_days for rules in self._policies.values()), default=0)
                if longest:  # what amends a record that was dropped belongs to none
                    db.execute(PRUNE_AMENDMENTS, (now - longest * DAY_SECONDS,))
                self._time.keep(db)
        except FAILURES as e:
            self._errors += 1
            log.error("old_records_undeleted", error=str(e))
        return more


def _run(items: Sequence[Item], start: int) -> Sequence[Item]:
    """The records that follow each other from ``start`` on, ``ROWS_AT_ONCE`` at most; or what else is there."""
    end = start
    while end < min(len(items), start + ROWS_AT_ONCE) and isinstance(items[end], Record):
        end += 1
    return items[start : max(end, start + 1)]

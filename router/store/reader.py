"""Reading records from SQLite, in any process, while others write."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from pydantic import ValidationError

from router.contracts.decision import is_traffic
from router.contracts.records import Audit, Record, read_audit, read_record
from router.errors import StoreError
from router.store.base import ScoredRecord
from router.store.connection import newer, patiently
from router.store.damage import UnreadRow, UnreadRows, reason, salvaged_usd, shown
from router.store.files import MARK, with_files
from router.store.tables import DB_VERSION, FILES_OF, FIRST_IMPORTED

PAGE_ROWS = 500
SCORED_ROWS = 200_000
BUSY_SECONDS = 5.0
ROW = "seq, request_id, policy, created_at, CAST(body AS BLOB)"
# Of what is read in pages, ``{}`` is how the number that they go by is compared.
RECORDS = f"SELECT {ROW} FROM records WHERE seq {{}} ? AND created_at >= ?{{}} ORDER BY seq LIMIT {PAGE_ROWS}"
IMPORTED = f"SELECT {ROW} FROM records WHERE seq {{}} ? AND seq < 0 AND policy = ? ORDER BY seq LIMIT {PAGE_ROWS}"
AUDITS = f"""SELECT a.id, CAST(a.body AS BLOB), r.seq, r.request_id, r.policy, r.created_at, CAST(r.body AS BLOB)
    FROM amendments a JOIN records r ON r.request_id = a.request_id
    WHERE a.id {{}} ? AND a.kind = 'audit' AND r.policy = ? AND a.created_at >= ? AND NOT EXISTS (
        SELECT 1 FROM amendments b WHERE b.request_id = a.request_id AND b.kind = 'audit' AND b.id < a.id)
    ORDER BY a.id LIMIT {PAGE_ROWS}"""
SCORED = f"""SELECT seq, request_id, created_at, json_extract(valid, '$.bundle'),
        json_extract(valid, '$.decision.score'), json_extract(valid, '$.decision.novelty'), valid IS NULL, policy,
        json_extract(valid, '$.decision.reason'), json_extract(valid, '$.reason'), json_extract(valid, '$.fallback')
    FROM (SELECT *, CASE WHEN json_valid(body) AND json_type(body, '$.decision') = 'object' THEN body END AS valid
        FROM records WHERE seq {{}} ?
        AND seq > (SELECT seq FROM sqlite_sequence WHERE name = 'records') - {SCORED_ROWS}
        AND created_at >= ? AND policy = ?)
    WHERE valid IS NULL OR json_extract(valid, '$.embedding') IS NOT 1
    ORDER BY seq LIMIT {PAGE_ROWS}"""


class StoredRow(NamedTuple):
    """A record as it lies there. Any of it may be of any type, where somebody damaged it."""

    seq: int
    request_id: Any
    policy: Any
    created_at: Any
    body: Any


class SqliteReader:
    """The reading side. A database that does not exist yet reads as empty; a row that cannot be read is passed
    over, and told by ``unread``.

    Every method raises StoreError where the database cannot be read, or a newer Locum wrote it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.unread = UnreadRows()

    def records(
        self, policy: str | None = None, after: int = 0, since: float = 0.0, *, embeddings: bool = False
    ) -> Iterator[tuple[int, Record]]:
        """See ``Records``. In pages, so that a slow reader never keeps the log from being checkpointed."""
        query, values = RECORDS.format("{}", " AND policy = ?" if policy else ""), [policy] if policy else []
        with self._reading() as db:
            for page in self._pages(db, "record", query, after, (since, *values)):
                later = self._amendments(db, [request_id for _, request_id, *_ in page])
                for row in map(StoredRow._make, page):
                    if (record := self._record(row)) is not None and (embeddings or not record.embedding):
                        self._join(record, later.get(row.request_id, ()))
                        yield row.seq, self._whole(db, row, record)

    def history(self, policy: str, after: int = FIRST_IMPORTED) -> Iterator[tuple[int, Record]]:
        """See ``Records``."""
        with self._reading() as db:
            for page in self._pages(db, "record", IMPORTED, after, (policy,)):
                for row in map(StoredRow._make, page):
                    if (record := self._record(row)) is not None:
                        yield row.seq, self._whole(db, row, record)

    def audits(self, policy: str, after: int = 0, since: float = 0.0) -> Iterator[tuple[int, Record]]:
        """See ``Records``."""
        with self._reading() as db:
            for page in self._pages(db, "amendment", AUDITS, after, (policy, since)):
                for at, outcome, *found in page:
                    row = StoredRow._make(found)
                    audit = self._audit(at, row.request_id, outcome)
                    if audit is not None and (record := self._record(row)) is not None:
                        record.audit = audit
                        record.heed_feedback()
                        yield at, self._whole(db, row, record)

    def get(self, request_id: str) -> Record | None:
        with self._reading() as db:
            rows = _all(db, f"SELECT {ROW} FROM records WHERE request_id = ?", (request_id,))
            if not rows or (record := self._record(row := StoredRow._make(rows[0]))) is None:
                return None
            self._join(record, self._amendments(db, [request_id]).get(request_id, ()))
            return self._whole(db, row, record)

    def scored(self, policy: str, after: int = 0, since: float = 0.0) -> Iterator[ScoredRecord]:
        """See ``Records``. SQLite itself looks into the JSON, without the interpreter's lock."""
        with self._reading() as db:
            for page in self._pages(db, "record", SCORED, after, (since, policy)):
                for *found, no_json, name, decided, answered, fallback in page:
                    scored = ScoredRecord._make(found)
                    if no_json or not _sound(scored):
                        row = StoredRow(scored.seq, scored.request_id, name, scored.at, b"")
                        self._pass_over(row, "no record" if no_json else "decision: what was scored is no number")
                    elif is_traffic(decided, answered, fallback):
                        yield scored

    def close(self) -> None:
        """Nothing is held open between reads."""

    # ---- what cannot be read ----

    def _record(self, row: StoredRow) -> Record | None:
        try:
            return read_record(row.body if isinstance(row.body, bytes) else b"")
        except (ValidationError, RecursionError) as e:
            self._pass_over(row, reason(e))
            return None

    def _audit(self, at: int, request_id: object, body: object) -> Audit | None:
        try:
            return read_audit(body if isinstance(body, bytes) else b"")
        except (ValidationError, RecursionError) as e:
            self._pass_over_amendment(at, request_id, reason(e), body)
            return None

    def _join(self, record: Record, later: Sequence[tuple[int, str, Any]]) -> None:
        """Adds a record's amendments, in whatever order they came; of several of a kind the last holds."""
        for at, kind, body in later:
            if kind == "audit":
                record.audit = self._audit(at, record.request_id, body) or record.audit
            elif kind == "feedback":
                try:
                    score = orjson.loads(body or b"")
                    record.feedback = float(score) if score is not None else None
                except (ValueError, TypeError) as e:
                    self._pass_over_amendment(at, record.request_id, reason(e))
        record.heed_feedback()

    def _pass_over(self, row: StoredRow, why: str) -> None:
        at = row.created_at if isinstance(row.created_at, float) else 0.0
        usd = salvaged_usd(row.body)
        self.unread.add(UnreadRow("record", row.seq, shown(row.request_id), why, shown(row.policy), at, usd))

    def _pass_over_amendment(self, at: int, request_id: object, why: str, body: object = b"") -> None:
        self.unread.add(UnreadRow("amendment", at, shown(request_id), why, usd=salvaged_usd(body)))

    # ---- the database ----

    def _pages(
        self, db: sqlite3.Connection | None, table: str, query: str, after: int, values: Sequence[object]
    ) -> Iterator[list[tuple[Any, ...]]]:
        """What the query finds, in the order of its first column. Where a page of the file is damaged, what SQLite
        still finds behind it."""
        while db is not None:
            try:
                page = _all(db, query.format(">"), (after, *values))
            except sqlite3.DatabaseError as e:
                if not _damaged(e):
                    raise
                page = self._past_damage(db, table, query.format("="), (after, *values))
            if not page:
                return
            yield page
            after = page[-1][0]

    def _past_damage(
        self, db: sqlite3.Connection, table: str, query: str, values: tuple[Any, ...]
    ) -> list[tuple[Any, ...]]:
        """Looks for each row by its number, until some were found or none is left."""
        after, *others = values
        last, found = _last(db, table), list[tuple[Any, ...]]()
        while not found and after < last:
            numbers = range(after + 1, min(after + PAGE_ROWS, last) + 1)
            for number in numbers:
                try:
                    found += _all(db, query, (number, *others))
                except sqlite3.DatabaseError as e:
                    if not _damaged(e):
                        raise
                    self.unread.add(UnreadRow(table, number, "unknown", str(e)))
            after = numbers[-1]
        return found

    def _amendments(
        self, db: sqlite3.Connection | None, request_ids: Sequence[Any]
    ) -> dict[str, list[tuple[int, str, Any]]]:
        """What was added later, as ``request id -> [(id, kind, body)]``, oldest first."""
        marks = ",".join("?" * len(request_ids))
        query = (
            f"SELECT request_id, id, kind, CAST(body AS BLOB) FROM amendments WHERE request_id IN ({marks}) ORDER BY id"
        )
        found: dict[str, list[tuple[int, str, Any]]] = {}
        try:
            for request_id, *amendment in _all(db, query, request_ids):
                found.setdefault(request_id, []).append((amendment[0], amendment[1], amendment[2]))
        except sqlite3.DatabaseError as e:
            if not _damaged(e):
                raise
            self.unread.add(UnreadRow("amendment", 0, "unknown", str(e)))
        return found

    def _whole(self, db: sqlite3.Connection | None, row: StoredRow, record: Record) -> Record:
        """The record with the files put back that were kept of it."""
        audited = record.audit.answer if record.audit else None
        said = [a for a in (*record.answers, audited) if a is not None and a.message is not None]
        if audited is None and MARK.encode() not in row.body:
            return record
        try:
            files = dict(_all(db, FILES_OF, (row.request_id,)))
        except sqlite3.DatabaseError:  # of an older Locum, or damaged: the marks stay
            return record
        if files:
            record.request = with_files(record.request, files)
            for answer in said:
                answer.message = with_files(answer.message, files)
        return record

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        """A connection that cannot write; None where there is no database yet."""
        try:
            if not self._path.exists():
                yield None
                return
            db, version = patiently(self._open, BUSY_SECONDS)
            with closing(db):
                if version > DB_VERSION:
                    raise StoreError(newer(self._path, version, DB_VERSION))
                yield db if version else None
        except (sqlite3.Error, OSError) as e:
            raise StoreError(f"cannot read the records at {self._path}: {e}") from e

    def _open(self) -> tuple[sqlite3.Connection, int]:
        db = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            db.text_factory = readable_text
            db.execute("PRAGMA query_only = ON")
            return db, db.execute("PRAGMA user_version").fetchone()[0]
        except BaseException:
            db.close()
            raise


def _all(db: sqlite3.Connection | None, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
    return db.execute(query, tuple(values)).fetchall() if db else []


def readable_text(raw: bytes) -> str:
    """A column's text, whatever bytes somebody put there."""
    return raw.decode(errors="replace")


def _damaged(error: sqlite3.DatabaseError) -> bool:
    return (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF == sqlite3.SQLITE_CORRUPT


def _last(db: sqlite3.Connection, table: str) -> int:
    """The highest number of a row; of records the highest ever given, without looking at any."""
    query = "SELECT seq FROM sqlite_sequence WHERE name = 'records'"
    rows = _all(db, query if table == "record" else "SELECT MAX(id) FROM amendments", ())
    return int(rows[0][0] or 0) if rows else 0


def _sound(scored: ScoredRecord) -> bool:
    numbers = (scored.at, scored.score, scored.novelty)
    return (
        all(n is None or (isinstance(n, int | float) and math.isfinite(n)) for n in numbers)
        and scored.at is not None
        and isinstance(scored.request_id, str)
        and isinstance(scored.bundle, str | None)
    )

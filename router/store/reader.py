"""Reading records from SQLite, in any process, while others write."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from router.contracts.records import Record, read_audit, read_record
from router.errors import StoreError
from router.store.base import Scored
from router.store.opening import newer, patiently

DB_VERSION = 1
PAGE_ROWS = 500
SCORED_ROWS = 200_000
BUSY_SECONDS = 5.0
AUDITS = f"""SELECT a.id, r.body, a.body FROM amendments a JOIN records r ON r.request_id = a.request_id
    WHERE a.id > ? AND a.kind = 'audit' AND r.policy = ? AND a.created_at >= ? AND NOT EXISTS (
        SELECT 1 FROM amendments b WHERE b.request_id = a.request_id AND b.kind = 'audit' AND b.id < a.id)
    ORDER BY a.id LIMIT {PAGE_ROWS}"""


class SqliteReader:
    """The reading side. A database that does not exist yet reads as empty.

    Every method raises StoreError where the database cannot be read, or a newer Locum wrote it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def records(self, policy: str | None = None, after: int = 0, since: float = 0.0) -> Iterator[tuple[int, Record]]:
        """See ``Records``. In pages, so that a slow reader never keeps the log from being checkpointed."""
        only = " AND policy = ?" if policy else ""
        query = (
            "SELECT seq, request_id, body FROM records"
            f" WHERE seq > ? AND created_at >= ?{only} ORDER BY seq LIMIT {PAGE_ROWS}"
        )
        with self._reading() as db:
            while rows := _all(db, query, (after, since, *([policy] if policy else []))):
                later = _amendments(db, [request_id for _, request_id, _ in rows])
                for seq, request_id, body in rows:
                    yield seq, _load(body, later.get(request_id, []))
                after = rows[-1][0]

    def audits(self, policy: str, after: int = 0, since: float = 0.0) -> Iterator[tuple[int, Record]]:
        """See ``Records``."""
        with self._reading() as db:
            while rows := _all(db, AUDITS, (after, policy, since)):
                for at, body, outcome in rows:
                    yield at, _load(body, [("audit", outcome)])
                after = rows[-1][0]

    def get(self, request_id: str) -> Record | None:
        with self._reading() as db:
            rows = _all(db, "SELECT body FROM records WHERE request_id = ?", (request_id,))
            return _load(rows[0][0], _amendments(db, [request_id]).get(request_id, [])) if rows else None

    def scored(self, policy: str, after: int = 0, since: float = 0.0) -> Iterator[Scored]:
        """See ``Records``. SQLite itself looks into the JSON, without the interpreter's lock."""
        query = (
            "SELECT seq, request_id, created_at, json_extract(body, '$.bundle'),"
            " json_extract(body, '$.decision.score'), json_extract(body, '$.decision.novelty')"
            " FROM records WHERE seq > ?"
            f" AND seq > (SELECT MAX(seq) FROM records) - {SCORED_ROWS}"
            f" AND created_at >= ? AND policy = ? ORDER BY seq LIMIT {PAGE_ROWS}"
        )
        with self._reading() as db:
            while rows := _all(db, query, (after, since, policy)):
                yield from map(Scored._make, rows)
                after = rows[-1][0]

    def close(self) -> None:
        """Nothing is held open between reads."""

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        """A connection that cannot write; None where there is no database yet."""
        if not self._path.exists():
            yield None
            return
        try:
            db, version = patiently(self._open, BUSY_SECONDS)
            with closing(db):
                if version > DB_VERSION:
                    raise StoreError(newer(self._path, version, DB_VERSION))
                yield db if version else None
        except sqlite3.Error as e:
            raise StoreError(f"cannot read the records at {self._path}: {e}") from e

    def _open(self) -> tuple[sqlite3.Connection, int]:
        db = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            db.execute("PRAGMA query_only = ON")
            return db, db.execute("PRAGMA user_version").fetchone()[0]
        except BaseException:
            db.close()
            raise


def _all(db: sqlite3.Connection | None, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
    return db.execute(query, tuple(values)).fetchall() if db else []


def _amendments(db: sqlite3.Connection | None, request_ids: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    """What was added later, as ``request id -> [(kind, body)]``, oldest first."""
    marks = ",".join("?" * len(request_ids))
    query = f"SELECT request_id, kind, body FROM amendments WHERE request_id IN ({marks}) ORDER BY id"
    found: dict[str, list[tuple[str, str]]] = {}
    for request_id, kind, body in _all(db, query, request_ids):
        found.setdefault(request_id, []).append((kind, body))
    return found


def _load(body: str, later: Sequence[tuple[str, str]]) -> Record:
    """A record with its amendments, in whatever order they came; of several of a kind the last holds."""
    try:
        record = read_record(body)
        for kind, amendment in later:
            if kind == "audit":
                record.audit = read_audit(amendment)
            elif kind == "feedback":
                record.feedback = json.loads(amendment)
        record.heed_feedback()
    except ValidationError as e:
        raise StoreError(f"a record cannot be read; a newer Locum may have written it: {e}") from e
    return record

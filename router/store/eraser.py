"""Erasing records from SQLite, beside a proxy that goes on writing."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from router.errors import StoreError
from router.store.base import Traces
from router.store.connection import newer, patiently
from router.store.pseudonyms import Pseudonyms
from router.store.reader import BUSY_SECONDS, readable_text
from router.store.tables import DB_VERSION

AT_ONCE = 200
"""Records in one transaction: a writer beside it waits for a few milliseconds."""
SCAN_ROWS = 20_000
"""Records that one read looks at: the log can be checkpointed between two."""
CHECKPOINT_SECONDS = 5.0
RESPONSES_VERSION = 1
"""Of ``router.api.responses.store``, whose file this is."""

_T = TypeVar("_T")
# ``?1`` is who is looked for, ``?4`` their pseudonym. A row that is no JSON any more is theirs where it names them.
_NAMED = """CASE WHEN json_valid(body) THEN json_extract(body, '$.{0}')
    WHEN instr(CAST(body AS TEXT), '"{0}":' || json_quote(?1)) THEN ?1
    WHEN instr(CAST(body AS TEXT), '"{0}":' || json_quote(?4)) THEN ?4 END"""
_WHO, _WHICH = _NAMED.format("user"), _NAMED.format("conversation_id")


class SqliteEraser:
    """See ``Eraser``. ``responses``: the file of the responses that clients asked to be kept.

    Every method raises StoreError where a database cannot be read or written, or a newer Locum wrote it.
    """

    def __init__(self, records: Path, responses: Path) -> None:
        self._records, self._responses = records, responses
        self._pseudonyms = Pseudonyms(records.parent)

    def find(self, *, user: str | None = None, conversation: str | None = None) -> Traces:
        names = self._pseudonyms.all_of(user or conversation or "")
        column = _WHICH if user is None else _WHO
        found = self._on(self._records, DB_VERSION, lambda db: _found(db, column, names))
        return found or Traces(names=frozenset(names))

    def erase(self, traces: Traces) -> int:
        ids, mine = traces.request_ids, traces.conversations
        self._on(self._responses, RESPONSES_VERSION, lambda db: self._forget(db, mine))
        return self._on(self._records, DB_VERSION, lambda db: _delete(db, "records", "request_id", ids)) or 0

    def _forget(self, db: sqlite3.Connection, conversations: frozenset[str]) -> None:
        """Answers are kept with their conversation as its client calls it."""
        there = [str(name) for (name,) in db.execute("SELECT DISTINCT conversation FROM responses")]
        theirs = [name for name in there if not conversations.isdisjoint(self._pseudonyms.all_of(name))]
        _delete(db, "responses", "conversation", theirs)

    def _on(self, path: Path, version: int, work: Callable[[sqlite3.Connection], _T]) -> _T | None:
        """None where there is no such database."""
        if not path.exists():
            return None
        try:
            with closing(patiently(lambda: _opened(path, version), BUSY_SECONDS)) as db:
                return work(db)
        except sqlite3.Error as e:
            raise StoreError(f"cannot erase from {path}: {e}") from e


def _opened(path: Path, version: int) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        db.text_factory = readable_text
        written = db.execute("PRAGMA user_version").fetchone()[0]
        if written > version:
            raise StoreError(newer(path, written, version))
        db.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten, not only let go of
    except BaseException:
        db.close()
        raise
    return db


def _found(db: sqlite3.Connection, column: str, names: tuple[str, ...]) -> Traces:
    found = list(_scan(db, f"SELECT request_id, {_WHICH} FROM records WHERE {column} IN (?1, ?4)", names))
    conversations = {str(which) for _, which in found if which is not None}
    if column == _WHICH:
        conversations = set(names)
    elif conversations:
        others = f"SELECT request_id, {_WHICH} FROM records WHERE ifnull({_WHO} NOT IN (?1, ?4), TRUE)"
        conversations.difference_update([str(which) for _, which in _scan(db, others, names)])
    return Traces(tuple(str(request_id) for request_id, _ in found), frozenset(conversations), frozenset(names))


def _scan(db: sqlite3.Connection, query: str, names: tuple[str, ...]) -> Iterator[tuple[object, object]]:
    """The query over all records, some of them at a time."""
    for first in _places(db):
        yield from db.execute(
            f"{query} AND seq > ?2 AND seq <= ?3", (names[0], first, first + SCAN_ROWS, names[-1])
        ).fetchall()


def _places(db: sqlite3.Connection) -> Iterator[int]:
    """The numbers behind which to look: of what was imported, then of what came through here."""
    for where in ("seq < 0", "seq > 0"):
        first, last = db.execute(f"SELECT MIN(seq), MAX(seq) FROM records WHERE {where}").fetchone()
        yield from range((first or 1) - 1, last or 0, SCAN_ROWS) if first is not None else ()


def _delete(db: sqlite3.Connection, table: str, column: str, values: Sequence[str]) -> int:
    """Deletes in small transactions, then takes the text out of the write-ahead log too."""
    deleted = 0
    for first in range(0, len(values), AT_ONCE):
        some = values[first : first + AT_ONCE]
        marks = ",".join("?" * len(some))
        deleted += db.execute(f"DELETE FROM {table} WHERE {column} IN ({marks})", tuple(some)).rowcount
    deadline = time.monotonic() + CHECKPOINT_SECONDS
    while deleted and db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        if time.monotonic() > deadline:
            raise StoreError(
                f"{deleted} rows were deleted, but a reader keeps what they said in the write-ahead log; call it again"
            )
    return deleted

"""Writing what another system logged: records in batches, each with the journal of how far the file was read."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import orjson

from router.contracts.records import Record
from router.errors import StoreError
from router.policy.policy import Policy
from router.store.connection import OwnedFile
from router.store.pseudonyms import Pseudonyms
from router.store.rows import RecordRows
from router.store.supported_time import DAY_SECONDS, SupportedTime
from router.store.tables import (
    ADD_IMPORTED,
    DB_VERSION,
    FIRST_IMPORTED,
    IMPORT_OF,
    KEEP_IMPORT,
    NEWEST,
    PRAGMAS,
    SCHEMA,
)

ADDED, KNOWN, UNFIT = "kept", "the same call again", "nothing that can be kept"
"""What becomes of a record, in words for people."""
BUSY_SECONDS = 30.0
"""A proxy that writes beside it is waited for so long."""
PRUNE = "DELETE FROM records WHERE seq < 0 AND policy = ? AND created_at < ?"


@dataclass(frozen=True, slots=True)
class ImportJournal:
    """How far a file was imported: ``bytes`` of it with their ``digest``; since when (unix time), and what became of
    its lines until there. ``head`` tells which file it is."""

    head: str
    bytes: int = 0
    digest: str = ""
    at: float = 0.0
    counts: Mapping[str, int] = field(default_factory=dict)


class ImportStore:
    """The records of a home, opened to write one policy's history. What is committed is there whole, with its journal.

    Imported records are kept for the policy's ``retention_days`` from their import on.

    Raises:
        StoreError: the database cannot be opened or written, or a newer Locum wrote it.
    """

    def __init__(self, path: Path, policy: Policy) -> None:
        self._file = OwnedFile(
            path, "records", version=DB_VERSION, schema=SCHEMA, busy_seconds=BUSY_SECONDS, pragmas=PRAGMAS
        )
        self._policy, self._path = policy, path
        self._pseudonyms = Pseudonyms(path.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def journal(self, head: str) -> ImportJournal | None:
        """What is known of this file; None where it was never imported for this policy."""
        row = self._file.current().execute(IMPORT_OF, (head, self._policy.name)).fetchone()
        return ImportJournal(head, row[0], row[1], row[2], orjson.loads(row[3])) if row else None

    def commit(self, records: Sequence[Record], again: Sequence[Record], journal: ImportJournal) -> ImportJournal:
        """Adds what is not there yet, and keeps the journal with what became of these. Of those that are looked at
        ``again`` only what is added counts."""
        db, counts = self._file.current(), Counter(journal.counts)
        rows = RecordRows(db, {self._policy.name: self._policy.log}, self._pseudonyms)
        made = [(record, rows.of(record)) for record in (*records, *again)]
        try:
            with db:
                db.execute("BEGIN IMMEDIATE")
                for place, (record, row) in enumerate(made):
                    outcome = UNFIT if row is None else self._add(db, row, record)
                    if outcome == ADDED or place < len(records):
                        counts[outcome] += 1
                rows.keep_files()
                told = journal.head, self._policy.name, journal.bytes, journal.digest, journal.at
                db.execute(KEEP_IMPORT, (*told, orjson.dumps(counts).decode()))
        except sqlite3.Error as e:
            raise StoreError(f"cannot write the records at {self._path}: {e}") from e
        return replace(journal, counts=dict(counts))

    def _add(self, db: sqlite3.Connection, row: tuple[str, str, float, str], record: Record) -> str:
        at = record.imported.at if record.imported else record.created_at
        added = db.execute(ADD_IMPORTED, (FIRST_IMPORTED, row[0], row[1], at, row[3])).rowcount
        return ADDED if added else KNOWN

    def prune(self) -> int:
        """Takes away what was imported longer ago than records are kept; how many there were."""
        db, supported = self._file.current(), SupportedTime(NEWEST, time.time)
        supported.look(db)
        supported.keep(db)
        oldest = supported.now - self._policy.log.retention_days * DAY_SECONDS
        return db.execute(PRUNE, (self._policy.name, oldest)).rowcount

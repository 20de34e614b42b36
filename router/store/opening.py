"""Opening a SQLite file that several processes write at once, and that holds what users wrote."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from router.errors import StoreError


def open_owned(
    path: Path, what: str, *, version: int, schema: str, busy_seconds: float, pragmas: Sequence[str] = ()
) -> sqlite3.Connection:
    """A connection in autocommit mode, for any one thread, with the tables made. The file is its owner's alone.

    ``what`` names the content to people; ``version`` is the newest that is known here; ``pragmas`` are set
    before anything is written.

    Raises:
        StoreError: it cannot be opened, or a newer version wrote it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        db = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
        written = db.execute("PRAGMA user_version").fetchone()[0]
        if written <= version:
            for pragma in (*pragmas, "journal_mode = WAL", "synchronous = NORMAL"):
                db.execute(f"PRAGMA {pragma}")
            db.executescript(schema)
            db.execute(f"PRAGMA user_version = {version}")
            return db
    except (OSError, sqlite3.Error) as e:
        raise StoreError(f"cannot open the {what} at {path}: {e}") from e
    db.close()
    raise StoreError(newer(path, written, version))


def newer(path: Path, written: int, known: int) -> str:
    """What to tell people of a file that a newer version wrote."""
    return f"{path} was written by a newer Locum (version {written}, this one knows {known})"

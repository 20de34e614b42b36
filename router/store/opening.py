"""Opening a SQLite file that several processes write at once, and that holds what users wrote."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from router.errors import StoreError

_T = TypeVar("_T")
RETRY_SECONDS = 0.01


def open_owned(
    path: Path, what: str, *, version: int, schema: str, busy_seconds: float, pragmas: Sequence[str] = ()
) -> sqlite3.Connection:
    """A connection in autocommit mode, for any one thread, with the tables made. The file is its owner's alone.

    ``what`` names the content to people; ``version`` is the newest that is known here; ``pragmas`` are set
    before anything is written; another process is waited for ``busy_seconds`` at most.

    Raises:
        StoreError: it cannot be opened, or a newer version wrote it.
    """

    def opened() -> sqlite3.Connection:
        db = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
        try:
            written = db.execute("PRAGMA user_version").fetchone()[0]
            if written > version:
                raise StoreError(newer(path, written, version))
            for pragma in (*pragmas, "journal_mode = WAL", "synchronous = NORMAL"):
                db.execute(f"PRAGMA {pragma}")
            db.executescript(schema)
            db.execute(f"PRAGMA user_version = {version}")
        except BaseException:
            db.close()
            raise
        return db

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        return patiently(opened, busy_seconds)
    except (OSError, sqlite3.Error) as e:
        raise StoreError(f"cannot open the {what} at {path}: {e}") from e


def patiently(attempt: Callable[[], _T], seconds: float) -> _T:
    """``attempt()``, again while another process has the file to itself, for ``seconds`` at most.

    SQLite's own timeout does not cover it all: who opens a file while its last user closes it, or while
    another makes it a WAL, is told at once that it is locked.

    Raises:
        sqlite3.Error: it failed, or was still locked at the end.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except sqlite3.OperationalError as e:
            if e.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(RETRY_SECONDS)


def newer(path: Path, written: int, known: int) -> str:
    """What to tell people of a file that a newer version wrote."""
    return f"{path} was written by a newer Locum (version {written}, this one knows {known})"

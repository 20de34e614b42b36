"""Opening a SQLite file that several processes write at once, and that holds what users wrote."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import structlog

from router.errors import StoreError

log = structlog.get_logger(__name__)

_T = TypeVar("_T")
RETRY_SECONDS = 0.01


class OwnedFile:
    """A SQLite file with its tables made, which is its owner's alone; ``current`` is a connection to it in autocommit
    mode, for any one thread at a time.

    ``what`` names the content to people; ``version`` is the newest that is known here; ``pragmas`` are set
    before anything is written; another process is waited for ``busy_seconds`` at most.

    Raises:
        StoreError: it cannot be opened, or a newer version wrote it.
    """

    def __init__(
        self, path: Path, what: str, *, version: int, schema: str, busy_seconds: float, pragmas: Sequence[str] = ()
    ) -> None:
        self._path, self._what, self._version, self._schema = path, what, version, schema
        self._busy_seconds, self._pragmas = busy_seconds, pragmas
        self.times_gone = 0
        self._db: sqlite3.Connection | None = None
        self._which: _Which | None = None
        self._wal: _Which | None = None
        self._open()

    def current(self) -> sqlite3.Connection:
        """The connection, to another file where the path has another by now, or none: it is made again, with its
        folder. ``times_gone`` counts how often that was.

        Raises:
            StoreError: it cannot be opened.
        """
        if self._db is not None and _which(self._path) != self._which:
            log.error("database_gone", what=self._what, path=str(self._path))
            self.times_gone += 1
            self.close()
            if _which(self._beside("-wal")) == self._wal:  # SQLite would write it into what lies there now
                for end in ("-wal", "-shm"):
                    self._beside(end).unlink(missing_ok=True)
        return self._db or self._open()

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _beside(self, end: str) -> Path:
        return self._path.with_name(self._path.name + end)

    def _open(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
            self._which = _which(self._path)
            self._db = patiently(self._connected, self._busy_seconds)
            self._wal = _which(self._beside("-wal"))
        except (OSError, sqlite3.Error) as e:
            raise StoreError(f"cannot open the {self._what} at {self._path}: {_told(e)}; {remedy(e)}") from e
        return self._db

    def _connected(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=self._busy_seconds, isolation_level=None, check_same_thread=False)
        try:
            written = db.execute("PRAGMA user_version").fetchone()[0]
            if written > self._version:
                raise StoreError(newer(self._path, written, self._version))
            for pragma in (*self._pragmas, "journal_mode = WAL", "synchronous = NORMAL"):
                db.execute(f"PRAGMA {pragma}")
            db.executescript(self._schema)
            db.execute(f"PRAGMA user_version = {self._version}")
        except BaseException:
            db.close()
            raise
        return db


_Which = tuple[int, int]


def _which(path: Path) -> _Which | None:
    """Tells one file from another that came into its place; None where there is none, or none can be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _told(error: OSError | sqlite3.Error) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def remedy(error: OSError | sqlite3.Error) -> str:
    """What to do, for people."""
    code = (
        error.sqlite_errorcode & 0xFF if isinstance(error, sqlite3.Error) and hasattr(error, "sqlite_errorcode") else 0
    )
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return "move it away, and a new one is made"
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return "another process keeps it to itself: end that one first"
    if code == sqlite3.SQLITE_FULL or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
        return "make room on the disk"
    if isinstance(error, IsADirectoryError | NotADirectoryError | FileExistsError):
        return "move away what lies in its place, or name another folder in LOCUM_HOME"
    return "let this user write there, or name another folder in LOCUM_HOME"


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
    return (
        f"{path} was written by a newer Locum (version {written}, this one knows {known}): update this one, or name "
        "another folder in LOCUM_HOME"
    )

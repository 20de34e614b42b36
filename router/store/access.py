"""How a store of records is opened: to write, to read, to erase."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import structlog

from router.errors import StoreError
from router.policy.policy import Policy
from router.settings import Settings
from router.store.base import Eraser, Records, Store

MADE_LATER = ("bundles", "work")
"""Folders of a home that are made once there is something to put in."""

log = structlog.get_logger(__name__)


def open_store(settings: Settings, policies: Sequence[Policy]) -> Store:
    """Opens the store for writing, with each policy's word on text, redaction and retention. What waits to be
    written takes ``settings.limits.queue_bytes`` at most.

    Raises:
        StoreError: it cannot be opened, or was written by a newer Locum.
    """
    from router.store.sqlite import SqliteStore  # base names no implementation

    rules = {p.name: p.log for p in policies}
    return SqliteStore(settings.records_db, rules, queue_bytes=settings.limits.queue_bytes)


def check_store(settings: Settings) -> None:
    """Makes sure that records can be kept, before anything is started that would.

    Raises:
        StoreError: they cannot; it says why and what to do.
    """
    open_store(settings, ()).close()
    try:
        for folder in (settings.run, settings.logs):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (settings.home / name for name in MADE_LATER):
            if folder.exists() and not folder.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, "Not a directory", str(folder))
    except OSError as e:
        raise unusable(e) from e


def unusable(error: OSError) -> StoreError:
    """What to tell people of a file or a folder that cannot be used."""
    from router.store.connection import remedy

    return StoreError(f"cannot use {error.filename}: {error.strerror}; {remedy(error)}")


def open_readonly(settings: Settings) -> Records:
    """Opens the store for reading; where nothing was ever recorded it simply has no records."""
    from router.store.reader import SqliteReader

    return SqliteReader(settings.records_db)


@contextmanager
def reading(settings: Settings) -> Iterator[Records]:
    """The store open for reading; at the end the log says what of it could not be read."""
    with closing(open_readonly(settings)) as records:
        try:
            yield records
        finally:
            if said := records.unread.said():
                log.warning("records_unreadable", why=said)


def open_eraser(settings: Settings) -> Eraser:
    """Opens the store to erase from it; where nothing was ever recorded there is nothing to find."""
    from router.store.eraser import SqliteEraser

    return SqliteEraser(settings.records_db, settings.home / "responses.db")

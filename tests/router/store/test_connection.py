"""Waiting for a file that another has to itself, also where SQLite would not."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from itertools import chain, repeat
from pathlib import Path

import pytest

from router.errors import StoreError
from router.store.connection import OwnedFile, patiently


def failing(times: int | None, code: int) -> Callable[[], str]:
    """What fails so many times, or for ever, with SQLite's code, and then returns."""
    failure = sqlite3.OperationalError("database is locked")
    failure.sqlite_errorcode = code
    left = chain(repeat(failure, times), repeat(None)) if times is not None else repeat(failure)

    def attempt() -> str:
        if e := next(left):
            raise e
        return "opened"

    return attempt


@pytest.mark.parametrize("code", [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY_RECOVERY])
def test_who_is_told_at_once_that_a_file_is_locked_asks_again(code: int) -> None:
    assert patiently(failing(3, code), 30.0) == "opened"


def test_but_not_for_ever() -> None:
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        patiently(failing(None, sqlite3.SQLITE_BUSY), 0.05)


def test_nor_after_another_fault() -> None:
    with pytest.raises(sqlite3.OperationalError):
        patiently(failing(1, sqlite3.SQLITE_FULL), 30.0)


def folder_in_its_place(path: Path) -> None:
    path.mkdir()


def text_in_its_place(path: Path) -> None:
    path.write_text("nothing that SQLite wrote, though long enough to be looked at " * 100)


def file_for_a_folder(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("")


def newer(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()


@pytest.mark.parametrize(
    ("prepare", "remedy"),
    [
        (folder_in_its_place, "move away what lies in its place"),
        (text_in_its_place, "move it away, and a new one is made"),
        (file_for_a_folder, "move away what lies in its place"),
        (newer, "update this one"),
    ],
)
def test_what_cannot_be_opened_says_so_in_a_line_with_what_to_do(
    tmp_path: Path, prepare: Callable[[Path], None], remedy: str
) -> None:
    path = tmp_path / "home" / "records.db"
    path.parent.mkdir()
    prepare(path)
    with pytest.raises(StoreError, match=remedy) as told:
        OwnedFile(path, "records", version=1, schema="", busy_seconds=0.1)
    assert "\n" not in str(told.value) and str(path) in str(told.value)

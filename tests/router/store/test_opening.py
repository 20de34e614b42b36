"""Waiting for a file that another has to itself, also where SQLite would not."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from itertools import chain, repeat

import pytest

from router.store.opening import patiently


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

"""Nothing is deleted by a clock alone, and nothing is kept for ever."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from router.store.supported_time import SCHEMA, SupportedTime

DAY = 86_400.0
NOW = 1_700_000_000.0
NEWEST = "SELECT max(at) FROM written"


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as opened:
        opened.executescript(f"{SCHEMA} CREATE TABLE written (at REAL); INSERT INTO written VALUES ({NOW})")
        yield opened


def looked(db: sqlite3.Connection, clock: float, up: float) -> SupportedTime:
    """What a fresh process sees."""
    found = SupportedTime(NEWEST, lambda: NOW + clock, lambda: up)
    found.look(db)
    found.keep(db)
    return found


def test_a_clock_that_is_ahead_is_believed_after_three_days_of_running(db: sqlite3.Connection) -> None:
    assert looked(db, 0, 100).now == NOW
    ahead = looked(db, 40 * DAY, 200)
    assert ahead.now == NOW + 100 and "40.0 days ahead" in ahead.problem and "after 72 h" in ahead.problem
    assert looked(db, 42 * DAY, 200 + 2 * DAY).now == NOW + 100 + 2 * DAY
    assert "after 4 h" in looked(db, 42 * DAY + 72_000, 200 + 2 * DAY + 72_000).problem
    assert looked(db, 43 * DAY, 200 + 3 * DAY).now == NOW + 43 * DAY
    assert not looked(db, 43 * DAY, 200 + 3 * DAY).problem


def test_only_time_that_it_stood_is_counted_for_it(db: sqlite3.Connection) -> None:
    looked(db, 0, 0)
    assert not looked(db, 4 * DAY, 4 * DAY).problem, "the machine was up meanwhile"
    assert looked(db, 44 * DAY, 8 * DAY).now == NOW + 8 * DAY, "it was down, not in doubt"
    assert looked(db, 10 * DAY, 10 * DAY).now == NOW + 10 * DAY, "and back"
    assert looked(db, 52 * DAY, 12 * DAY).now == NOW + 12 * DAY, "the doubt begins anew"


def test_after_a_long_stop_old_records_go_in_the_end(db: sqlite3.Connection) -> None:
    looked(db, 0, 9 * DAY)
    for day in range(3):  # of a machine that is started anew each day
        found = looked(db, (100 + day) * DAY, 60)
        assert found.now < NOW + 10 * DAY
        found = looked(db, (100.99 + day) * DAY, 86_400)
    assert found.problem
    assert looked(db, 103.5 * DAY, 43_200).now == NOW + 103.5 * DAY


def test_a_clock_that_is_behind_takes_nothing_and_makes_nothing_old(db: sqlite3.Connection) -> None:
    looked(db, 0, 0)
    behind = looked(db, -NOW, 5)
    assert (behind.now, behind.behind) == (0, NOW + 5) and "behind" in behind.problem
    assert looked(db, 0, 10).now == NOW
    looked(db, -2 * DAY, 20)
    assert not looked(db, DAY, 20 + 3 * DAY).problem, "it was set right for good"


def test_a_log_that_was_never_looked_at_begins_with_its_newest_record(db: sqlite3.Connection) -> None:
    found = looked(db, 40 * DAY, 0)
    assert found.now == NOW and found.problem
    db.executescript("DELETE FROM written; DELETE FROM supported_time")
    assert looked(db, 40 * DAY, 0).now == NOW + 40 * DAY


def test_a_pause_of_a_day_is_none(db: sqlite3.Connection) -> None:
    looked(db, 0, 9 * DAY)
    assert looked(db, DAY, 30).now == NOW + DAY

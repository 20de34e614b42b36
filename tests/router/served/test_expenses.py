"""A start counts what was spent on its day before it, whatever became of the log and of the clock meanwhile."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from router.contracts.decision import Tier
from router.contracts.records import Audit, Record
from router.policy.policy import LogPart
from router.routing.budget import DAY_SECONDS
from router.routing.state.machine import MachineState, create
from router.served.expenses import count_before, known, spent_before
from router.settings import Settings
from router.store.base import Records, Store
from router.store.reader import SqliteReader
from router.store.sqlite import SqliteStore

MakeRecord = Callable[..., Record]
YESTERDAY = time.time() // DAY_SECONDS - 1
MIDNIGHT = YESTERDAY * DAY_SECONDS
NOON = MIDNIGHT + DAY_SECONDS / 2


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(SqliteStore(Settings(home=tmp_path).records_db, {"default": LogPart()})) as opened:
        yield opened


@pytest.fixture
def reader(store: Store, tmp_path: Path) -> Records:
    return SqliteReader(Settings(home=tmp_path).records_db)


def costing(make_record: MakeRecord, id: str, usd: str, at: float, **changes: object) -> Record:
    record = make_record(id, tier=Tier.TEACHER, created_at=at, **changes)
    return replace(record, answers=[replace(record.answers[0], cost_usd=Decimal(usd))])


async def test_it_is_what_the_teacher_cost_that_day_for_clients_and_for_audits(
    store: Store, reader: Records, make_record: MakeRecord
) -> None:
    store.append(costing(make_record, "yesterday", "100", MIDNIGHT - 700))
    store.append(costing(make_record, "across", "1", MIDNIGHT - 5, seconds=9.0))
    store.append(costing(make_record, "today", "2", NOON))
    store.append(make_record("student", created_at=NOON))
    store.append(costing(make_record, "mine", "1000", NOON + 1))
    store.amend("today", audit=Audit(judge_usd=Decimal("0.5")))
    await store.flush()
    assert spent_before(reader, "default", NOON + 1) == (MIDNIGHT, Decimal(3), Decimal("0.5"))


async def test_rows_that_cannot_be_read_count_for_what_they_tell_and_odd_costs_take_nothing_back(
    store: Store, reader: Records, make_record: MakeRecord, tmp_path: Path
) -> None:
    for id in ("good", "torn", "odd", "negative", "huge"):
        store.append(costing(make_record, id, "-9" if id == "negative" else "2", NOON))
    await store.flush()
    with closing(sqlite3.connect(Settings(home=tmp_path).records_db)) as db, db:
        torn = "UPDATE records SET body = substr(body, 1, length(body) - 20) WHERE request_id = 'torn'"
        db.execute(torn)
        db.execute("UPDATE records SET body = replace(body, '\"2\"', '\"NaN\"') WHERE request_id = 'odd'")
        db.execute("UPDATE records SET body = replace(body, '\"2\"', '\"1e30\"') WHERE request_id = 'huge'")
    assert spent_before(reader, "default", NOON + 1) == (MIDNIGHT, Decimal(4) + Decimal("1e30"), Decimal(0))


async def test_what_a_clock_dated_a_day_ahead_before_it_was_set_right_was_spent_today(
    store: Store, reader: Records, make_record: MakeRecord
) -> None:
    tomorrow = time.time() + DAY_SECONDS
    store.append(costing(make_record, "before", "2", tomorrow))
    store.append(costing(make_record, "today", "7", time.time() - 1))
    await store.flush()
    at, served, _ = spent_before(reader, "default", time.time()) or (0.0, None, None)
    assert (at // DAY_SECONDS, served) == (time.time() // DAY_SECONDS, Decimal(9))


async def test_one_worker_counts_for_all_and_until_then_they_wait_a_moment(reader: Records, tmp_path: Path) -> None:
    with create(tmp_path, 2) as file:
        first, second = (MachineState(file.fileno(), slot) for slot in range(2))
        await count_before(reader, second, dict)
        await known(second, 0.05)
        assert not second.knows_spending
        await count_before(reader, first, dict)
        await known(second)
        assert second.knows_spending

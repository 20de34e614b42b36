"""Records survive what happens to the process, and never bother who appends them."""

import asyncio
import logging
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from router.contracts.decision import Tier
from router.contracts.records import Answer, AnswerKind, Audit, Record
from router.errors import StoreError
from router.policy.policy import LogPart
from router.store.reader import SqliteReader
from router.store.record_json import kept_record
from router.store.sqlite import ROOM_FOR_TOLD, SqliteStore
from router.store.supported_time import machine_uptime
from tests.fakes import until

MakeRecord = Callable[..., Record]
TEXT = LogPart(text=True, redact=("email",))
DAY = 86_400.0
NOW = 1_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "records.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path, {"default": TEXT}, clock=lambda: NOW)) as opened:
        yield opened


def audit(acceptable: bool = True) -> Audit:
    message = {"role": "assistant", "content": "tell c@example.com"}
    answer = Answer(tier=Tier.TEACHER, kind=AnswerKind.AUDITED, model="big", message=message)
    return Audit(answer=answer, acceptable=acceptable, judge="exact")


async def test_what_was_appended_is_read_back_whole(store: SqliteStore, make_record: MakeRecord) -> None:
    written = make_record("r-1", request=None, answers=[])
    store.append(written)
    store.append(make_record("r-2", policy="other"))
    await store.flush()
    assert store.get("r-1") == written
    assert store.get("r-9") is None
    assert [(seq, r.request_id) for seq, r in store.records()] == [(1, "r-1"), (2, "r-2")]
    assert [r.request_id for _, r in store.records(policy="other")] == ["r-2"]
    assert [r.request_id for _, r in store.records(after=1)] == ["r-2"]
    assert list(store.records(since=1_000_001.0)) == []
    assert (store.depth, store.dropped, store.errors) == (0, 0, 0)


async def test_an_amendment_may_overtake_nothing(store: SqliteStore, make_record: MakeRecord) -> None:
    store.append(make_record("r-1"))
    store.amend("r-1", audit=audit(acceptable=False))
    store.amend("r-1", feedback=0.25)
    store.amend("r-1", feedback=1.0)
    await store.flush()
    record = store.get("r-1")
    assert record is not None and record.audit is not None
    assert (record.audit.acceptable, record.feedback) == (False, 1.0)
    assert [r.audit is not None for _, r in store.records()] == [True]


async def test_audits_are_read_in_the_order_of_their_outcomes_each_request_once(
    store: SqliteStore, make_record: MakeRecord
) -> None:
    for name in ("a", "b", "c", "d"):
        store.append(make_record(name, policy="other" if name == "d" else "default"))
    for name in ("c", "d", "a"):
        store.amend(name, audit=audit())
    store.amend("a", feedback=1.0)
    store.amend("c", audit=audit(acceptable=False))  # judged again: not another request
    store.amend("b", audit=Audit(missed="budget"))
    await store.flush()
    found = list(store.audits("default"))
    assert [(r.request_id, r.audit and r.audit.acceptable) for _, r in found] == [("c", True), ("a", True), ("b", None)]
    assert found[1][1].feedback is None
    assert list(store.audits("default", after=found[0][0])) == found[1:]
    assert list(store.audits("default", since=time.time() + 60)) == []


async def test_personal_data_never_reaches_the_disk(store: SqliteStore, path: Path, make_record: MakeRecord) -> None:
    store.append(make_record("r-1", audit=audit()))
    store.append(make_record("r-2"))
    store.amend("r-2", audit=audit())
    await store.flush()
    for request_id in ("r-1", "r-2"):
        record = store.get(request_id)
        assert record is not None and record.request and record.audit and record.audit.answer
        assert record.request["messages"][0]["content"] == "I am [EMAIL]"
        assert record.answers[0].message == {"role": "assistant", "content": "ask [EMAIL]"}
        assert record.audit.answer.message == {"role": "assistant", "content": "tell [EMAIL]"}
    on_disk = b"".join(p.read_bytes() for p in path.parent.iterdir())
    assert b"r-1" in on_disk and b"example.com" not in on_disk


async def test_a_policy_without_text_keeps_none(path: Path, make_record: MakeRecord) -> None:
    with closing(SqliteStore(path, {"default": LogPart(text=False)}, clock=lambda: NOW)) as store:
        store.append(make_record("r-1", audit=audit()))
        store.append(make_record("r-2", policy="not known here"))
        store.amend("r-1", audit=audit())
        store.amend("never appended", audit=audit())
        await store.flush()
        for record in [r for _, r in store.records()]:
            assert record.request is None and record.answers[0].message is None
            assert record.answers[0].usage.input_tokens == 100
    on_disk = b"".join(p.read_bytes() for p in path.parent.iterdir())
    assert b"assistant" not in on_disk and b"messages" not in on_disk


CHILD = """
import sys, time
from dataclasses import replace
from pathlib import Path
from router.contracts.records import read_record
from router.policy.policy import LogPart
from router.store.record_json import kept_record
from router.store.sqlite import SqliteStore

store = SqliteStore(Path(sys.argv[1]), {"default": LogPart()})
record = read_record(sys.argv[2])
for i in range(1_000_000):
    store.append(replace(record, request_id=f"r-{i}", created_at=time.time()))
    sys.stdout.write(f"{i} {time.monotonic()}\\n")
    sys.stdout.flush()
    time.sleep(0.001)
"""


def test_kill_9_loses_nothing_older_than_50_ms(path: Path, make_record: MakeRecord) -> None:
    fields = kept_record(make_record(), LogPart(redact=()))
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path), fields], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    told = [child.stdout.readline().split() for _ in range(300)]
    os.kill(child.pid, signal.SIGKILL)
    killed_at = time.monotonic()
    told += [line.split() for line in child.stdout if line.endswith("\n")]
    child.wait()
    child.stdout.close()
    promised = {f"r-{i}" for i, at in told if float(at) < killed_at - 0.05}
    kept = {r.request_id for _, r in SqliteReader(path).records()}
    assert len(promised) >= 200
    assert promised <= kept


def test_another_process_reads_while_this_one_writes(store: SqliteStore, path: Path, make_record: MakeRecord) -> None:
    count = "import sys; from pathlib import Path; from router.store.reader import SqliteReader as R; n = 0\n"
    count += "while n < 400: n = sum(1 for _ in R(Path(sys.argv[1])).records())\nprint(n)"
    reader = subprocess.Popen([sys.executable, "-c", count, str(path)], stdout=subprocess.PIPE, text=True)
    for i in range(400):
        store.append(make_record(f"r-{i}"))
        time.sleep(0.0005)
    out, _ = reader.communicate(timeout=30)
    assert out.strip() == "400"
    assert store.errors == 0


def test_several_proxies_share_one_file(path: Path, make_record: MakeRecord) -> None:
    code = CHILD.replace("1_000_000", "100").replace('f"r-{i}"', "f'{sys.argv[3]}-{i}'") + "store.close()"
    args = [sys.executable, "-c", code, str(path), kept_record(make_record(), LogPart(redact=()))]
    children = [subprocess.Popen([*args, str(n)], stdout=subprocess.DEVNULL) for n in range(4)]
    assert [c.wait(timeout=60) for c in children] == [0, 0, 0, 0]
    assert len({r.request_id for _, r in SqliteReader(path).records()}) == 400


async def test_where_much_waits_what_a_teacher_told_of_its_tokens_is_given_up_first(
    path: Path, make_record: MakeRecord
) -> None:
    with closing(SqliteStore(path, {"default": LogPart(redact=())}, busy_seconds=0.05)) as store:
        told = make_record()
        with closing(sqlite3.connect(path)) as other:
            other.execute("BEGIN IMMEDIATE")
            for n in range(ROOM_FOR_TOLD + 1):
                answer = replace(told.answers[0], top_logprobs=[{"token": "a", "logprob": -0.5}])
                store.append(replace(told, request_id=f"r-{n}", answers=[answer]))
            other.rollback()
        await store.flush()
        kept = [r.answers[0].top_logprobs for _, r in store.records()]
        assert kept == ['[["a",-0.5,[]]]'] * ROOM_FOR_TOLD + [None] and store.unspelled == 1


async def test_a_full_queue_drops_and_counts_but_never_blocks(path: Path, make_record: MakeRecord) -> None:
    record = make_record()
    with closing(SqliteStore(path, {"default": TEXT}, clock=lambda: NOW, capacity=50, busy_seconds=0.02)) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # nothing can be written: who waited for room here would wait for ever
            for i in range(2_000):
                store.append(replace(record, request_id=f"r-{i}"))
            assert store.dropped >= 1_900
        await store.flush()
        until(lambda: store.depth == 0)
        assert sum(1 for _ in store.records()) + store.dropped == 2_000


async def test_a_locked_database_is_waited_for(path: Path, make_record: MakeRecord) -> None:
    with closing(SqliteStore(path, {"default": TEXT}, clock=lambda: NOW, busy_seconds=0.02)) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            store.append(make_record("r-1"))
            until(lambda: store.errors > 1)  # the record's own, whether or not the first was the pruning's
            await asyncio.wait_for(store.flush(), 15)  # told at the next try, not stuck
            assert (store.depth > 0, store.dropped) == (True, 0)
            other.execute("ROLLBACK")
        until(lambda: store.depth == 0)
        assert store.get("r-1") is not None
        assert store.dropped == 0


def test_a_disk_that_stays_full_costs_records_not_requests(
    path: Path, make_record: MakeRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    store = SqliteStore(path, {"default": TEXT}, max_pages=40, clock=lambda: NOW, end_seconds=0.5)
    for i in range(500):
        store.append(make_record(f"r-{i}"))
    until(lambda: store.errors > 0)
    store.close()
    kept = sum(1 for _ in SqliteReader(path).records())
    assert 0 < kept < 500
    assert kept + store.dropped == 500
    (told,) = [line for line in capsys.readouterr().out.splitlines() if "records_lost" in line]
    assert f"lost={500 - kept} " in told
    store.append(make_record("late"))
    assert store.dropped == 501 - kept


async def test_what_no_json_can_hold_costs_no_record(store: SqliteStore, make_record: MakeRecord) -> None:
    nested: list[object] = []
    for _ in range(3_000):
        nested = [nested]
    store.append(make_record("deep", request={"x": nested}))
    store.append(make_record("surrogate", request={"x": "\ud800"}))
    store.append(make_record("object", request={"x": object()}))
    store.append(make_record("twin"))
    store.append(make_record("twin"))
    store.append(make_record("good"))
    await store.flush()
    assert [r.request_id for _, r in store.records()] == ["deep", "surrogate", "object", "twin", "good"]
    assert store.dropped == 1


async def test_retention_deletes_what_is_too_old_and_its_amendments(path: Path, make_record: MakeRecord) -> None:
    now = 100 * DAY
    old, young = now - 31 * DAY, now - 29 * DAY
    with closing(SqliteStore(path, {"default": TEXT}, clock=lambda: old)) as store:
        for i in range(700):
            store.append(make_record(f"old-{i}", created_at=old))
        store.append(make_record("young", created_at=young))
        store.amend("old-1", feedback=1.0)
        store.amend("young", feedback=1.0)
        await store.flush()
        last = max(seq for seq, _ in store.records())
    month = machine_uptime() + 31 * DAY
    with closing(SqliteStore(path, {"default": TEXT}, clock=lambda: now, uptime=lambda: month)) as store:
        until(lambda: sum(1 for _ in store.records()) == 1)
        assert store.get("young") is not None
        store.append(make_record("new", created_at=now))
        await store.flush()
        assert [seq > last for seq, r in store.records() if r.request_id == "new"] == [True]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT request_id FROM amendments").fetchall() == []


@pytest.mark.parametrize("leap", [40 * DAY, 400 * DAY, -NOW, 30_000 * DAY])
async def test_a_clock_that_leaps_deletes_nothing_and_is_told(path: Path, make_record: MakeRecord, leap: float) -> None:
    for clock, up, request in ((NOW, 0.0, "before"), (NOW + leap, 5.0, "meanwhile"), (NOW + 10, 10.0, "after")):
        with closing(
            SqliteStore(path, {"default": TEXT}, clock=partial(float, clock), uptime=partial(float, up))
        ) as store:
            store.append(make_record(request, created_at=clock))
            await store.flush()
            until(lambda store=store, n=clock: len(store.problems) == (abs(n - NOW) > DAY))  # type: ignore[misc]
    with closing(SqliteReader(path)) as records:
        assert [r.request_id for _, r in records.records()] == ["before", "meanwhile", "after"]
    end = NOW + 31 * DAY
    with closing(SqliteStore(path, {"default": TEXT}, clock=lambda: end, uptime=lambda: 31 * DAY)) as store:
        until(lambda: not list(store.records()))  # what the clock dated by another century went with the rest


def test_no_database_reads_as_no_records(path: Path) -> None:
    reader = SqliteReader(path)
    assert list(reader.records()) == []
    assert reader.get("r-1") is None
    assert not path.exists()


def test_a_newer_database_is_refused_in_words(path: Path) -> None:
    SqliteStore(path, {}).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer Locum"):
        SqliteStore(path, {})
    with pytest.raises(StoreError, match="newer Locum"):
        SqliteReader(path).get("r-1")


def test_what_is_no_database_is_refused_in_words(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a database at all, but long enough to be looked at" * 100)
    with pytest.raises(StoreError, match="cannot open the records"):
        SqliteStore(path, {})


def test_only_the_owner_may_read_the_records(store: SqliteStore, path: Path, make_record: MakeRecord) -> None:
    store.append(make_record())
    until(lambda: store.depth == 0)
    assert {stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()} == {0o600}


def test_closing_twice_is_closing_once(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        store.close()
        store.close()
    asyncio.run(store.flush())
    assert caplog.records == []


async def test_what_waits_is_bounded_in_bytes_and_beyond_them_keeps_its_money(
    path: Path, make_record: MakeRecord
) -> None:
    big = {"messages": [{"role": "user", "content": "x" * 100_000}]}
    with closing(SqliteStore(path, {"default": TEXT}, queue_bytes=1_000_000, busy_seconds=0.02)) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for n in range(50):
                store.append(make_record(f"r-{n}", request=dict(big)))
            assert store.reduced["room"] == 41 and store.dropped == 0
            assert any("41 without their texts (room)" in said for said in store.problems)
            other.rollback()
        await store.flush()
        kept = [r for _, r in store.records()]
        assert [r.request is not None for r in kept] == [True] * 9 + [False] * 41
        assert {(r.cost_usd, r.reduced) for r in kept} == {(kept[0].cost_usd, None), (kept[0].cost_usd, "room")}
        store.append(make_record("later", request=dict(big)))  # there is room again
        store.amend("later", audit=audit())
        await store.flush()
        later = store.get("later")
        assert later is not None and later.request is not None and later.audit is not None and later.audit.answer


async def test_a_locked_database_shows_while_it_lasts(path: Path, make_record: MakeRecord) -> None:
    with closing(SqliteStore(path, {"default": TEXT}, clock=lambda: NOW, busy_seconds=0.02)) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            store.append(make_record("r-1"))
            until(lambda: any("records cannot be written: database is locked" in said for said in store.problems))
            other.execute("ROLLBACK")
        until(lambda: not store.problems)
        assert store.get("r-1") is not None


async def test_a_disk_that_is_full_shows_while_it_lasts_and_then_nothing_is_lost(
    path: Path, make_record: MakeRecord
) -> None:
    with closing(SqliteStore(path, {"default": TEXT}, max_pages=40, clock=lambda: NOW)) as store:
        for n in range(300):
            store.append(make_record(f"r-{n}"))
        until(lambda: any("is full" in said for said in store.problems))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:  # somebody makes room
            other.execute("DELETE FROM records WHERE seq <= (SELECT MAX(seq) FROM records)")
            until(lambda: other.execute("DELETE FROM records").rowcount >= 0 and store.depth == 0)
        assert store.dropped == 0
        until(lambda: not store.problems)


def test_room_that_is_made_after_the_end_began_is_used(path: Path, make_record: MakeRecord) -> None:
    store = SqliteStore(path, {"default": TEXT}, max_pages=40, clock=lambda: NOW)
    for n in range(300):
        store.append(make_record(f"r-{n}"))
    until(lambda: store.errors > 0)
    ending = threading.Thread(target=store.close)
    ending.start()
    errors = store.errors
    until(lambda: store.errors > errors + 3)  # it is refused again and again
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        until(lambda: other.execute("DELETE FROM records").rowcount >= 0 and not ending.is_alive())
    assert (store.depth, store.dropped) == (0, 0)


@pytest.mark.parametrize("how", ["file", "home", "moved", "replaced"])
def test_a_file_that_is_gone_is_noticed_counted_and_made_anew(path: Path, make_record: MakeRecord, how: str) -> None:
    with closing(SqliteStore(path, {"default": TEXT}, clock=lambda: NOW)) as store:
        store.append(make_record("r-1"))
        store.append(make_record("r-2"))
        asyncio.run(store.flush())
        if how == "replaced":
            SqliteStore(path.with_name("other.db"), {}).close()
            path.with_name("other.db").replace(path)
        elif how == "moved":
            path.parent.rename(path.parent.with_name("elsewhere"))
        elif how == "home":
            shutil.rmtree(path.parent)
        else:
            path.unlink()
        store.append(make_record("r-3"))
        asyncio.run(store.flush())
        assert [r.request_id for _, r in store.records()] == ["r-3"]
        assert store.drops["gone"] == 2
        assert any("was deleted or replaced" in said and "2 rows" in said for said in store.problems)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_gone_is_noticed_without_traffic(path: Path) -> None:
    with closing(SqliteStore(path, {"default": TEXT}, clock=lambda: NOW)) as store:
        shutil.rmtree(path.parent)
        until(lambda: path.exists() and store.problems)


async def test_what_came_into_its_place_and_is_none_is_told_until_it_is_gone(
    path: Path, make_record: MakeRecord
) -> None:
    with closing(SqliteStore(path, {"default": TEXT}, clock=lambda: NOW)) as store:
        shutil.rmtree(path.parent)
        path.parent.write_text("in the way")
        store.append(make_record("r-1"))
        until(lambda: any("records cannot be written" in said for said in store.problems))
        path.parent.unlink()
        until(lambda: store.depth == 0)
        assert store.get("r-1") is not None and store.drops["queue_full"] == 0


def test_a_file_that_was_made_read_only_is_told(path: Path, make_record: MakeRecord) -> None:
    with closing(SqliteStore(path, {"default": TEXT}, clock=lambda: NOW)) as store:
        path.chmod(0o400)
        assert any("was made read-only" in said for said in store.problems)
        path.chmod(0o600)
        assert not store.problems

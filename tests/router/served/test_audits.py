"""A policy's audits are read once, whoever goes by them and since when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from router.contracts.records import Audit, Record
from router.errors import StoreError
from router.policy.policy import LogPart
from router.served.audits import AuditReader
from router.store.sqlite import SqliteStore

MakeRecord = Callable[..., Record]


class Told:
    def __init__(self) -> None:
        self.ids: list[str] = []

    def observe(self, record: Record) -> None:
        self.ids.append(record.request_id)


class CountedStore(SqliteStore):
    """Counts the audits that it hands out; ``broken``: it cannot be read."""

    handed, broken = 0, False

    def audits(self, policy: str, after: int = 0, since: float = 0.0) -> Iterator[tuple[int, Record]]:
        if self.broken:
            raise StoreError("no disk")
        for found in super().audits(policy, after, since):
            self.handed += 1
            yield found


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CountedStore]:
    with closing(CountedStore(tmp_path / "records.db", {"default": LogPart()}, clock=lambda: 1e6)) as opened:
        yield opened


async def audited(store: SqliteStore, make_record: MakeRecord, *names: str) -> None:
    for name in names:
        store.append(make_record(name))
        store.amend(name, audit=Audit(acceptable=True, judge="exact"))
    await store.flush()


async def test_each_audit_is_read_once_for_all(store: CountedStore, make_record: MakeRecord) -> None:
    reader, followers = AuditReader("default", store), [Told() for _ in range(4)]
    names = [f"r-{n}" for n in range(450)]
    await audited(store, make_record, *names)
    for follower in followers:
        await reader.follow(follower, 0.0)
    async with reader.up_to_date():
        pass
    assert [f.ids for f in followers] == [names] * 4
    assert store.handed == 450
    await audited(store, make_record, "one more")
    for _ in followers:
        async with reader.up_to_date():
            pass
    assert [f.ids[-1] for f in followers] == ["one more"] * 4
    assert store.handed == 451


async def test_who_comes_later_is_told_what_was_and_each_thing_once(
    store: CountedStore, make_record: MakeRecord
) -> None:
    reader, first, later = AuditReader("default", store), Told(), Told()
    await reader.follow(first, 0.0)
    await audited(store, make_record, "a", "b")
    async with reader.up_to_date():
        pass
    await audited(store, make_record, "c")  # not read by anybody yet
    await reader.follow(later, 0.0)
    assert later.ids == ["a", "b"]
    async with reader.up_to_date():
        assert first.ids == later.ids == ["a", "b", "c"]
    reader.leave(first)
    await audited(store, make_record, "d")
    async with reader.up_to_date():
        assert (first.ids[-1], later.ids[-1]) == ("c", "d")


async def test_what_cannot_be_read_now_is_read_the_next_time(store: CountedStore, make_record: MakeRecord) -> None:
    reader, told = AuditReader("default", store), Told()
    await reader.follow(told, 0.0)
    await audited(store, make_record, "a")
    store.broken = True
    with pytest.raises(StoreError):
        async with reader.up_to_date():
            raise AssertionError("nothing was read")
    store.broken = False
    async with reader.up_to_date():
        assert told.ids == ["a"]

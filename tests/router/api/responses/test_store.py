"""Kept responses: where they are, for whom, how long, and by which processes."""

from __future__ import annotations

import asyncio
import sqlite3
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from router.api.responses.store import KeptResponses, Terms
from router.errors import StoreError
from router.store.supported_time import machine_uptime

DAY = 86_400.0


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def response(name: str, previous: str | None = None) -> dict[str, Any]:
    said = {"id": f"msg_{name}", "type": "message", "role": "assistant", "content": []}
    return {"id": name, "previous_response_id": previous, "model": "m", "output": [said]}


async def put(kept: KeptResponses, name: str, previous: str | None = None, days: float = 30, owner: str = "me") -> bool:
    given = [{"id": f"in_{name}", "type": "message", "role": "user", "content": []}]
    return await kept.put(response(name, previous), given, Terms(owner, "p", f"c-{name}", days * DAY))


async def ids(kept: KeptResponses, name: str, owner: str = "me") -> list[str] | None:
    history = await kept.history(name, owner)
    return None if history is None else [item["id"] for item in history.items]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kept(tmp_path: Path, clock: Clock) -> Any:
    found = KeptResponses(tmp_path / "home" / "responses.db", clock)
    found.open()
    yield found
    found.close()


async def test_a_conversation_is_told_from_its_start(kept: KeptResponses) -> None:
    await put(kept, "a")
    await put(kept, "b", "a")
    await put(kept, "c", "b")
    await put(kept, "aside", "a")
    assert await ids(kept, "c") == ["in_a", "msg_a", "in_b", "msg_b", "in_c", "msg_c"]
    assert await ids(kept, "aside") == ["in_a", "msg_a", "in_aside", "msg_aside"]
    history, one = await kept.history("c", "me"), await kept.get("c", "me")
    assert history is not None
    assert history.conversation == "c-c"
    assert one is not None
    assert one.response == response("c", "b")


async def test_a_conversation_with_a_gap_is_none(kept: KeptResponses) -> None:
    await put(kept, "a")
    await put(kept, "b", "a")
    await put(kept, "c", "b")
    assert await kept.delete("b", "me")
    assert not await kept.delete("b", "me")
    assert await ids(kept, "c") is None
    assert await ids(kept, "a") == ["in_a", "msg_a"]


async def test_a_conversation_longer_than_a_request_may_be_is_not_read(
    kept: KeptResponses, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(kept, "a")
    for before, name in pairwise("abcdefghij"):
        await put(kept, name, before)
    assert await ids(kept, "j") is not None
    monkeypatch.setattr("router.api.responses.store.MOST_BYTES", 300)
    assert await ids(kept, "a") is not None
    assert await ids(kept, "j") is None


async def test_another_key_finds_nothing(kept: KeptResponses) -> None:
    await put(kept, "a")
    await put(kept, "b", "a", owner="you")
    assert await kept.get("a", "you") is None
    assert not await kept.delete("a", "you")
    assert await ids(kept, "a", "you") is None
    assert await ids(kept, "b", "you") is None


async def test_what_is_past_its_retention_is_gone_and_then_deleted(
    kept: KeptResponses, clock: Clock, tmp_path: Path
) -> None:
    await put(kept, "old", days=1)
    clock.now += 2 * DAY
    assert await kept.get("old", "me") is None
    assert await ids(kept, "old") is None
    assert await left(tmp_path, clock, "leapt", uptime=machine_uptime()) == ["old", "leapt"], "no time went by"
    clock.now -= 2 * DAY
    assert await ids(kept, "old") == ["in_old", "msg_old"]
    clock.now += 2 * DAY
    assert await left(tmp_path, clock, "new", uptime=machine_uptime() + 2 * DAY) == ["leapt", "new"]


async def left(tmp_path: Path, clock: Clock, name: str, *, uptime: float) -> list[str]:
    """What is in the file once a fresh process has kept one more."""
    again = KeptResponses(tmp_path / "home" / "responses.db", clock, lambda: uptime)
    again.open()
    await put(again, name)
    again.close()
    with sqlite3.connect(tmp_path / "home" / "responses.db") as db:
        return [row[0] for row in db.execute("SELECT id FROM responses ORDER BY rowid")]


async def test_processes_share_one_file(kept: KeptResponses, tmp_path: Path, clock: Clock) -> None:
    other = KeptResponses(tmp_path / "home" / "responses.db", clock)
    other.open()
    await asyncio.gather(*(put(k, f"{n}-{m}") for n in range(50) for m, k in enumerate((kept, other))))
    assert [await ids(other, f"{n}-0") for n in range(50)] == [[f"in_{n}-0", f"msg_{n}-0"] for n in range(50)]
    other.close()


async def test_a_file_that_refuses_loses_the_response_and_no_answer(kept: KeptResponses, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "home" / "responses.db") as db:
        db.execute("DROP TABLE responses")
    assert await put(kept, "a") is False
    with pytest.raises(StoreError):
        await kept.get("a", "me")


def test_the_file_is_its_owners_alone(kept: KeptResponses, tmp_path: Path) -> None:
    assert all(f.stat().st_mode & 0o077 == 0 for f in (tmp_path / "home").iterdir())


def test_a_newer_file_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "responses.db") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer"):
        KeptResponses(tmp_path / "responses.db").open()

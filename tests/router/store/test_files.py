"""Files in messages are kept once, as the policy says, and go with the last record that holds them."""

import base64
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from router.contracts.decision import Tier
from router.contracts.records import Answer, AnswerKind, Audit, Record
from router.policy.policy import LogPart
from router.store.base import Traces
from router.store.eraser import SqliteEraser
from router.store.files import LEFT_OUT, MARK
from router.store.sqlite import SqliteStore

MakeRecord = Callable[..., Record]
IMAGE = "data:image/png;base64," + base64.b64encode(os.urandom(200_000)).decode()
SOUND = base64.b64encode(os.urandom(50_000)).decode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path, {"default": LogPart()})) as opened:
        yield opened


def turn(*more: dict[str, Any]) -> dict[str, Any]:
    image = {"type": "image_url", "image_url": {"url": IMAGE}}
    sound = {"type": "input_audio", "input_audio": {"data": SOUND, "format": "wav"}}
    file = {"type": "file", "file": {"file_data": SOUND, "filename": "a.pdf"}}
    content = [{"type": "text", "text": "what is this? ask a@example.com"}, image, sound, file, *more]
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": content}]}


def files(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("SELECT COUNT(*) FROM files").fetchone()[0])


def on_disk(path: Path) -> bytes:
    return b"".join(p.read_bytes() for p in path.parent.glob("records.db*"))


def parts(record: Record | None) -> list[str]:
    assert record is not None and record.request is not None
    _, image, sound, file, *_ = record.request["messages"][0]["content"]
    return [image["image_url"]["url"], sound["input_audio"]["data"], file["file"]["file_data"]]


async def test_many_turns_with_one_image_keep_it_once_and_read_it_back(
    store: SqliteStore, path: Path, make_record: MakeRecord
) -> None:
    for n in range(20):
        store.append(make_record(f"r-{n}", request=turn()))
    await store.flush()
    assert files(path) == 2
    assert sum(p.stat().st_size for p in path.parent.iterdir()) < 3 * len(IMAGE)
    assert all(parts(r) == [IMAGE, SOUND, SOUND] for _, r in store.records())
    record = store.get("r-3")
    assert parts(record) == [IMAGE, SOUND, SOUND]
    assert "[EMAIL]" in str(record.request["messages"][0]["content"][0])  # type: ignore[union-attr,index]


@pytest.mark.parametrize(("rule", "mark"), [("hash", MARK), ("none", LEFT_OUT)])
async def test_a_policy_may_keep_hashes_alone_or_nothing(
    path: Path, make_record: MakeRecord, rule: Any, mark: str
) -> None:
    with closing(SqliteStore(path, {"default": LogPart(files=rule)})) as store:
        store.append(make_record("r", request=turn()))
        await store.flush()
        found = parts(store.get("r"))
        assert all(part.startswith(mark) for part in found) and files(path) == 0
    assert IMAGE.encode()[:2000] not in on_disk(path)


async def test_what_a_model_drew_is_kept_too_and_an_audit_s(
    store: SqliteStore, path: Path, make_record: MakeRecord
) -> None:
    message = {"role": "assistant", "content": None, "audio": {"data": SOUND}}
    answer = Answer(tier=Tier.TEACHER, kind=AnswerKind.AUDITED, model="big", message=message)
    store.append(make_record("r", answers=[answer]))
    store.append(make_record("audited"))
    store.amend("audited", audit=Audit(answer=answer))
    await store.flush()
    assert files(path) == 1
    drawn, audited = store.get("r"), store.get("audited")
    assert drawn is not None and drawn.answers[0].message == message
    assert audited is not None and audited.audit and audited.audit.answer and audited.audit.answer.message == message
    assert [r.audit and r.audit.answer and r.audit.answer.message for _, r in store.audits("default")] == [message]


async def test_whoever_writes_another_s_mark_gets_nothing_of_it(
    store: SqliteStore, path: Path, make_record: MakeRecord
) -> None:
    store.append(make_record("mine", request=turn()))
    await store.flush()
    with closing(sqlite3.connect(path)) as db:
        (mark,) = db.execute("SELECT mark FROM files ORDER BY length(content) DESC LIMIT 1").fetchone()
    asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": mark}]}
    store.append(make_record("theirs", request=asked))
    await store.flush()
    theirs = store.get("theirs")
    assert theirs is not None and theirs.request == asked


async def test_a_file_goes_with_the_last_record_that_holds_it(
    store: SqliteStore, path: Path, tmp_path: Path, make_record: MakeRecord
) -> None:
    for name in ("a", "b"):
        store.append(make_record(name, request=turn()))
    await store.flush()
    eraser = SqliteEraser(path, tmp_path / "responses.db")
    assert eraser.erase(Traces(("a",))) == 1 and files(path) == 2
    assert eraser.erase(Traces(("b",))) == 1 and files(path) == 0
    assert SOUND.encode()[:1000] not in on_disk(path)


async def test_retention_takes_files_along(path: Path, make_record: MakeRecord) -> None:
    began, days = 1_000_000.0, 40 * 86_400.0
    with closing(SqliteStore(path, {"default": LogPart()}, clock=lambda: began, uptime=lambda: 0.0)) as store:
        store.append(make_record("old", request=turn(), created_at=began))
        await store.flush()
        assert files(path) == 2
    with closing(SqliteStore(path, {"default": LogPart()}, clock=lambda: began + days, uptime=lambda: days)) as store:
        store.append(make_record("new", created_at=began + days))
        await store.flush()
    assert files(path) == 0

"""One odd row never hides the rest, whatever became of it."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from router.contracts.decision import Tier
from router.contracts.records import Answer, AnswerKind, Audit, Record
from router.policy.policy import LogPart
from router.store.reader import SqliteReader
from router.store.sqlite import SqliteStore

MakeRecord = Callable[..., Record]
RULES = {"default": LogPart(redact=())}


@pytest.fixture
async def path(tmp_path: Path, make_record: MakeRecord) -> Path:
    """A log of five requests, each audited."""
    found = tmp_path / "records.db"
    with closing(SqliteStore(found, RULES, clock=lambda: 1_000_000.0)) as store:
        for n in range(5):
            store.append(make_record(f"r-{n}"))
            store.amend(f"r-{n}", audit=Audit(acceptable=True, judge="exact"), feedback=1.0)
        await store.flush()
    return found


def change(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA ignore_check_constraints = ON")
        db.execute(statement, values)
        db.commit()


ODD: dict[str, object] = {
    "no JSON": "no JSON",
    "empty": "",
    "cut short": '{"schema_version":1,"request_id":"r-2","answers":[{"cost_usd":"0.0005"',
    "a list": "[]",
    "random bytes": bytes(range(256)),
    "half a character": b'{"request_id":"\xed\xa0\x80"}',
    "a number": 5,
    "deep": "[" * 5_000,
    "deep but whole": '{"a":' * 3_000 + "1" + "}" * 3_000,
}


@pytest.mark.parametrize("body", ODD.values(), ids=ODD)
async def test_an_odd_row_is_passed_over_told_and_hides_no_other(path: Path, body: object) -> None:
    change(path, "UPDATE records SET body = ? WHERE request_id = 'r-2'", body)
    for read in (
        lambda r: [x.request_id for _, x in r.records("default")],
        lambda r: [x.request_id for _, x in r.audits("default")],
        lambda r: [x.request_id for x in r.scored("default")],
    ):
        reader = SqliteReader(path)
        assert read(reader) == ["r-0", "r-1", "r-3", "r-4"]
        assert [(u.table, u.seq, u.request_id) for u in reader.unread] == [("record", 3, "r-2")]
        assert read(reader) and len(reader.unread) == 1
        assert "record 3 (request r-2)" in str(reader.unread.said())
    assert reader.get("r-2") is None and reader.get("r-1") is not None


WRONG = [
    "json_set(body, '$.schema_version', 99)",
    "json_set(body, '$.decision', json('[1]'))",
    "json_set(body, '$.decision.score', 'high')",
    "json_set(body, '$.answers[0].model', json('[1]'))",
    "json_set(body, '$.answers[0].finish_reason', 5)",
    "json_set(body, '$.seconds', null)",
    "json_set(body, '$.tier', 'somebody')",
    "json_set(body, '$.request', 'text')",
    "json_remove(body, '$.reason')",
]


@pytest.mark.parametrize("damage", WRONG)
async def test_a_row_of_wrong_types_is_passed_over_and_told(path: Path, damage: str) -> None:
    change(path, f"UPDATE records SET body = {damage} WHERE request_id = 'r-2'")
    reader = SqliteReader(path)
    assert [x.request_id for _, x in reader.records()] == ["r-0", "r-1", "r-3", "r-4"]
    assert [x.request_id for _, x in reader.audits("default")] == ["r-0", "r-1", "r-3", "r-4"]
    assert len(list(reader.scored("default"))) >= 4
    (row,) = reader.unread
    assert (row.request_id, row.usd) == ("r-2", Decimal("0.0005"))


@pytest.mark.parametrize("column", ["request_id", "created_at", "policy"])
async def test_columns_of_random_bytes_hide_nothing(path: Path, column: str) -> None:
    change(path, f"UPDATE records SET {column} = ? WHERE request_id = 'r-2'", b"\xff\x00\xfe")
    change(path, f"UPDATE records SET {column} = CAST(x'ff00fe' AS TEXT) WHERE request_id = 'r-3'")
    reader = SqliteReader(path)
    assert {"r-0", "r-1", "r-4"} <= {x.request_id for _, x in reader.records()}
    assert {"r-0", "r-1", "r-4"} <= {x.request_id for x in reader.scored("default")}
    assert {"r-0", "r-1", "r-4"} <= {x.request_id for _, x in reader.audits("default")}


@pytest.mark.parametrize("body", [b"\xff", "{", '{"acceptable":"perhaps"}', "[]", '{"answer":{"tier":"x"}}', 7])
async def test_an_odd_audit_costs_that_audit_alone(path: Path, body: object) -> None:
    change(path, "UPDATE amendments SET body = ? WHERE request_id = 'r-2' AND kind = 'audit'", body)
    reader = SqliteReader(path)
    assert [(x.request_id, x.audit is not None, x.feedback) for _, x in reader.records()] == [
        (f"r-{n}", n != 2, 1.0) for n in range(5)
    ]
    assert [x.request_id for _, x in reader.audits("default")] == ["r-0", "r-1", "r-3", "r-4"]
    assert [(u.table, u.request_id) for u in reader.unread] == [("amendment", "r-2")]


@pytest.mark.parametrize("body", [b"\xff", "good", "[1]", '{"a":1}', '"x"'])
async def test_odd_feedback_costs_that_feedback_alone(path: Path, body: object) -> None:
    change(path, "UPDATE amendments SET body = ? WHERE request_id = 'r-2' AND kind = 'feedback'", body)
    reader = SqliteReader(path)
    assert [x.feedback for _, x in reader.records()] == [1.0, 1.0, None, 1.0, 1.0]
    assert [(u.table, u.request_id) for u in reader.unread] == [("amendment", "r-2")]


async def test_behind_a_damaged_page_the_rest_is_read(tmp_path: Path, make_record: MakeRecord) -> None:
    path = tmp_path / "records.db"
    with closing(SqliteStore(path, RULES, clock=lambda: 1_000_000.0)) as store:
        for n in range(200):
            store.append(make_record(f"r-{n:03}"))
        await store.flush()
    content = bytearray(path.read_bytes())
    page = next(p for p in range(0, len(content), 8192) if b'"request_id":"r-100"' in content[p : p + 8192])
    content[page : page + 64] = b"\xff" * 64
    path.write_bytes(content)
    reader = SqliteReader(path)
    ids = [x.request_id for _, x in reader.records()]
    assert {"r-000", "r-199"} <= set(ids) and "r-100" not in ids
    assert len(ids) + len(reader.unread) == 200
    assert len(list(reader.scored("default"))) == len(ids)


def answer(said: Any) -> Answer:
    return Answer(tier=Tier.TEACHER, kind=AnswerKind.SERVED, model="big", message=said, cost_usd=Decimal("0.25"))


def nested(levels: int) -> object:
    found: object = "x"
    for _ in range(levels):
        found = [found]
    return found


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(tmp_path / "records.db", RULES, clock=lambda: 1_000_000.0)) as opened:
        yield opened


SAID: dict[str, dict[Any, object]] = {
    "deep": {"content": nested(180)},
    "endless": {"content": nested(3_000)},
    "half a character": {"content": "half \ud83d of it"},
    "a huge number": {"content": 10**400},
    "beyond 64 bits": {"content": -(2**63) - 1},
    "no number": {"content": float("nan")},
    "a number for a key": {"content": {1: "x"}},
    "no JSON at all": {"content": object()},
    "an odd key": {"\ud800": "\x00"},
}


@pytest.mark.parametrize("said", SAID.values(), ids=SAID)
async def test_what_a_backend_said_is_kept_so_that_it_is_read_back(
    store: SqliteStore, make_record: MakeRecord, said: dict[Any, object]
) -> None:
    store.append(make_record("odd", answers=[answer(said)]))
    store.append(make_record("audited"))
    store.amend("audited", audit=Audit(answer=answer(said), acceptable=False))
    await store.flush()
    odd, audited = store.get("odd"), store.get("audited")
    assert odd is not None and odd.cost_usd == Decimal("0.25") and odd.request is not None and not odd.reduced
    assert audited is not None and audited.audit is not None and audited.audit.answer is not None
    assert audited.audit.answer.message is not None
    assert (store.dropped, len(store.unread), sum(store.reduced.values())) == (0, 0, 0)


async def test_what_cannot_be_mended_is_kept_without_its_texts_marked_and_counted(
    store: SqliteStore, make_record: MakeRecord
) -> None:
    odd = answer({"content": "x"})
    odd.finish_reason = 5  # type: ignore[assignment]
    worse = make_record("worse", seconds=float("inf"))
    store.append(make_record("odd", answers=[odd]))
    store.append(worse)
    await store.flush()
    found = store.get("odd")
    assert found is not None and found.reduced == "unfit" and found.request is None
    assert (found.cost_usd, found.decision) == (Decimal("0.25"), worse.decision)
    assert store.get("worse") is None and store.dropped == 1
    assert dict(store.reduced) == {"room": 0, "unfit": 2}

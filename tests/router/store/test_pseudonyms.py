"""Nothing that a client or an upstream says escapes redaction, wherever in a record it stands; names stay apart."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from router.contracts.decision import Tier
from router.contracts.records import Answer, AnswerKind, Audit, Record, Usage
from router.errors import StoreError
from router.policy.policy import LogPart
from router.store.pseudonyms import KEY_FILE, Pseudonyms
from router.store.sqlite import SqliteStore

MakeRecord = Callable[..., Record]
WHO = "ada@example.com"
WRITTEN = (WHO, WHO.replace("@", r"\u0040"), WHO.replace("@", r"\\u0040"), WHO.replace("@", "%40"))
RULES = {"default": LogPart(redact=("email",))}


def answer(kind: AnswerKind) -> Answer:
    calls = [{"id": WHO, "function": {"name": WHO, "arguments": f'{{"{text}": ["{text}"]}}'}} for text in WRITTEN]
    return Answer(
        tier=Tier.TEACHER,
        kind=kind,
        model=WHO,
        message={"content": WHO, "tool_calls": calls, WHO: {"extra": WHO}},
        finish_reason=WHO,
        usage=Usage(service_tier=WHO, region=WHO, search_size=WHO),
    )


def full_of_it(record: Record) -> Record:
    schema = {"name": WHO, "description": WHO, "schema": {"properties": {WHO: {"enum": [WHO]}}, "required": [WHO]}}
    request = {
        "model": WHO, "user": WHO, "safety_identifier": WHO, "prompt_cache_key": WHO, "stop": [WHO],
        "x": {WHO: [{WHO: WHO}]},
        "messages": [{"role": WHO, "name": WHO, "content": text} for text in WRITTEN],
        "metadata": {WHO: WHO, "user_id": WHO, "nested": {"deep": [WHO]}},
        "response_format": {"type": "json_schema", "json_schema": schema},
        "tools": [{"function": {"name": WHO, "description": WHO, "parameters": schema}}],
        "data": f"data:{WHO}", "file_data": f"{WHO}," * 100,
    }  # fmt: skip
    return replace(
        record,
        user=WHO,
        task=WHO,
        conversation_id=WHO,
        request=request,
        decision=replace(record.decision, detail=f"task {WHO}"),
        answers=[answer(AnswerKind.SERVED)],
        audit=Audit(answer=answer(AnswerKind.AUDITED), judge=WHO, missed=WHO),
    )


def on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


@pytest.mark.parametrize("policy", ["default", "gone", "textless"])
async def test_what_is_redacted_is_nowhere_on_disk(tmp_path: Path, make_record: MakeRecord, policy: str) -> None:
    """Of a policy that keeps no text, and of one that is no longer there, as well."""
    rules = {**RULES, "textless": LogPart(text=False, redact=("email",))}
    with closing(SqliteStore(tmp_path / "records.db", rules)) as store:
        record = full_of_it(make_record("one", policy=policy))
        store.append(record)
        store.amend("one", audit=record.audit)
        await store.flush()
        assert store.get("one") is not None
    said = on_disk(tmp_path)
    assert not [text for text in (*WRITTEN, "example.com") if text.encode() in said]


async def test_what_a_task_is_exempt_from_is_kept(tmp_path: Path, make_record: MakeRecord) -> None:
    rules = {"default": LogPart(redact=("email",), redact_except={"extract": ("email",)})}
    with closing(SqliteStore(tmp_path / "records.db", rules)) as store:
        for task in ("extract", "other"):
            store.append(replace(full_of_it(make_record(task)), task=task))
        await store.flush()
        kept, other = store.get("extract"), store.get("other")
    assert kept is not None and other is not None
    assert (kept.user, kept.answers[0].model, kept.redacted) == (WHO, WHO, False)
    assert kept.request == full_of_it(make_record("x")).request
    assert other.user != WHO and other.redacted


async def test_users_stay_apart_and_alike_under_their_pseudonyms(tmp_path: Path, make_record: MakeRecord) -> None:
    """In every process of a home, and after a restart; a user who says nothing personal keeps the name."""
    users = ["ada@example.com", "bob@example.com", "u-17", "ada@example.com"]
    for run in range(2):
        with (
            closing(SqliteStore(tmp_path / "records.db", RULES, clock=lambda: 1e6)) as store,
            closing(SqliteStore(tmp_path / "records.db", RULES, clock=lambda: 1e6)) as beside,
        ):
            for i, user in enumerate(users):
                (store, beside)[i % 2].append(make_record(f"{run}-{i}", user=user))
            await store.flush()
            await beside.flush()
            kept = {r.request_id: r.user for _, r in store.records()}
    assert len(kept) == 8
    assert len(set(kept.values())) == 3
    for run in range(2):
        assert kept[f"{run}-0"] == kept[f"{run}-3"] == kept["0-0"] != kept[f"{run}-1"]
        assert kept[f"{run}-2"] == "u-17"


async def test_a_key_that_is_deleted_under_a_running_proxy_is_there_again_with_its_records(
    tmp_path: Path, make_record: MakeRecord
) -> None:
    path = tmp_path / "home" / "records.db"
    with closing(SqliteStore(path, RULES)) as store:
        for name in ("one", "two"):
            store.append(make_record(name, user=WHO))
            await store.flush()
            for file in path.parent.iterdir():
                file.unlink()
        store.append(make_record("three", user=WHO))
        await store.flush()
    with closing(sqlite3.connect(path)) as db:
        (said,) = db.execute("SELECT json_extract(body, '$.user') FROM records").fetchone()
    assert said == Pseudonyms(path.parent).of(WHO)
    assert (path.parent / KEY_FILE).stat().st_mode & 0o077 == 0


def test_another_home_gives_another_pseudonym_and_a_damaged_key_says_so(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    one, other = Pseudonyms(tmp_path / "a"), Pseudonyms(tmp_path / "b")
    assert one.of(WHO) != other.of(WHO)
    assert other.all_of(WHO) == (WHO, other.of(WHO))
    assert WHO not in one.of(WHO)
    (tmp_path / "a" / KEY_FILE).write_bytes(b"short")
    with pytest.raises(StoreError, match="damaged"):
        Pseudonyms(tmp_path / "a").of(WHO)

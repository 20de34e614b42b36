"""Whatever a client or a backend says, the log that it leads to can be read, and so can all of it around."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from router.errors import BadRequest
from router.policy.policy import load_policy
from router.reports.status import summarise
from router.settings import Settings
from router.store.access import open_readonly
from router.wire.body import DEEPEST, json_object
from tests.fakes import World, until, world


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def body(odd: bytes) -> bytes:
    return b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}],"x":' + odd + b"}"


BODIES = {
    "as deep as may be": body(nested(DEEPEST - 1)),
    "largest numbers": body(b"[18446744073709551615,-9223372036854775808,1e308,5e-324,-0.0,12345678901234567890123]"),
    "zeros": b'{"model":"gpt-4o","user":"a\\u0000b","metadata":{"task":"\\u0000","conversation_id":"\\u0000"},'
    b'"messages":[{"role":"\\u0000","content":"\\u0000"}],"\\u0000":{"":"\\u0000"}}',
    "no characters": body('"\ufffe\uffff\U0010ffff"'.encode()),
    "odd parts": b'{"model":"gpt-4o","messages":[{"role":"user","content":[1,null,{"type":[]},"x",[[]]]}]}',
    "odd labels": b'{"model":"gpt-4o","user":7,"metadata":{"task":[],"conversation_id":{}},'
    b'"messages":[{"role":"user","content":{"a":1}}]}',
}


def all_read(w: World, count: int) -> list[Any]:
    with closing(open_readonly(Settings(home=w.home))) as log:
        found = until(lambda: r if len(r := [x for _, x in log.records()]) + len(log.unread) >= count else None)
        assert len(log.unread) == 0, log.unread.said()
        summarise(load_policy(w.policy_file), log, Settings(home=w.home), since=0.0)
        assert len(list(log.scored("default"))) == sum(r.is_traffic for r in found)
    return list(found)


def test_what_clients_send_can_be_read_back(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        told = [httpx.post(f"{w.url}/v1/chat/completions", content=b).status_code for b in BODIES.values()]
        assert told == [200] * len(BODIES)
        all_read(w, len(BODIES))


@pytest.mark.parametrize("raw", [nested(DEEPEST), b'{"a":' * DEEPEST + b"1" + b"}" * DEEPEST, nested(900)])
def test_what_nests_too_deeply_is_refused_at_the_door(raw: bytes) -> None:
    with pytest.raises(BadRequest, match="nested more than"):
        json_object(body(raw))


WHOLE = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "big",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 100, "completion_tokens": 10},
}


def choice(**changes: object) -> dict[str, object]:
    return {"choices": [{**WHOLE["choices"][0], **changes}]}  # type: ignore[index,dict-item]


ANSWERS: dict[str, dict[str, object]] = {
    "a list for a model": {"model": [1]},
    "no model": {"model": None},
    "a number for a reason": choice(finish_reason=5),
    "an object for a reason": choice(finish_reason={}),
    "negative usage": {"usage": {"prompt_tokens": -5, "completion_tokens": -(10**6)}},
    "huge usage": {"usage": {"prompt_tokens": 2**62, "completion_tokens": 1e300}},
    "usage of words": {"usage": {"prompt_tokens": "many", "completion_tokens": [1]}},
    "fractions": {"usage": {"prompt_tokens": 100.0, "completion_tokens": 10.5}},
    "a number for content": choice(message={"role": "assistant", "content": 5}),
    "deep content": choice(message={"role": "assistant", "content": orjson.loads(nested(230))}),
    "an odd message": choice(message={"": None, "role": [], "content": [{}], "tool_calls": 7}),
}


@pytest.mark.parametrize("odd", ANSWERS.values(), ids=ANSWERS)
def test_what_a_teacher_says_can_be_read_back_and_its_money_counted(tmp_path: Path, odd: dict[str, object]) -> None:
    with world(tmp_path) as w:
        w.teacher.always(raw=orjson.dumps(WHOLE | odd))
        asked = {"model": "locum/teacher", "messages": [{"role": "user", "content": "hi"}]}
        assert httpx.post(f"{w.url}/v1/chat/completions", json=asked).status_code == 200
        (record,) = all_read(w, 1)
        (said,) = record.answers
        assert isinstance(said.model, str) and said.model and isinstance(said.finish_reason, str | None)
        assert 0 < said.cost_usd < 1 and 0 < said.usage.output_tokens < 10**6


def damage(home: Path, change: Callable[[sqlite3.Connection], object]) -> None:
    with closing(sqlite3.connect(home / "records.db")) as db:
        change(db)
        db.commit()


def test_an_unreadable_row_shows_everywhere_and_its_money_is_counted_after_a_restart(tmp_path: Path) -> None:
    asked = {"model": "locum/teacher", "messages": [{"role": "user", "content": "hi"}]}
    with world(tmp_path) as w:
        for _ in range(3):
            assert httpx.post(f"{w.url}/v1/chat/completions", json=asked).status_code == 200
        assert "locum_records_unreadable 0.0" in httpx.get(f"{w.url}/metrics").text
        assert 'locum_records_reduced_total{cause="unfit"} 0.0' in httpx.get(f"{w.url}/metrics").text
        assert len(all_read(w, 3)) == 3
    damage(w.home, lambda db: db.execute("UPDATE records SET body = substr(body, 1, length(body) - 9) WHERE seq = 2"))
    with world(tmp_path) as w:
        until(lambda: "locum_records_unreadable 1.0" in httpx.get(f"{w.url}/metrics").text)
        ready = httpx.get(f"{w.url}/health/ready")
        (problem,) = ready.json()["problems"]
        assert ready.status_code == 200 and "record 2" in problem

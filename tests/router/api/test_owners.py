"""What is one key's, another never finds, moves or speaks for; and cannot tell that it is there."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes import World, until, world

MINE, THEIRS = {"authorization": "Bearer sk-mine"}, {"x-api-key": "sk-theirs"}
GOING_ON = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": "on"},
]


pytestmark = pytest.mark.usefixtures("plain")


def post(proxy: World, path: str, key: dict[str, str], **body: Any) -> httpx.Response:
    return httpx.post(f"{proxy.url}/v1/{path}", headers=key, json=body)


def chat(proxy: World, key: dict[str, str], **body: Any) -> httpx.Response:
    return post(proxy, "chat/completions", key, **{"model": "default", "messages": GOING_ON, **body})


def request_id(answer: httpx.Response) -> str:
    return answer.headers["x-locum-request-id"]


def same_but_for_ids(one: httpx.Response, other: httpx.Response, *ids: str) -> bool:
    texts = [one.text, other.text]
    for name in ids:
        texts = [text.replace(name, "ID") for text in texts]
    return one.status_code == other.status_code and texts[0] == texts[1]


@pytest.mark.parametrize("name", [{"metadata": {"conversation_id": "42"}}, {}])
def test_two_keys_that_say_the_same_mean_two_conversations(proxy: World, name: dict[str, Any]) -> None:
    proxy.student.always(message={"content": " "})  # empty, so their conversation is too hard for it
    hard = chat(proxy, THEIRS, **name)
    assert hard.headers["x-locum-reason"] == "deferral"
    proxy.student.always()
    assert chat(proxy, THEIRS, **name).headers["x-locum-reason"] == "affinity"
    mine = chat(proxy, MINE, **name)
    assert (mine.headers["x-locum-tier"], mine.headers["x-locum-reason"]) == ("student", "score")
    records = [proxy.record(request_id(answer)) for answer in (mine, hard)]
    assert records[0].conversation_id != records[1].conversation_id
    assert "sk-" not in "".join(r.owner + r.conversation_id for r in records)


def test_nobody_names_a_conversation_so_that_it_is_anothers(proxy: World) -> None:
    taken = proxy.record(request_id(chat(proxy, MINE, metadata={"conversation_id": "x"}))).conversation_id
    aimed = chat(proxy, THEIRS, metadata={"conversation_id": taken})
    assert proxy.record(request_id(aimed)).conversation_id != taken


def test_nobody_speaks_for_anothers_request(proxy: World) -> None:
    asked = request_id(chat(proxy, MINE))
    proxy.record(asked)
    refused = post(proxy, "feedback", THEIRS, request_id=asked, verdict="bad")
    unknown = post(proxy, "feedback", THEIRS, request_id="req_nothing", verdict="bad")
    assert refused.status_code == 404
    assert same_but_for_ids(refused, unknown, asked, "req_nothing")
    assert proxy.record(asked).feedback is None
    assert post(proxy, "feedback", MINE, request_id=asked, verdict="good").status_code == 200
    until(lambda: proxy.record(asked).feedback == 1)


def test_of_many_verdicts_one_is_kept(proxy: World) -> None:
    asked = request_id(chat(proxy, MINE))
    for n in range(20):
        assert post(proxy, "feedback", MINE, request_id=asked, score=(n % 5) / 4).status_code == 200
    assert proxy.record(asked).feedback == 1
    with closing(sqlite3.connect(proxy.home / "records.db")) as db:
        assert db.execute("SELECT COUNT(*) FROM amendments WHERE request_id = ?", (asked,)).fetchone() == (1,)


def test_the_same_verdict_again_counts_nothing(proxy: World) -> None:
    def counted() -> float:
        lines = httpx.get(f"{proxy.url}/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("locum_feedback_total{"))

    asked, before = request_id(chat(proxy, MINE)), counted()
    for _ in range(5):
        post(proxy, "feedback", MINE, request_id=asked, verdict="good")
    assert counted() == before + 1


def test_a_kept_response_is_not_there_for_others(proxy: World) -> None:
    kept = post(proxy, "responses", MINE, model="gpt-4o", input="a secret").json()
    item = httpx.get(f"{proxy.url}/v1/responses/{kept['id']}/input_items", headers=MINE).json()["data"][0]["id"]
    nothing = f"resp_{'0' * 48}"
    for path in ("", "/input_items"):
        for method in ("GET", "DELETE")[: 1 if path else 2]:
            found, none = (
                httpx.request(method, f"{proxy.url}/v1/responses/{name}{path}", headers=THEIRS)
                for name in (kept["id"], nothing)
            )
            assert found.status_code == 404
            assert same_but_for_ids(found, none, kept["id"], nothing)
    for asked in ({"previous_response_id": kept["id"]}, {"input": [{"type": "item_reference", "id": item}]}):
        stolen = post(proxy, "responses", THEIRS, **{"model": "gpt-4o", "input": "go on", **asked})
        assert stolen.status_code in (400, 404)
        assert "secret" not in stolen.text
    assert httpx.get(f"{proxy.url}/v1/responses/{kept['id']}", headers=MINE).status_code == 200


def test_a_clients_word_holds_after_a_restart(tmp_path: Path) -> None:
    with world(tmp_path, client_keys=("sk-mine", "sk-theirs")) as proxy:
        asked = request_id(chat(proxy, MINE))
    with world(tmp_path, client_keys=("sk-theirs", "sk-mine", "sk-new")) as proxy:
        assert post(proxy, "feedback", THEIRS, request_id=asked, verdict="bad").status_code == 404
        assert post(proxy, "feedback", MINE, request_id=asked, verdict="good").status_code == 200


def test_without_keys_all_clients_are_one(tmp_path: Path) -> None:
    with world(tmp_path) as proxy:
        asked = request_id(chat(proxy, MINE, metadata={"conversation_id": "x"}))
        assert (proxy.record(asked).owner, proxy.record(asked).conversation_id) == (None, "x")
        assert post(proxy, "feedback", THEIRS, request_id=asked, verdict="good").status_code == 200

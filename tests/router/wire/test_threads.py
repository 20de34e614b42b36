"""Large requests and answers are read in a thread: they come out as small ones do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from router.wire.threads import LARGE_BYTES, aside, to_its_end
from tests.fakes import DEADLINE_SECONDS, World, world

LONG = "ab1. " * (LARGE_BYTES // 4)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("world")) as found:
        yield found


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("chat/completions", {"messages": [{"role": "user", "content": LONG}]}),
        ("chat/completions", {"messages": [{"role": "user", "content": LONG}], "stream": True}),
        ("completions", {"prompt": LONG}),
        ("responses", {"input": LONG}),
        ("messages", {"messages": [{"role": "user", "content": LONG}], "max_tokens": 9}),
    ],
)
def test_a_large_request_is_answered_and_recorded_on_every_surface(
    proxy: World, path: str, body: dict[str, Any]
) -> None:
    proxy.student.seen.clear()
    answer = httpx.post(f"{proxy.url}/v1/{path}", json={"model": "locum/student", **body}, timeout=DEADLINE_SECONDS)
    assert answer.status_code == 200
    assert "hello" in answer.text
    assert proxy.student.seen[-1].body["messages"][-1]["content"] == LONG
    record = proxy.record(answer.headers["x-locum-request-id"])
    assert (record.status, record.answers[0].message["content"]) == (200, "hello there friend")


@pytest.mark.parametrize("path", ["chat/completions", "completions", "responses", "messages"])
def test_a_large_request_that_is_wrong_is_refused_on_every_surface(proxy: World, path: str) -> None:
    answer = httpx.post(f"{proxy.url}/v1/{path}", json={"model": "locum/student", "x": LONG}, timeout=DEADLINE_SECONDS)
    assert answer.status_code == 400


def test_what_was_said_before_at_length_goes_first(proxy: World) -> None:
    asked = {"model": "locum/student", "input": LONG}
    first = httpx.post(f"{proxy.url}/v1/responses", json=asked, timeout=DEADLINE_SECONDS).json()
    proxy.student.seen.clear()
    asked = {"model": "locum/student", "input": "and?", "previous_response_id": first["id"]}
    assert httpx.post(f"{proxy.url}/v1/responses", json=asked, timeout=DEADLINE_SECONDS).status_code == 200
    said = [m["content"] for m in proxy.student.seen[-1].body["messages"]]
    assert said == [LONG, "hello there friend", "and?"]


def test_a_large_request_is_counted(proxy: World) -> None:
    asked = {"model": "locum/student", "messages": [{"role": "user", "content": LONG}]}
    answer = httpx.post(f"{proxy.url}/v1/messages/count_tokens", json=asked, timeout=DEADLINE_SECONDS)
    assert answer.json()["input_tokens"] >= len(LONG) // 4


async def test_little_work_is_done_at_once_and_much_of_it_in_one_thread() -> None:
    here = threading.get_ident()
    assert await aside(threading.get_ident, LARGE_BYTES) == here
    there = await asyncio.gather(*(aside(threading.get_ident, LARGE_BYTES + 1) for _ in range(9)))
    assert here not in there
    assert len(set(there)) == 1


async def test_what_must_be_seen_through_is_though_its_task_is_cancelled() -> None:
    began, may_end = threading.Event(), threading.Event()

    def work() -> str:
        began.set()
        assert may_end.wait(DEADLINE_SECONDS)
        return "done"

    working = asyncio.create_task(to_its_end(work, LARGE_BYTES + 1))
    assert await asyncio.to_thread(began.wait, DEADLINE_SECONDS)
    working.cancel()
    await asyncio.sleep(0)
    may_end.set()
    assert await working == ("done", True)
    assert await to_its_end(lambda: "small", 1) == ("small", False)


async def test_an_error_in_the_thread_is_raised_where_it_was_wanted() -> None:
    def work() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await aside(work, LARGE_BYTES + 1)


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("completions", {"prompt": "hi"}),
        ("responses", {"input": "hi"}),
        ("messages", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}),
    ],
)
def test_a_large_answer_leaves_whole_and_is_recorded_on_every_surface(
    proxy: World, path: str, asked: dict[str, Any]
) -> None:
    proxy.student.always(text=LONG)
    answer = httpx.post(f"{proxy.url}/v1/{path}", json={"model": "locum/student", **asked}, timeout=DEADLINE_SECONDS)
    proxy.student.always()
    assert answer.status_code == 200
    assert LONG in answer.text
    record = proxy.record(answer.headers["x-locum-request-id"])
    assert record.answers[0].message["content"] == LONG


def test_a_stream_is_found_behind_a_hundred_thousand_comments(proxy: World) -> None:
    word = b'data: {"model":"tiny","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n'
    proxy.student.always(raw=b": \n\n" * 100_000 + word + b": \n\n" * 100_000 + b"data: [DONE]\n\n")
    asked = {"model": "locum/student", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    answer = httpx.post(f"{proxy.url}/v1/chat/completions", json=asked, timeout=DEADLINE_SECONDS)
    proxy.student.always()
    assert answer.status_code == 200
    assert answer.text.count("hi") == 1
    assert answer.text.endswith("data: [DONE]\n\n")
    record = proxy.record(answer.headers["x-locum-request-id"])
    assert record.answers[0].message["content"] == "hi"

"""Answers that are none, or not quite one, through the whole proxy: who answers instead, what the client is told, what
is recorded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from router.wire.sse import encode, parse, split
from tests.fakes import FakeUpstream, World, world

EVENTS = {"content-type": "text/event-stream"}
DONE = b"data: [DONE]\n\n"
PATHS: dict[str, dict[str, Any]] = {
    "chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "completions": {"prompt": "hi", "max_tokens": 99},
    "responses": {"input": "hi"},
    "messages": {"max_tokens": 99, "messages": [{"role": "user", "content": "hi"}]},
}
ENDS = {"responses": b"response.failed", "messages": b"event: error"}


def chunk(delta: dict[str, Any] | None = None, finish: Any = None, **more: Any) -> bytes:
    return encode(
        {"id": "x", "model": "m", "choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}], **more}
    )


ROLE = chunk({"role": "assistant", "content": ""})
WORDS = chunk({"content": "one"}) + chunk({"content": " two"}) + chunk({"content": " three"})
STOP = chunk(finish="stop") + DONE
DIED = {"error": {"message": "the engine died", "type": "InternalServerError", "code": 500}}
WRONG = {"error": {"message": "no images here", "type": "BadRequestError", "code": 400}}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("world")) as found:
        yield found


@pytest.fixture
def proxy(shared: World) -> World:
    for upstream in (shared.student, shared.teacher):
        upstream.always()
    for model in ("locum/student", "locum/teacher"):  # both circuits closed
        assert ask(shared, model=model).status_code == 200
    for upstream in (shared.student, shared.teacher):
        upstream.seen.clear()
    return shared


def ask(world: World, path: str = "chat/completions", *, model: str = "gpt-4o", stream: bool = False) -> httpx.Response:
    body = {"model": model, "stream": stream, **PATHS[path]}
    return httpx.post(f"{world.url}/v1/{path}", json=body, timeout=60)


def streams(upstream: FakeUpstream, *events: bytes) -> None:
    upstream.always(raw=b"".join(events), headers=EVENTS)


def answers(upstream: FakeUpstream, body: Any) -> None:
    upstream.always(raw=body if isinstance(body, bytes) else orjson.dumps(body))


def kept(world: World, response: httpx.Response) -> Any:
    return world.record(response.headers["x-locum-request-id"])


@pytest.mark.parametrize(
    "events", [(encode(DIED), DONE), (ROLE, encode(DIED)), (ROLE, DONE), (ROLE, WORDS[: len(WORDS) // 3], encode(DIED))]
)
def test_the_teacher_answers_for_a_student_whose_stream_is_an_error(proxy: World, events: tuple[bytes, ...]) -> None:
    streams(proxy.student, *events)
    response = ask(proxy, stream=True)
    assert (response.status_code, response.headers["x-locum-tier"]) == (200, "teacher")
    assert b"hello" in response.content
    assert b"error" not in response.content


@pytest.mark.parametrize("events", [(encode(DIED), DONE), (ROLE, encode(DIED)), (ROLE, DONE), (DONE,)])
def test_the_student_stands_in_for_a_teacher_that_fails_before_its_first_word(
    proxy: World, events: tuple[bytes, ...]
) -> None:
    streams(proxy.teacher, *events)
    response = ask(proxy, model="locum/teacher", stream=True)
    assert (response.status_code, response.headers["x-locum-tier"]) == (200, "student")
    assert b"hello" in response.content
    assert b"error" not in response.content


FAILED = [DIED, {"detail": "gone"}, {"object": "error", "message": "gone", "code": 500},
          {"choices": []}, {"choices": None}, {},
          {"choices": [{"index": 0, "message": {"content": "half"}, "finish_reason": "error"}]}]  # fmt: skip


@pytest.mark.parametrize("body", FAILED)
def test_a_whole_answer_that_is_an_error_is_a_failure(proxy: World, body: Any) -> None:
    answers(proxy.student, body)
    assert ask(proxy).headers["x-locum-tier"] == "teacher"
    proxy.student.always()
    answers(proxy.teacher, body)
    assert ask(proxy, model="locum/teacher").headers["x-locum-tier"] == "student"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PATHS)
def test_a_requests_own_fault_inside_a_200_is_told_and_asked_once(proxy: World, path: str, stream: bool) -> None:
    if stream:
        streams(proxy.teacher, ROLE, encode(WRONG), DONE)
    else:
        answers(proxy.teacher, WRONG)
    response = ask(proxy, path, model="locum/teacher", stream=stream)
    assert response.status_code == 400
    assert "no images here" in response.text
    assert len(proxy.teacher.seen) == 1
    assert kept(proxy, response).status == 400
    proxy.teacher.always()
    assert ask(proxy, model="locum/teacher").headers["x-locum-tier"] == "teacher"


@pytest.mark.parametrize("tier", ["student", "teacher"])
@pytest.mark.parametrize("path", PATHS)
def test_an_error_after_the_first_words_ends_the_stream_in_the_surfaces_form(
    proxy: World, path: str, tier: str
) -> None:
    streams(proxy.student if tier == "student" else proxy.teacher, ROLE, WORDS, encode(DIED), DONE)
    response = ask(proxy, path, model=f"locum/{tier}", stream=True)
    assert response.headers["x-locum-tier"] == tier
    assert b"one" in response.content
    assert b"the engine died" in response.content
    last = split(response.content)[-1]
    assert ENDS.get(path, b'"error"') in last
    record = kept(proxy, response)
    assert (record.status, record.answers[0].finish_reason, record.answers[0].broken) == (502, None, True)
    metrics = httpx.get(f"{proxy.url}/metrics").text
    count = next(
        line for line in metrics.splitlines() if line.startswith("locum_streams_broken_total") and tier in line
    )
    assert float(count.split()[-1]) >= 1


UNREADABLE = [b'data: {"choices": [{"del\n\n', b"data: {half\n\n", b'data: "so"\n\n', b"data: [1]\n\n",
              b"data: " + b'{"a":' * 1100 + b"1" + b"}" * 1100 + b"\n\n"]  # fmt: skip


@pytest.mark.parametrize("odd", UNREADABLE)
@pytest.mark.parametrize("tier", ["student", "teacher"])
@pytest.mark.parametrize("path", PATHS)
def test_what_cannot_be_read_ends_a_stream_in_an_error_on_every_surface(
    proxy: World, path: str, tier: str, odd: bytes
) -> None:
    upstream, read = (proxy.student if tier == "student" else proxy.teacher), threading.Event()
    upstream.always(raw=ROLE + WORDS, headers=EVENTS, then=(read, odd + chunk({"content": " four"}) + STOP))
    told = b""
    body = {"model": f"locum/{tier}", "stream": True, **PATHS[path]}
    with httpx.stream("POST", f"{proxy.url}/v1/{path}", json=body, timeout=60) as response:
        for piece in response.iter_bytes():
            told += piece
            if b"three" in told:
                read.set()
    assert response.headers["x-locum-tier"] == tier
    events = [parse(event) for event in split(told)]
    assert all(event is not None for event in events), told
    assert ENDS.get(path, b'"error"') in split(told)[-1]
    assert b"cannot be read" in told
    assert not any(word in told for word in (b"four", b"response.completed", b"message_stop", b"DONE"))
    record = kept(proxy, response)
    assert (record.status, record.answers[0].message["content"]) == (502, "one two three")
    assert (record.answers[0].finish_reason, record.answers[0].broken) == (None, True)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PATHS)
def test_what_cannot_be_read_before_a_word_has_left_is_another_backends_to_answer(
    proxy: World, path: str, stream: bool
) -> None:
    for upstream, tier, other in ((proxy.student, "student", "teacher"), (proxy.teacher, "teacher", "student")):
        streams(upstream, ROLE, WORDS, UNREADABLE[0], STOP)
        response = ask(proxy, path, model="gpt-4o" if tier == "student" else "locum/teacher", stream=stream)
        assert (response.status_code, response.headers["x-locum-tier"]) == (200, other)
        assert "hello" in response.text
        upstream.always()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("odd", [b"data: \n\n", b"data\n\n", b"data: null\n\n", b"event: ping\n\n", b"retry: 5\n\n"])
def test_an_event_that_says_nothing_is_none_of_ours(proxy: World, path: str, odd: bytes) -> None:
    streams(proxy.teacher, b": working\n\n", ROLE, WORDS, odd, STOP)
    response = ask(proxy, path, model="locum/teacher", stream=True)
    events = split(response.content)
    assert all(parse(event) or b"[DONE]" in event or event.startswith(b":") for event in events if b"ping" not in event)
    assert odd not in events
    assert b"three" in response.content
    assert kept(proxy, response).answers[0].finish_reason == "stop"


def test_parts_of_any_type_are_no_failure_of_ours(proxy: World) -> None:
    answers(proxy.teacher, {"choices": [{"message": {"content": [{"type": {}, "text": "so"}, {"type": [1]}, 7]}}]})
    assert ask(proxy, model="locum/teacher").status_code == 200


def test_a_student_whose_first_words_cannot_be_read_is_not_judged_but_passed_over(proxy: World) -> None:
    streams(proxy.student, ROLE, chunk({"content": "one"}), b"data: {broken\n\n", STOP)
    assert ask(proxy, stream=True).headers["x-locum-tier"] == "teacher"


TOP = b'"top_logprobs":[{"token":"x","logprob":-Infinity}]'
NAN = b'"logprobs":{"content":[{"token":"one","logprob":NaN,"bytes":null,' + TOP + b"}]},"
ODD = [(b'"index":0', NAN + b'"index":0'), (b'"one"', b'"one \\ud83d"'), (b'"one"', b'"one \xff"'),
       (b'"id":"x"', b'"created":123456789012345678901234567890,"id":"x"'),
       (b'"id":"x"', b'"n":1e999,"id":"x"')]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("tier", ["student", "teacher"])
@pytest.mark.parametrize("path", PATHS)
def test_what_a_strict_parser_refuses_is_an_answer(proxy: World, path: str, tier: str, stream: bool) -> None:
    upstream = proxy.student if tier == "student" else proxy.teacher
    choice = {"index": 0, "message": {"role": "assistant", "content": "one"}, "finish_reason": "stop"}
    body = orjson.dumps({"id": "x", "model": "m", "choices": [choice]})
    for old, new in ODD:
        if stream:
            streams(upstream, ROLE, chunk({"content": "one"}).replace(old, new), STOP)
        else:
            answers(upstream, body.replace(old, new))
        response = ask(proxy, path, model=f"locum/{tier}", stream=stream)
        assert (response.status_code, response.headers["x-locum-tier"]) == (200, tier)
        assert b"one" in response.content
        record = kept(proxy, response)
        assert record.status == 200
        assert record.answers[0].message["content"].startswith("one")
        assert record.answers[0].broken is (b"\\ud" in new or b"\xff" in new)


@pytest.mark.parametrize("tier", ["student", "teacher"])
@pytest.mark.parametrize("path", PATHS)
def test_a_stream_may_come_whole_and_a_whole_answer_as_a_stream(proxy: World, path: str, tier: str) -> None:
    upstream = proxy.student if tier == "student" else proxy.teacher
    choice = {"index": 0, "message": {"role": "assistant", "content": "one two"}, "finish_reason": "stop"}
    answers(
        upstream, {"id": "x", "model": "m", "choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
    )
    streamed = ask(proxy, path, model=f"locum/{tier}", stream=True)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert all(
        parse(event) is not None or b"[DONE]" in event or event.startswith(b":") for event in split(streamed.content)
    )
    streams(upstream, ROLE, WORDS, STOP)
    whole = ask(proxy, path, model=f"locum/{tier}")
    assert whole.headers["content-type"].startswith("application/json")
    for response, words in ((streamed, "one two"), (whole, "one two three")):
        assert (response.status_code, response.headers["x-locum-tier"]) == (200, tier)
        assert words in response.text
        record = kept(proxy, response)
        assert (record.answers[0].message["content"], record.answers[0].finish_reason) == (words, "stop")


def test_a_whole_answer_that_breaks_off_as_a_stream_is_a_failure(proxy: World) -> None:
    for events in ((ROLE, WORDS), (ROLE, WORDS, encode(DIED)), (DONE,), (ROLE, b"data: {broken\n\n", STOP)):
        streams(proxy.teacher, *events)
        assert ask(proxy, model="locum/teacher").headers["x-locum-tier"] == "student"
        proxy.teacher.always()
        assert ask(proxy, model="locum/teacher").headers["x-locum-tier"] == "teacher"


HALF = [{"finish_reason": f} for f in ({}, 5, "", None)] + [
    {"message": {"role": "assistant", "content": "one", **more}}
    for more in ({"role": "system"}, {"content": 12345}, {"tool_calls": [None]}, {"tool_calls": ["x"]})
]


@pytest.mark.parametrize("odd", HALF)
def test_a_whole_answer_of_no_known_form_is_served_and_marked(proxy: World, odd: dict[str, Any]) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "one"}, "finish_reason": "stop", **odd}
    answers(proxy.teacher, {"model": "m", "choices": [choice]})
    response = ask(proxy, model="locum/teacher")
    assert (response.status_code, response.headers["x-locum-tier"]) == (200, "teacher")
    found = kept(proxy, response).answers[0]
    assert (found.finish_reason, found.broken) == (None, True)


def test_an_answer_whose_speaker_is_an_error_is_a_failure(proxy: World) -> None:
    message = {"role": "error", "content": "the engine died"}
    answers(proxy.teacher, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    assert ask(proxy, model="locum/teacher").headers["x-locum-tier"] == "student"
    proxy.teacher.always()
    assert ask(proxy, model="locum/teacher").headers["x-locum-tier"] == "teacher"


@pytest.mark.parametrize("odd", [encode({"note": "so"}), chunk({"role": "system"}), chunk({"content": 5}),
                                 chunk(finish={}), b"Internal Server Error\n\n"])  # fmt: skip
def test_a_stream_with_what_nobody_knows_is_marked(proxy: World, odd: bytes) -> None:
    streams(proxy.teacher, ROLE, WORDS, odd, STOP)
    response = ask(proxy, model="locum/teacher", stream=True)
    found = kept(proxy, response).answers[0]
    assert (response.status_code, found.finish_reason, found.broken) == (200, None, True)


PARTS = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "one two"}]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("tier", ["student", "teacher"])
@pytest.mark.parametrize("path", PATHS)
def test_content_in_parts_is_an_answer_everywhere(proxy: World, path: str, tier: str, stream: bool) -> None:
    upstream = proxy.student if tier == "student" else proxy.teacher
    if stream:
        streams(upstream, ROLE, chunk({"content": PARTS[:1]}), chunk({"content": PARTS[1:]}), STOP)
    else:
        answers(
            upstream, {"model": "m", "choices": [{"index": 0, "message": {"content": PARTS}, "finish_reason": "stop"}]}
        )
    response = ask(proxy, path, model=f"locum/{tier}", stream=stream)
    assert (response.status_code, response.headers["x-locum-tier"]) == (200, tier)
    assert "one two" in response.text
    message = kept(proxy, response).answers[0].message
    assert message == {"role": "assistant", "content": "one two", "reasoning_content": "hm"}


CALLS = [{"index": 0, "id": i, "type": "function", "function": {"name": "f", "arguments": a}} for i, a in
         (("a", '{"x":1}'), ("b", {"x": 2}))]  # fmt: skip


@pytest.mark.parametrize("tier", ["student", "teacher"])
@pytest.mark.parametrize("stream", [False, True])
def test_two_calls_are_two_on_every_surface(proxy: World, tier: str, stream: bool) -> None:
    upstream = proxy.student if tier == "student" else proxy.teacher
    if stream:
        streams(upstream, ROLE, *(chunk({"tool_calls": [c]}) for c in CALLS), chunk(finish="tool_calls") + DONE)
    else:
        message = {"role": "assistant", "content": None, "tool_calls": CALLS}
        answers(upstream, {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})
    for path in ("responses", "messages"):
        response = ask(proxy, path, model=f"locum/{tier}", stream=stream)
        said = kept(proxy, response).answers[0].message["tool_calls"]
        assert [orjson.loads(c["function"]["arguments"]) for c in said] == [{"x": 1}, {"x": 2}]
        if path == "messages" and stream:
            found = [e for e in map(parse, split(response.content)) if e and e.get("delta", {}).get("partial_json")]
            assert [orjson.loads(e["delta"]["partial_json"]) for e in found] == [{"x": 1}, {"x": 2}]
        elif path == "messages":
            assert [b["input"] for b in response.json()["content"]] == [{"x": 1}, {"x": 2}]
        else:
            events = [e for e in map(parse, split(response.content)) if e] if stream else []
            output = (events[-1]["response"] if stream else response.json())["output"]
            assert [orjson.loads(item["arguments"]) for item in output] == [{"x": 1}, {"x": 2}]


def test_nesting_that_cannot_be_written_again_breaks_nothing(proxy: World, tmp_path: Path) -> None:
    deep = b'{"a":' * 300 + b"1" + b"}" * 300
    choice = b'"choices":[{"index":0,"message":{"content":"one"},"delta":{"content":"one"},"finish_reason":"stop"}]'
    body = b'{"model":"m","x":' + deep + b"," + choice + b"}"
    for path in PATHS:
        for stream in (False, True):
            for tier in ("student", "teacher"):
                upstream = proxy.student if tier == "student" else proxy.teacher
                if stream:
                    streams(upstream, ROLE, b"data: " + body + b"\n\n", DONE)
                else:
                    answers(upstream, body)
                response = ask(proxy, path, model=f"locum/{tier}", stream=stream)
                assert "internal error" not in response.text
                upstream.always()
    assert ask(proxy).status_code == 200


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("counted", [True, False])
def test_an_answer_that_has_ended_is_not_kept_from_its_client_by_a_stream_left_open(
    proxy: World, counted: bool, path: str
) -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    end = chunk(finish="stop", usage=usage) if counted else chunk(finish="stop")
    never = threading.Event()
    proxy.teacher.always(raw=ROLE + WORDS + end, headers=EVENTS, then=(never, b""))
    try:
        answer = ask(proxy, path, model="locum/teacher", stream=True)
        assert proxy.teacher.seen[-1].left.wait(30)
    finally:
        never.set()
    whole = {"messages": b"event: message_stop", "responses": b"event: response.completed"}
    assert whole.get(path, DONE) in answer.content and ENDS.get(path, b'"error"') not in answer.content
    record = proxy.record(answer.headers["x-locum-request-id"])
    [served] = record.answers
    assert (record.status, served.broken, served.usage.estimated) == (200, False, not counted)


def test_choices_that_nobody_asked_for_do_not_leave(proxy: World) -> None:
    said = [
        {"index": n, "message": {"role": "assistant", "content": f"no {n}"}, "finish_reason": "stop"} for n in (0, 1)
    ]
    answers(proxy.teacher, {"id": "x", "model": "m", "choices": said})
    answer = ask(proxy, model="locum/teacher")
    assert [choice["message"]["content"] for choice in answer.json()["choices"]] == ["no 0"]
    assert proxy.record(answer.headers["x-locum-request-id"]).answers[0].broken

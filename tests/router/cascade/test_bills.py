"""What a provider bills is booked, also where nobody got the answer: estimated then, and marked so."""

from __future__ import annotations

import socket
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.fakes import DEADLINE_SECONDS, World, until, world

ASKED = {"model": "gpt-4o", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
TEACHER = {"x-locum-tier": "teacher"}
STUDENT = {"x-locum-tier": "student"}


def leave(proxy: World, body: dict[str, Any], headers: dict[str, str], *, after_bytes: bool) -> None:
    """Asks, and goes before the end: once the backend was asked, or once something has come."""
    if after_bytes:
        url = f"{proxy.url}/v1/chat/completions"
        with httpx.stream("POST", url, json=body, headers=headers, timeout=DEADLINE_SECONDS) as answer:
            next(answer.iter_raw())
        return
    place, content = httpx.URL(proxy.url), orjson.dumps(body)
    told = {"host": "x", "content-type": "application/json", "content-length": str(len(content)), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    with socket.create_connection((place.host, place.port or 80)) as connection:
        connection.sendall(f"POST /v1/chat/completions HTTP/1.1\r\n{lines}\r\n".encode() + content)
        until(lambda: proxy.teacher.seen or proxy.student.seen)


def only_record(proxy: World) -> Any:
    return until(lambda: next(iter(proxy.records()), None))


@pytest.mark.parametrize("headers", [TEACHER, STUDENT], ids=["teacher", "student"])
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
def test_whose_client_left_before_a_word_is_booked_and_marked(
    tmp_path: Path, headers: dict[str, str], streamed: bool
) -> None:
    with world(tmp_path) as proxy:
        (proxy.teacher if headers is TEACHER else proxy.student).always(hang=True)
        leave(proxy, {**ASKED, "stream": streamed}, headers, after_bytes=False)
        record = only_record(proxy)
        assert record.status == 499
        assert [(a.kind, a.usage.estimated) for a in record.answers] == [("discarded", True)]
        used = record.answers[0].usage
        assert used.input_tokens > 0 and used.output_tokens > 0
        assert record.estimated_usd == record.cost_usd > 0


def test_a_stream_that_was_left_is_booked_by_what_was_said_and_told(tmp_path: Path) -> None:
    with world(tmp_path) as proxy:
        proxy.teacher.always(text="one two three four five", hang_after=4)
        leave(proxy, {**ASKED, "stream": True}, TEACHER, after_bytes=True)
        record = only_record(proxy)
        assert record.status == 499 and record.answers[0].kind == "served"
        assert record.answers[0].usage.estimated and record.answers[0].usage.output_tokens >= 1
        assert record.counterfactual_usd == record.answers[0].cost_usd > 0


def test_a_student_held_back_when_its_client_leaves_is_booked_by_what_it_said(tmp_path: Path) -> None:
    with world(tmp_path, accept={"hold_tokens": 24}) as proxy:
        proxy.student.always(text="one two three four five", hang_after=4)
        leave(proxy, {**ASKED, "stream": True}, {}, after_bytes=False)
        record = only_record(proxy)
        assert record.status == 499 and not proxy.teacher.seen
        assert [(a.tier, a.kind, a.usage.estimated) for a in record.answers] == [("student", "discarded", True)]


def test_estimated_money_is_a_metric(tmp_path: Path) -> None:
    with world(tmp_path) as proxy:
        proxy.teacher.always(usage={"prompt_tokens": -1, "completion_tokens": None})
        answer = httpx.post(f"{proxy.url}/v1/chat/completions", json=ASKED, headers=TEACHER, timeout=DEADLINE_SECONDS)
        spent = Decimal(answer.headers["x-locum-cost-usd"])
        lines = httpx.get(f"{proxy.url}/metrics").text.splitlines()
        found = next(x for x in lines if x.startswith("locum_spend_estimated_usd_total") and "teacher" in x)
        assert float(found.split()[-1]) == pytest.approx(float(spent)) and spent > 0


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
def test_the_provider_s_own_bill_is_the_header_the_record_and_the_saving(tmp_path: Path, streamed: bool) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010, "cost": 0.0077}
    with world(tmp_path) as proxy:
        proxy.teacher.always(usage=usage)
        body = {**ASKED, "stream": streamed}
        answer = httpx.post(f"{proxy.url}/v1/chat/completions", json=body, headers=TEACHER, timeout=DEADLINE_SECONDS)
        record = proxy.record(answer.headers["x-locum-request-id"])
        assert record.cost_usd == record.counterfactual_usd == Decimal("0.0077")
        if not streamed:
            assert answer.headers["x-locum-cost-usd"] == "0.0077"
            assert answer.json()["usage"]["cost"] == 0.0077


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("told", [0, 1])
def test_a_count_that_the_answer_belies_is_estimated_and_marked(tmp_path: Path, told: int, *, streamed: bool) -> None:
    with world(tmp_path) as proxy:
        proxy.teacher.always(text="word " * 400, usage={"prompt_tokens": told, "completion_tokens": told})
        body = {**ASKED, "stream": streamed}
        httpx.post(f"{proxy.url}/v1/chat/completions", json=body, headers=TEACHER, timeout=DEADLINE_SECONDS)
        used = only_record(proxy).answers[0].usage
        assert used.estimated and used.output_tokens >= 400 and used.input_tokens > 0


def test_a_bill_of_nothing_gives_way_to_the_policy_s_own_price(tmp_path: Path) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010, "cost": 0.0}
    with world(tmp_path) as proxy:
        proxy.teacher.always(usage=usage)
        httpx.post(f"{proxy.url}/v1/chat/completions", json=ASKED, headers=TEACHER, timeout=DEADLINE_SECONDS)
        record = only_record(proxy)
        assert record.cost_usd == Decimal("0.00103") and not record.answers[0].usage.estimated


SAID = "word " * 800  # a thousand tokens


def choices(part: str, count: int) -> list[dict[str, Any]]:
    return [{"index": n, part: {"role": "assistant", "content": SAID}, "finish_reason": None} for n in range(count)]


def events(*chunks: Any) -> bytes:
    return b"".join(b"data: " + orjson.dumps({"id": "c", "model": "m", **chunk}) + b"\n\n" for chunk in chunks)


@pytest.mark.parametrize("n", [3, 20])
def test_several_whole_answers_without_usage_are_booked_each(tmp_path: Path, n: int) -> None:
    with world(tmp_path) as proxy:
        told = [choice | {"finish_reason": "stop"} for choice in choices("message", n)]
        proxy.teacher.always(raw=orjson.dumps({"choices": told}))
        httpx.post(f"{proxy.url}/v1/chat/completions", json={**ASKED, "n": n}, headers=TEACHER, timeout=30)
        used = only_record(proxy).answers[0].usage
        assert (used.output_tokens, used.estimated) == (n * 1000, True)


@pytest.mark.parametrize("begun", [50, 3, 1, 0])
def test_of_several_answers_that_were_left_each_is_booked_that_may_be_paid(tmp_path: Path, begun: int) -> None:
    with world(tmp_path) as proxy:
        never = threading.Event()
        first = {"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}]}
        said = events(first, *({"choices": [choice]} for choice in choices("delta", begun)))
        proxy.teacher.always(raw=said, then=(never, b""))
        try:
            leave(proxy, {**ASKED, "n": 50, "stream": True}, TEACHER, after_bytes=True)
            used = only_record(proxy).answers[0].usage
        finally:
            never.set()
        assert used.estimated and used.output_tokens >= 50 * (500 if begun == 0 else 1000)


@pytest.mark.parametrize("limit", [None, 5])
def test_several_answers_of_which_none_came_are_booked_each_within_their_limit(tmp_path: Path, limit: int) -> None:
    with world(tmp_path) as proxy:
        proxy.teacher.always(hang=True)
        body = {**ASKED, "n": 50} | ({"max_tokens": limit} if limit else {})
        leave(proxy, body, TEACHER, after_bytes=False)
        assert only_record(proxy).answers[0].usage.output_tokens == 50 * (limit or 500)


def test_the_usual_length_is_that_of_one_answer(tmp_path: Path) -> None:
    with world(tmp_path) as proxy:
        usage = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
        proxy.teacher.always(usage=usage)
        httpx.post(f"{proxy.url}/v1/chat/completions", json={**ASKED, "n": 50}, headers=TEACHER, timeout=30)
        proxy.teacher.always(hang=True)
        leave(proxy, ASKED, TEACHER, after_bytes=False)
        until(lambda: len(proxy.records()) == 2)
        assert proxy.records()[1].answers[0].usage.output_tokens == 10


U = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
HALF = {"role": "assistant", "content": "half"}
NO_ANSWERS: dict[str, dict[str, Any]] = {
    "no choices": {"choices": [], "usage": U},
    "no field of choices": {"usage": U},
    "no message": {"choices": [{"index": 0, "finish_reason": "content_filter"}], "usage": U},
    "a null for a message": {"choices": [{"index": 0, "message": None, "finish_reason": "stop"}], "usage": U},
    "an error": {"error": {"message": "x"}, "usage": U},
    "an error of the request": {"error": {"message": "x", "code": 400}, "usage": U},
    "an error, told the bill": {"error": {"message": "x", "code": 503}, "usage": {**U, "cost": 0.0013}},
    "an error in the choice": {
        "choices": [{"index": 0, "message": HALF, "finish_reason": "error", "error": {"code": 502, "message": "x"}}],
        "usage": U,
    },
}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", NO_ANSWERS)
def test_what_is_no_answer_and_tells_its_usage_is_booked_by_it(tmp_path: Path, name: str, *, streamed: bool) -> None:
    with world(tmp_path) as proxy:
        told = NO_ANSWERS[name]
        proxy.teacher.always(raw=orjson.dumps(told))
        body = {**ASKED, "stream": streamed}
        httpx.post(f"{proxy.url}/v1/chat/completions", json=body, headers=TEACHER, timeout=DEADLINE_SECONDS)
        record = only_record(proxy)
        paid = [a for a in record.answers if a.tier == "teacher"]
        assert len(paid) == len(proxy.teacher.seen), "each attempt"
        assert {(a.kind, a.cost_usd) for a in paid} == {("discarded", Decimal("0.0013"))}


STREAMS: dict[str, list[dict[str, Any]]] = {
    "an error first": [{"error": {"message": "x"}, "usage": U}],
    "an error after a role": [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
        {"error": {"message": "x"}, "usage": U},
    ],
    "a usage after the error": [{"error": {"message": "x"}}, {"choices": [], "usage": U}],
    "a usage before the error": [{"choices": [], "usage": U}, {"error": {"message": "x"}}],
    "a usage alone": [{"choices": [], "usage": U}],
    "an error in the middle": [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "half"}}]},
        {"error": {"message": "x"}, "usage": U},
    ],
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_breaks_off_and_tells_its_usage_is_booked_by_it(tmp_path: Path, name: str) -> None:
    with world(tmp_path) as proxy:
        proxy.teacher.always(raw=events(*STREAMS[name]) + b"data: [DONE]\n\n")
        body = {**ASKED, "stream": True}
        httpx.post(f"{proxy.url}/v1/chat/completions", json=body, headers=TEACHER, timeout=DEADLINE_SECONDS)
        paid = [a for a in only_record(proxy).answers if a.tier == "teacher"]
        assert len(paid) == len(proxy.teacher.seen)
        assert {a.cost_usd for a in paid} == {Decimal("0.0013")}


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("told", [0, 1])
def test_a_prompt_s_count_that_its_text_belies_is_estimated_and_marked(
    tmp_path: Path, told: int, *, streamed: bool
) -> None:
    with world(tmp_path) as proxy:
        proxy.teacher.always(text="card_arrival", usage={"prompt_tokens": told, "completion_tokens": told})
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "word " * 20_000}], "stream": streamed}
        httpx.post(f"{proxy.url}/v1/chat/completions", json=body, headers=TEACHER, timeout=DEADLINE_SECONDS)
        used = only_record(proxy).answers[0].usage
        assert used.estimated and used.input_tokens >= 20_000 and used.output_tokens >= 1


def test_clients_that_ask_for_fifty_and_leave_pass_a_cap_by_one_answer_at_most(tmp_path: Path) -> None:
    with world(tmp_path, objective={"usd_per_day": 0.2, "when_spent": "refuse"}) as proxy:
        never = threading.Event()
        said = events(*({"choices": [choice]} for choice in choices("delta", 50)))  # 15 cents
        proxy.teacher.always(raw=said, then=(never, b""))
        try:
            for n in range(4):
                leave(proxy, {**ASKED, "n": 50, "max_tokens": 1000, "stream": True}, TEACHER, after_bytes=True)
                until(lambda: len(proxy.records()) > n)  # noqa: B023 - it is called here alone
        finally:
            never.set()
        assert len(proxy.teacher.seen) == 2
        assert sum((r.cost_usd for r in proxy.records()), Decimal(0)) >= Decimal("0.3")

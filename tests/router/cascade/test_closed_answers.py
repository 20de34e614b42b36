"""Where the answers are a closed set, one outside it never leaves, and the record says why."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from distiller.data.rows import DatasetRow
from distiller.evaluation.answers import Asker
from distiller.evaluation.grading import question
from router.contracts.decision import Tier
from router.contracts.records import Answer, AnswerKind, Audit, Record
from router.judges.judge import Judges
from router.judges.labels import SETTLED
from router.policy.policy import LogPart, load_policy
from router.store.sqlite import SqliteStore
from router.wire.sse import encode
from tests.fakes import World, collected, until, world

LABELS = ["card_arrival", "lost card", "refund"]
JUDGE = {"name": "labels", "labels": LABELS, "tasks": {"chat": "normalised"}}
TEAM = {"type": "object", "properties": {"team": {"enum": ["cards", "billing"]}}, "required": ["team"]}
FORM = {"type": "json_schema", "json_schema": {"name": "team", "schema": TEAM}}
CONST = {"type": "json_schema", "json_schema": {"name": "ok", "schema": {"const": "yes"}}}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("closed"), judge=JUDGE) as found:
        until(lambda: httpx.get(f"{found.url}/health/ready").json()["policies"][0]["student"]["ready"])
        yield found


def ask(proxy: World, model: str = "gpt-4o", task: str = "intent", **more: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "where is it"}], "metadata": {"task": task}}
    return httpx.post(f"{proxy.url}/v1/chat/completions", json=body | more, timeout=60)


def counted(proxy: World, cause: str) -> float:
    lines = httpx.get(f"{proxy.url}/metrics").text.splitlines()
    return sum(float(x.rsplit(" ", 1)[1]) for x in lines if x.startswith(f'locum_deferrals_total{{cause="{cause}"'))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("said", ["card_arrival", "Lost card.", "The label is: refund"])
def test_a_label_leaves(proxy: World, said: str, stream: bool) -> None:
    proxy.student.always(text=said)
    answer = ask(proxy, stream=stream)
    assert (answer.status_code, answer.headers["x-locum-tier"]) == (200, "student")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("said", "more", "cause"),
    [
        ("card_delivery", {}, "outside"),  # invented
        ("refund or lost card, it is hard to say which of the two it is", {}, "outside"),
        ("refund " + "of something else " * 9 + "lost card", {}, "outside"),  # only its end tells
        ("re", {"max_tokens": 1}, "outside"),  # cut off as asked, and no answer all the same
        ('{"team": "sales"}', {"response_format": FORM, "metadata": {"task": "chat"}}, "schema"),
        ('{"team": "cards"', {"response_format": FORM, "max_tokens": 4, "metadata": {"task": "chat"}}, "schema"),
        ('"no"', {"response_format": CONST, "metadata": {"task": "chat"}}, "schema"),
    ],
)
def test_an_answer_outside_the_set_is_the_teachers_to_give(
    proxy: World, said: str, more: dict[str, Any], cause: str, stream: bool
) -> None:
    finish = "length" if "max_tokens" in more else "stop"
    proxy.student.always(text=said, finish_reason=finish)
    proxy.teacher.always(text="from the teacher")
    before = counted(proxy, cause)
    answer = ask(proxy, stream=stream, **more)
    assert (answer.headers["x-locum-tier"], answer.headers["x-locum-reason"]) == ("teacher", "deferral")
    message = collected(answer.content).message if stream else answer.json()["choices"][0]["message"]
    assert message["content"] == "from the teacher"
    assert proxy.record(answer.headers["x-locum-request-id"]).deferral == cause
    assert counted(proxy, cause) == before + 1


CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "remove", "arguments": "{}"}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "beside", [{"tool_calls": [CALL]}, {"annotations": [{"title": "other"}]}, {"audio": {"transcript": "other"}}]
)
def test_nor_does_a_label_with_something_beside_it(proxy: World, beside: dict[str, Any], stream: bool) -> None:
    proxy.student.always(text="refund", message=beside, deltas=({"content": "refund"}, beside))
    proxy.teacher.always(text="from the teacher")
    answer = ask(proxy, stream=stream)
    assert answer.headers["x-locum-tier"] == "teacher" and "remove" not in answer.text and "other" not in answer.text
    assert proxy.record(answer.headers["x-locum-request-id"]).deferral == "outside"


@pytest.mark.parametrize("index", [0, 1])
def test_nothing_leaves_after_the_label_has_ended(proxy: World, index: int) -> None:
    """Neither of it, nor of a choice that nobody asked for, however late it comes."""
    read, label = threading.Event(), {"index": 0, "delta": {"content": "refund"}, "finish_reason": "stop"}
    late = {"index": index, "delta": {"content": " or lost card"}, "finish_reason": "stop"}
    then = (read, encode({"choices": [late]}) + b"data: [DONE]\n\n")
    proxy.student.always(raw=encode({"choices": [label]}), then=then, headers={"content-type": "text/event-stream"})
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    told = b""
    with httpx.stream("POST", f"{proxy.url}/v1/chat/completions", json=body, timeout=60) as answer:
        for piece in answer.iter_bytes():
            told += piece
            read.set()
    assert collected(told).message["content"] == "refund" and b"lost card" not in told
    assert told.endswith(b"data: [DONE]\n\n")
    [served] = proxy.record(answer.headers["x-locum-request-id"]).answers
    assert (served.tier, served.message["content"], served.broken) == ("student", "refund", True)


def test_a_task_whose_answers_are_free_is_held_to_no_label(proxy: World) -> None:
    proxy.student.always(text="anything at all")
    assert ask(proxy, task="chat").headers["x-locum-tier"] == "student"


def test_who_forces_the_student_gets_what_it_says(proxy: World) -> None:
    proxy.student.always(text="card_delivery")
    assert ask(proxy, "locum/student").json()["choices"][0]["message"]["content"] == "card_delivery"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("said", "status"), [("refund", 200), ("card_delivery", 503)])
def test_nor_does_it_leave_where_the_teacher_is_down(proxy: World, said: str, status: int, stream: bool) -> None:
    proxy.student.always(text=said)
    proxy.teacher.always(status=503)
    try:
        answer = ask(proxy, "locum/teacher", stream=stream)
        assert answer.status_code == status and "card_delivery" not in answer.text
        free = ask(proxy, stream=stream)
        assert free.status_code == status and "card_delivery" not in free.text
    finally:
        proxy.teacher.always()


def test_a_client_that_leaves_meanwhile_gets_nothing_of_it(proxy: World) -> None:
    proxy.student.always(text="card_delivery " * 5, hang_after=4)
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{proxy.url}/v1/chat/completions", json=body, timeout=httpx.Timeout(30, read=0.5))
    assert until(lambda: proxy.student.seen[-1].left.is_set() or None)


def test_what_never_leaves_is_measured_as_such(proxy: World, tmp_path: Path) -> None:
    policy = load_policy(proxy.policy_file)
    values: dict[str, Any] = {"conversation_id": "c", "created_at": 0.0, "answer": "refund", "teacher": "t"}
    rows = [DatasetRow("r", messages=[{"role": "user", "content": "hi"}], rights="allowed", **values)]
    for said, kept_back in (("card_delivery", True), ("lost card", False)):
        proxy.student.always(text=said)
        asker = Asker(f"{proxy.student.url}/v1", "tiny", judges=Judges(policy.judge))
        [answer] = asker.ask([question(row) for row in rows], tmp_path / said).values()
        assert answer.kept_back is kept_back


def test_labels_that_the_logs_audits_know_are_all_there_are(tmp_path: Path, make_record: Callable[..., Record]) -> None:
    """From the start on, where the policy names none: an invented one is the teacher's to give."""
    with closing(SqliteStore(tmp_path / "home" / "records.db", {"default": LogPart()})) as store:
        asked = {"messages": [{"role": "user", "content": "where is it"}]}
        for n in range(SETTLED + len(LABELS)):
            text = LABELS[n % len(LABELS)]
            teacher = Answer(
                tier=Tier.TEACHER, kind=AnswerKind.AUDITED, model="big", finish_reason="stop", message={"content": text}
            )
            store.append(make_record(f"r-{n}", task="intent", created_at=time.time(), request=asked, answers=[]))
            store.amend(f"r-{n}", audit=Audit(answer=teacher, acceptable=True, judge="labels"))
            if n % 50 == 0:
                asyncio.run(store.flush())
    with world(tmp_path, judge="labels") as proxy:
        until(lambda: httpx.get(f"{proxy.url}/health/ready").json()["policies"][0]["student"]["ready"])
        proxy.student.always(text="card_delivery")
        proxy.teacher.always(text="refund")
        until(lambda: ask(proxy).headers["x-locum-tier"] == "teacher")
        for stream in (False, True):
            answer = ask(proxy, stream=stream)
            assert proxy.record(answer.headers["x-locum-request-id"]).deferral == "outside"
            assert "delivery" not in answer.text
        proxy.student.always(text="Lost card.")
        assert ask(proxy).headers["x-locum-tier"] == "student"

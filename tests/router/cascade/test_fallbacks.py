"""Who answers where a teacher does not: the next teacher, then the student, else the client hears the truth."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes import DEADLINE_SECONDS, FakeUpstream, World, served, world

MESSAGES: Any = [{"role": "user", "content": "hi"}]
TOOLS: Any = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
TOO_LONG = {"message": "This model's maximum context length is 8 tokens", "code": "context_length_exceeded"}
FLAGGED = {"code": 403, "message": "Your input was flagged", "metadata": {"reasons": ["violence"]}}


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeUpstream]:
    """The second teacher, whom litellm finds where the environment says."""
    found = FakeUpstream("second")
    found.always(text="from second")
    with served(found) as found.url:
        monkeypatch.setenv("DEEPSEEK_API_BASE", f"{found.url}/v1")
        monkeypatch.setenv("DEEPSEEK_API_KEY", "sk-second-secret")
        yield found


@pytest.fixture
def proxy(tmp_path: Path, second: FakeUpstream) -> Iterator[World]:
    """With its own circuits, all closed."""
    first = FakeUpstream("first")
    first.always(text="from first")
    with served(first) as first.url:
        teacher = {
            "model": "first",
            "url": f"{first.url}/v1",
            "api_key_env": "TEACHER_KEY",
            "usd_per_million": {"input": 1, "output": 3},
            "fallbacks": ["deepseek/deepseek-chat"],
            "timeout_seconds": DEADLINE_SECONDS,
        }
        with world(tmp_path, client_keys=("sk-1", "sk-2"), teacher=teacher) as found:
            found.teacher = first
            yield found


def ask(proxy: World, key: str = "sk-1", **more: Any) -> httpx.Response:
    body = {"model": "locum/teacher", "messages": MESSAGES, **more}
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{proxy.url}/v1/chat/completions", json=body, headers=headers, timeout=DEADLINE_SECONDS)


def of(answer: httpx.Response) -> tuple[int, str | None, str | None]:
    return answer.status_code, answer.headers.get("x-locum-tier"), answer.headers.get("x-locum-reason")


def cause(proxy: World, answer: httpx.Response) -> str | None:
    found = proxy.record(answer.headers["x-locum-request-id"]).fallback
    return None if found is None else str(found)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("script", "why"),
    [
        ({"status": 402}, "unusable"),
        ({"status": 404}, "unusable"),
        ({"status": 410}, "unusable"),
        ({"status": 400, "error": {"message": "Your credit balance is too low"}}, "unusable"),
        ({"status": 429, "error": {"message": "no", "code": "insufficient_quota"}}, "unusable"),
        ({"status": 400, "error": TOO_LONG}, "unable"),
    ],
)
def test_the_next_teacher_answers_at_once(
    proxy: World, second: FakeUpstream, script: dict[str, Any], why: str, stream: bool
) -> None:
    proxy.teacher.always(**script)
    answer = ask(proxy, stream=stream)
    assert of(answer) == (200, "teacher", "override")
    assert "first" not in answer.text
    assert (len(proxy.teacher.seen), len(second.seen), cause(proxy, answer)) == (1, 1, why)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("teachers", ["one of two fails", "both fail"])
def test_nothing_is_saved_or_lost_by_who_stood_in(
    proxy: World, second: FakeUpstream, teachers: str, stream: bool
) -> None:
    """What the teacher alone would have cost stands at what was paid, in the answer, the record, and all sums."""
    proxy.teacher.always(status=402)
    if teachers == "both fail":
        second.always(status=402)
    answer = ask(proxy, stream=stream)
    record = proxy.record(answer.headers["x-locum-request-id"])
    assert (record.tier, record.fallback) == ("student" if teachers == "both fail" else "teacher", "unusable")
    assert record.counterfactual_usd == record.answers[0].cost_usd > 0
    assert (record.counterfactual_tokens, record.counterfactual_by) == (None, None)
    assert record.saved_usd == -sum((a.cost_usd for a in record.answers[1:]), Decimal(0))
    if not stream:
        assert Decimal(answer.headers["x-locum-saved-usd"]) == record.saved_usd


def test_where_no_teacher_can_the_student_does(proxy: World, second: FakeUpstream) -> None:
    proxy.teacher.always(status=400, error=TOO_LONG)
    second.always(status=402)
    answer = ask(proxy)
    assert of(answer) == (200, "student", "fallback")
    assert cause(proxy, answer) == "unable"


@pytest.mark.parametrize("stream", [False, True])
def test_where_nobody_can_the_first_failure_is_told(proxy: World, second: FakeUpstream, stream: bool) -> None:
    error = {"message": "The model `first` does not exist, says sk-teacher-secret", "code": "model_not_found"}
    proxy.teacher.always(status=404, error=error)
    second.always(status=500)
    answer = ask(proxy, tools=TOOLS, stream=stream)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert "sk-" not in answer.text
    assert not proxy.student.seen


def test_or_the_first_refusal_in_its_own_words(proxy: World, second: FakeUpstream) -> None:
    proxy.teacher.always(status=400, error=TOO_LONG)
    second.always(status=500)
    answer = ask(proxy, tools=TOOLS)
    assert (answer.status_code, answer.json()["error"]) == (400, TOO_LONG)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "error"),
    [(403, FLAGGED), (400, {"message": "no", "code": "content_policy_violation"}), (422, {"message": "no"})],
)
def test_a_requests_own_fault_is_told_and_asked_once(
    proxy: World, second: FakeUpstream, status: int, error: dict[str, Any], stream: bool
) -> None:
    proxy.teacher.always(status=status, error=error)
    answer = ask(proxy, stream=stream)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert (len(proxy.teacher.seen), len(second.seen), len(proxy.student.seen)) == (1, 0, 0)


def test_one_clients_poison_shuts_nobody_else_out(proxy: World, second: FakeUpstream) -> None:
    second.always(status=500)
    for _ in range(12):
        proxy.teacher.always(status=500)
        ask(proxy, "sk-1", tools=TOOLS)
    proxy.teacher.always(text="from first")
    for _ in range(3):
        answer = ask(proxy, "sk-2", tools=TOOLS)
        assert of(answer) == (200, "teacher", "override"), answer.text


def test_with_a_long_wait_the_client_hears_of_it_and_others_are_not_held_up(proxy: World, second: FakeUpstream) -> None:
    proxy.teacher.always(status=429, headers={"retry-after": "37"})
    second.always(status=429, headers={"retry-after": "50"})
    for _ in range(2):
        answer = ask(proxy, tools=TOOLS)
        assert answer.status_code == 429
        assert 20 <= int(answer.headers["retry-after"]) <= 37
    assert (len(proxy.teacher.seen), len(second.seen)) == (1, 1)
    assert of(ask(proxy)) == (200, "student", "fallback")

"""A proxy that ends lets what is under way end, tells those who have to be cut off, and records what happened."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.commands import Command, command, one_answer, post, rest_of, up_to
from tests.fakes import DEADLINE_SECONDS, until

CHAT: dict[str, Any] = {"model": "locum/teacher", "messages": [{"role": "user", "content": "hi"}]}
PATH = "/v1/chat/completions"
ENDINGS = [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 0)]


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[Command]:
    with command(tmp_path, {"LOCUM_MAX_DRAIN_SECONDS": "1"}) as found:
        yield found


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Command]:
    with command(tmp_path, {"LOCUM_MAX_DRAIN_SECONDS": str(int(DEADLINE_SECONDS))}) as found:
        yield found


def ready(proxy: Command) -> Any:
    return httpx.get(f"{proxy.url}/health/ready", timeout=DEADLINE_SECONDS).json()["status"]


def of_user(proxy: Command, user: str) -> Any:
    return next((r for r in proxy.records() if r.user == user), None)


@pytest.mark.parametrize(("ending", "code"), ENDINGS)
def test_what_takes_too_long_is_told_and_recorded_as_a_shutdown(
    hasty: Command, ending: signal.Signals, code: int
) -> None:
    hasty.teacher.always(hang_after=2)
    with hasty.connect() as stream, hasty.connect() as messages, hasty.connect() as whole:
        stream.sendall(post(PATH, CHAT | {"stream": True, "user": "stream"}))
        up_to(stream, b"hello")
        asked = CHAT | {"stream": True, "max_tokens": 9, "metadata": {"user_id": "messages"}}
        messages.sendall(post("/v1/messages", asked))
        up_to(messages, b"hello")
        hasty.teacher.always(hang=True)
        whole.sendall(post(PATH, CHAT | {"user": "whole"}))
        until(lambda: len(hasty.teacher.seen) == 3)
        assert hasty.end(ending) == code
        assert b'"code":"shutting_down"' in rest_of(stream)
        assert b"event: error" in rest_of(messages)
        head, _, body = rest_of(whole).partition(b"\r\n\r\n")
        assert b" 503 " in head and b"retry-after: 1" in head and b"connection: close" in head
        assert json.loads(body)["error"]["code"] == "shutting_down"
    records = hasty.records()
    assert [r.status for r in records] == [503] * 3
    assert "Traceback" not in hasty.errors


def test_what_ends_in_time_comes_whole_while_new_requests_are_turned_away(patient: Command) -> None:
    patient.teacher.always(hang_after=2)
    with patient.connect() as stream, patient.connect() as known:
        stream.sendall(post(PATH, CHAT | {"stream": True, "user": "stream"}))
        up_to(stream, b"hello")
        patient.process.terminate()
        until(lambda: ready(patient) == "draining")
        known.sendall(post(PATH, CHAT))
        answer = one_answer(known)
        assert answer.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in answer and b"connection: close" in answer
        assert known.recv(1) == b""
        refused = httpx.post(f"{patient.url}/v1/embeddings", json={"model": "x", "input": "y"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
        assert httpx.get(f"{patient.url}/health/live").status_code == 200
    patient.process.wait(DEADLINE_SECONDS)  # the stream's client left, so nothing is under way
    assert of_user(patient, "stream").status == 499


def test_a_second_signal_waits_for_no_answer_and_loses_no_record(patient: Command) -> None:
    patient.teacher.always(hang_after=2)
    with patient.connect() as stream:
        stream.sendall(post(PATH, CHAT | {"stream": True, "user": "stream"}))
        up_to(stream, b"hello")
        patient.process.terminate()
        until(lambda: ready(patient) == "draining")
        assert patient.end() == -signal.SIGTERM
        assert b"shutting_down" in rest_of(stream)
    assert of_user(patient, "stream").status == 503


def test_a_client_that_reads_nothing_keeps_no_proxy_from_ending(hasty: Command) -> None:
    hasty.teacher.always(deltas=tuple({"content": "x" * 100_000} for _ in range(200)))
    with hasty.connect() as sleeper:
        sleeper.sendall(post(PATH, CHAT | {"stream": True, "user": "sleeper"}))
        up_to(sleeper, b"xxx")
        assert hasty.end() == -signal.SIGTERM
    assert of_user(hasty, "sleeper").status == 503


def test_a_hangup_changes_nothing_and_loses_nothing(hasty: Command) -> None:
    hasty.process.send_signal(signal.SIGHUP)
    until(lambda: "nothing_to_renew" in hasty.errors)
    answer = httpx.post(f"{hasty.url}{PATH}", json=CHAT, timeout=DEADLINE_SECONDS)
    assert answer.status_code == 200
    hasty.end()
    assert [r.status for r in hasty.records()] == [200]


def test_nobody_who_reads_the_log_is_needed(tmp_path: Path) -> None:
    with command(tmp_path, logs_to_nobody=True) as proxy:
        proxy.teacher.always(status=500)
        proxy.student.always(status=500)
        answer = httpx.post(f"{proxy.url}{PATH}", json=CHAT, timeout=DEADLINE_SECONDS)
        assert answer.json()["error"]["type"] == "upstream_error"
        assert proxy.end() == -signal.SIGTERM
        assert [r.status for r in proxy.records()] == [answer.status_code]


def test_workers_drain_too_and_their_port_is_free_at_once(tmp_path: Path) -> None:
    with command(tmp_path, {"LOCUM_MAX_DRAIN_SECONDS": "1"}, ("--workers", "2")) as proxy:
        proxy.teacher.always(hang_after=2)
        with ThreadPoolExecutor() as threads:
            asking = [threads.submit(streamed, proxy) for _ in range(4)]
            until(lambda: len(proxy.teacher.seen) == 4)
            assert proxy.end() == -signal.SIGTERM
            assert all("shutting_down" in asked.result() for asked in asking)
        assert [r.status for r in proxy.records()] == [503] * 4


def test_workers_end_at_a_second_signal_and_lose_no_record(tmp_path: Path) -> None:
    with command(tmp_path, {"LOCUM_MAX_DRAIN_SECONDS": "60"}, ("--workers", "2")) as proxy:
        proxy.teacher.always(hang_after=2)
        with ThreadPoolExecutor() as threads:
            asking = [threads.submit(streamed, proxy) for _ in range(4)]
            until(lambda: len(proxy.teacher.seen) == 4)
            proxy.process.terminate()
            until(lambda: not (proxy.home / "run" / "proxy.json").exists())
            assert proxy.end() == -signal.SIGTERM
            assert all("shutting_down" in asked.result() for asked in asking)
        assert [r.status for r in proxy.records()] == [503] * 4


def streamed(proxy: Command) -> str:
    answer = httpx.post(f"{proxy.url}{PATH}", json=CHAT | {"stream": True}, timeout=DEADLINE_SECONDS)
    return answer.text

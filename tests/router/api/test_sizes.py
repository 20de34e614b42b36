"""What is too large or too much is turned away with the right status, and nothing of it is kept in memory."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from router.errors import SettingsError
from router.settings import Limits
from tests.fakes import DEADLINE_SECONDS, FakeUpstream, policy_of, served, until

CHAT: dict[str, Any] = {"model": "locum/teacher", "messages": [{"role": "user", "content": "hi"}]}
LIMITS = {"LOCUM_MAX_BODY_BYTES": "10000", "LOCUM_MAX_HEADER_BYTES": "4000", "LOCUM_MAX_STREAMS": "1"}


@pytest.fixture(scope="module")
def teacher() -> Iterator[FakeUpstream]:
    found = FakeUpstream("big")
    with served(found) as found.url:
        yield found


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, teacher: FakeUpstream) -> Iterator[str]:
    """The real command, since the server itself has a part in it."""
    home = tmp_path_factory.mktemp("home")
    policy = home / "policy.yaml"
    policy.write_text(yaml.safe_dump(policy_of(teacher, teacher)))
    command = [sys.executable, "-m", "router.cli", "serve", "--policy", str(policy), "--port", "0"]
    env = LIMITS | {"LOCUM_HOME": str(home), "TEACHER_KEY": "sk-x", "PATH": "/usr/bin"}
    process = subprocess.Popen(command, env=env, cwd=Path(__file__).parents[3])
    run_file = home / "run" / "proxy.json"
    try:
        until(lambda: run_file.exists() or process.poll() is not None)
        yield json.loads(run_file.read_text())["url"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(DEADLINE_SECONDS)


def ask(url: str, body: Any = CHAT, **more: Any) -> httpx.Response:
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=DEADLINE_SECONDS, **more)


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_is_too_long_is_a_413(url: str, announced: bool) -> None:
    content = json.dumps(CHAT | {"pad": "x" * 10_000}).encode()
    sent: Any = content if announced else iter([content[:5000], content[5000:]])
    answer = httpx.post(f"{url}/v1/chat/completions", content=sent, timeout=DEADLINE_SECONDS)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def test_headers_that_are_too_long_are_a_431(url: str) -> None:
    answer = ask(url, headers={"x-pad": "x" * 5000})
    assert (answer.status_code, answer.json()["error"]["code"]) == (431, "headers_too_large")


def test_headers_without_end_are_cut_off(url: str) -> None:
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port), timeout=DEADLINE_SECONDS) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nx-pad: ")
        answer = b""
        while not answer:
            connection.sendall(b"x" * 1000)
            connection.settimeout(0.05)
            try:
                answer = connection.recv(4096)
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"headers_too_large" in answer


def test_one_stream_too_many_is_a_429_and_a_place_comes_free_again(url: str, teacher: FakeUpstream) -> None:
    teacher.always(hang_after=2)
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=CHAT | {"stream": True}) as first:
        assert first.status_code == 200
        second = ask(url, CHAT | {"stream": True})
        assert (second.status_code, second.json()["error"]["code"]) == (429, "too_many_streams")
        assert second.headers["retry-after"] == "1"
        teacher.always()
        assert ask(url).status_code == 200  # whole answers are none
    until(lambda: ask(url, CHAT | {"stream": True}).status_code == 200)


def test_what_was_turned_away_is_counted_by_cause(url: str) -> None:
    ask(url, CHAT | {"model": "gpt-9"})
    text = httpx.get(f"{url}/metrics").text
    for cause in ("body_too_large", "headers_too_large", "too_many_streams", "not_found"):
        assert f'locum_rejected_total{{cause="{cause}"}}' in text


def test_limits_come_from_the_environment_and_nonsense_is_told() -> None:
    assert Limits.from_env({"LOCUM_MAX_STREAMS": "7"}) == Limits(streams=7)
    assert Limits.from_env(LIMITS) == Limits(10_000, 4000, 1)
    with pytest.raises(SettingsError, match="LOCUM_MAX_STREAMS must be a positive whole number"):
        Limits.from_env({"LOCUM_MAX_STREAMS": "0"})

"""``locum up`` as people run it: one command, everything up; one signal, everything down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from openai import OpenAI

from tests.fakes import until
from tests.router.engine.conftest import policy_for

START_SECONDS = 120


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("up")


@pytest.fixture(scope="module")
def up(home: Path, base: Path) -> Iterator[subprocess.Popen[bytes]]:
    policy = home / "policy.yaml"
    policy.write_text(yaml.safe_dump(policy_for("embedded").model_dump(mode="json", exclude_defaults=True)))
    command = [sys.executable, "-m", "router.cli", "up", "--policy", str(policy), "--port", "0", "--workers", "2"]
    with (home / "terminal").open("wb") as terminal:
        process = subprocess.Popen(
            command, env={**os.environ, "LOCUM_HOME": str(home)}, stdout=terminal, stderr=subprocess.STDOUT
        )
    until(lambda: process.poll() is not None or "Ctrl-C stops all" in said(home), START_SECONDS)
    assert process.poll() is None, said(home)
    yield process
    if process.poll() is None:
        process.kill()
        process.wait()


def said(home: Path) -> str:
    return (home / "terminal").read_text()


def proxy_of(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home / "run" / "proxy.json").read_text())
    return found


def alive(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health/live", timeout=START_SECONDS) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_one_command_and_the_student_answers_through_the_proxy(up: subprocess.Popen[bytes], home: Path) -> None:
    # Each of the two workers looks for the student a few times a second. Until it sees one it asks the teacher, which
    # here cannot be reached: what the client then retries.
    client = OpenAI(base_url=f"{proxy_of(home)['url']}/v1", api_key="none", max_retries=8)
    answer = client.chat.completions.create(
        model="locum/student",
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        temperature=0,
        max_tokens=16,
    )
    assert "Paris" in (answer.choices[0].message.content or "")


def test_a_killed_proxy_comes_back_at_its_address(up: subprocess.Popen[bytes], home: Path) -> None:
    before = proxy_of(home)
    os.kill(before["pid"], signal.SIGKILL)
    until(lambda: proxy_of(home)["pid"] != before["pid"] and alive(before["url"]), START_SECONDS)
    assert "the proxy died; starting it again" in said(home)
    assert (home / "logs" / "proxy.log").is_file()


def children_of(pid: int) -> set[str]:
    return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def test_a_hangup_renews_the_workers_and_ends_nothing(up: subprocess.Popen[bytes], home: Path) -> None:
    proxy = proxy_of(home)
    before = children_of(proxy["pid"])
    up.send_signal(signal.SIGHUP)
    until(lambda: len(now := children_of(proxy["pid"])) == len(before) and not now & before, START_SECONDS)
    assert up.poll() is None and alive(proxy["url"])


def test_one_signal_ends_all_once_the_answer_under_way_is_whole_and_leaves_no_run_file(
    up: subprocess.Popen[bytes], home: Path
) -> None:
    children = Path(f"/proc/{up.pid}/task/{up.pid}/children").read_text().split()
    assert len(children) == 2
    client = OpenAI(base_url=f"{proxy_of(home)['url']}/v1", api_key="none", max_retries=8)
    with client.chat.completions.create(
        model="locum/student",
        messages=[{"role": "user", "content": "Count from one to thirty, in words."}],
        temperature=0,
        max_tokens=48,
        stream=True,
    ) as answer:
        assert next(answer).choices
        up.send_signal(signal.SIGINT)
        assert [chunk.choices[0].finish_reason for chunk in answer][-1] in ("stop", "length")
    assert up.wait(START_SECONDS) == 0
    assert not [pid for pid in children if runs(int(pid))]
    assert list((home / "run").iterdir()) == []

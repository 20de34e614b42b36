"""The process: where it says it listens, how it ends, and what it refuses to start with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from openai import OpenAI

from router.app import create_app
from router.errors import PolicyError
from router.settings import Settings
from tests.fakes import DEADLINE_SECONDS, FakeUpstream, World, policy_of, served, world

SERVE = """
import sys
from pathlib import Path
from router.process.server import run
from router.settings import Settings
run([Path(sys.argv[1])], host="127.0.0.1", port=0, settings=Settings(home=Path(sys.argv[2])))
"""
TELL_THREADS = """
from threadpoolctl import threadpool_info
print(*(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"))
"""


@contextmanager
def serving(tmp_path: Path, afterwards: str = "") -> Iterator[tuple[subprocess.Popen[str], str, FakeUpstream]]:
    student, teacher = FakeUpstream("tiny"), FakeUpstream("big")
    with served(student) as student.url, served(teacher) as teacher.url:
        file = tmp_path / "policy.yaml"
        file.write_text(yaml.safe_dump(policy_of(student, teacher)))
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE + afterwards, str(file), str(tmp_path / "home")],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "2"},  # as on a machine of two cores
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            line = process.stdout.readline() if process.stdout else ""
            yield process, line, teacher
        finally:
            process.kill()
            process.communicate()


def ask(url: str) -> httpx.Response:
    body = {"model": "locum/teacher", "messages": [{"role": "user", "content": "hi"}]}
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=DEADLINE_SECONDS)


@pytest.mark.parametrize(("ending", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 0)])
def test_it_says_where_it_listens_and_ends_cleanly(tmp_path: Path, ending: signal.Signals, code: int) -> None:
    with serving(tmp_path) as (process, line, _):
        run_file = tmp_path / "home" / "run" / "proxy.json"
        found = json.loads(run_file.read_text())
        assert line == f"locum: ready at {found['url']}/v1\n"
        assert found["pid"] == process.pid
        assert ask(found["url"]).status_code == 200
        process.send_signal(ending)
        _, errors = process.communicate(timeout=DEADLINE_SECONDS)
        assert process.returncode == code
        assert "Traceback" not in errors
        assert not run_file.exists()


def test_a_decision_is_computed_on_one_thread(tmp_path: Path) -> None:
    with serving(tmp_path, TELL_THREADS) as (process, line, _):
        assert line
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=DEADLINE_SECONDS)
        assert set(said.split()) == {"1"}


def test_what_was_recorded_is_on_disk_after_the_end(tmp_path: Path) -> None:
    with serving(tmp_path) as (process, _, _):
        url = json.loads((tmp_path / "home" / "run" / "proxy.json").read_text())["url"]
        asked = [ask(url).headers["x-locum-request-id"] for _ in range(5)]
        process.terminate()
        process.communicate(timeout=DEADLINE_SECONDS)
        found = World(url, FakeUpstream("x"), FakeUpstream("y"), tmp_path / "home", tmp_path)
        assert [r.request_id for r in found.records()] == asked


def policies(tmp_path: Path, *changes: dict[str, Any]) -> list[Path]:
    student, teacher = FakeUpstream("tiny"), FakeUpstream("big")
    files = []
    for n, change in enumerate(changes):
        files.append(tmp_path / f"{n}.yaml")
        files[-1].write_text(yaml.safe_dump(policy_of(student, teacher, **change)))
    return files


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ([], "no policy file"),
        ([{}, {}], "two files describe"),
        ([{}, {"name": "other"}], "both claim the model 'gpt-4o'"),
        ([{}, {"name": "other", "aliases": ["default"]}], "both claim the model 'default'"),
        ([{"teacher": {"model": "never/heard-of"}}], "never/heard-of"),
    ],
)
def test_policies_that_cannot_be_served_are_refused_at_start(
    tmp_path: Path, changes: list[dict[str, Any]], why: str
) -> None:
    with pytest.raises(PolicyError, match=why):
        create_app(policies(tmp_path, *changes), Settings(home=tmp_path))


def test_the_next_teacher_answers_for_a_failing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first teacher is a URL, the next a litellm model whose server the environment names."""
    other = FakeUpstream("other")
    other.always(text="from the other", extra={"service_tier": "on_demand"})  # Groq says it, litellm relies on it
    with served(other) as other.url:
        monkeypatch.setenv("GROQ_API_BASE", f"{other.url}/v1")
        monkeypatch.setenv("GROQ_API_KEY", "sk-other")
        teacher = {"model": "big", "usd_per_million": {"input": 1, "output": 3}, "timeout_seconds": 2}
        teacher |= {"url": "http://127.0.0.1:9/v1", "fallbacks": ["groq/llama-guard-3-8b"]}
        with world(tmp_path, teacher=teacher) as found, OpenAI(base_url=f"{found.url}/v1", api_key="x") as client:
            create = client.chat.completions.with_raw_response.create
            raw = create(model="locum/teacher", messages=[{"role": "user", "content": "hi"}], timeout=30)
            assert raw.parse().choices[0].message.content == "from the other"
            record = found.record(raw.headers["x-locum-request-id"])
    assert (record.tier, record.reason, record.fallback) == ("teacher", "override", "unreachable")
    assert record.answers[0].training_rights == "unknown"

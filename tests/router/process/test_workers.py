"""``locum serve --workers 2`` as people run it: two real processes that behave as one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from router.contracts.files import RunFile, read_run_file
from router.contracts.records import Record
from router.settings import Settings
from router.store.access import open_readonly
from tests.fakes import FakeUpstream, Script, policy_of, served, until

START_SECONDS = 60
TURN = {"role": "user", "content": "hi"}
FOLLOW_UP = [TURN, {"role": "assistant", "content": "hello"}, {"role": "user", "content": "and then?"}]


@dataclass
class Running:
    process: subprocess.Popen[str]
    url: str
    home: Path
    student: FakeUpstream
    teacher: FakeUpstream

    def ask(self, model: str = "gpt-4o", messages: list[Any] | None = None, **headers: str) -> httpx.Response:
        """Over a connection of its own, so that any worker may be the one that answers."""
        body = {"model": model, "messages": messages or [TURN]}
        answer = httpx.post(f"{self.url}/v1/chat/completions", json=body, headers=headers, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer

    def workers(self) -> set[int]:
        return {
            int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        }

    def metrics(self) -> dict[str, float]:
        text = httpx.get(f"{self.url}/metrics", timeout=30).text
        return {
            f"{s.name}{{{','.join(f'{k}={v}' for k, v in sorted(s.labels.items()))}}}": s.value
            for family in text_string_to_metric_families(text)
            for s in family.samples
        }

    def renewed(self, before: set[int]) -> set[int]:
        """Two workers, none of which was there ``before``, once both listen."""

        def told() -> set[int]:
            now = self.workers()
            return now if len(now) == 2 and not now & before and self.listeners() == 2 else set()

        found: set[int] = until(told, START_SECONDS)
        return found

    def listeners(self) -> int:
        """How many sockets listen on the port: a worker's own, once it is ready."""
        port = f"{int(self.url.rsplit(':', 1)[1]):04X}"
        lines = Path("/proc/net/tcp").read_text().splitlines()
        return sum(line.split()[1].endswith(f":{port}") and line.split()[3] == "0A" for line in lines)


def command(policy: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "router.cli", "serve", "--policy", str(policy), "--workers", "2", *more]


@contextmanager
def running(folder: Path, **changes: Any) -> Iterator[Running]:
    student, teacher = FakeUpstream("tiny"), FakeUpstream("big")
    with served(student) as student.url, served(teacher) as teacher.url:
        file, home = folder / "policy.yaml", folder / "home"
        file.write_text(yaml.safe_dump(policy_of(student, teacher, **changes)))
        with (folder / "errors").open("w") as errors:
            process = subprocess.Popen(
                command(file, "--port", "0"),
                env={**os.environ, "LOCUM_HOME": str(home), "TEACHER_KEY": "sk-x"},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        try:
            line = process.stdout.readline() if process.stdout else ""
            assert line.startswith("locum: ready at "), (folder / "errors").read_text()
            yield Running(process, line.split()[-1].removesuffix("/v1"), home, student, teacher)
        finally:
            process.terminate()
            process.communicate(timeout=START_SECONDS)


def student_ready(proxy: Running) -> bool:
    ready = [
        httpx.get(f"{proxy.url}/health/ready", timeout=30).json()["policies"][0]["student"]["ready"] for _ in range(16)
    ]
    return all(ready)


def test_a_killed_worker_takes_nothing_with_it(tmp_path: Path) -> None:
    with running(tmp_path) as proxy:
        before = proxy.workers()
        assert len(before) == 2 and proxy.listeners() == 2
        assert read_run_file(proxy.home / "run") == RunFile(proxy.process.pid, proxy.url)
        until(lambda: student_ready(proxy), START_SECONDS)
        for _ in range(40):
            proxy.ask()
        counted = "locum_requests_total{policy=default,reason=score,status_class=2xx,tier=student}"
        timed = "locum_request_seconds_count{policy=default,tier=student}"
        until(lambda: (got := proxy.metrics()).get(counted) == got.get(timed) == 40)  # both have handed over all
        for _ in range(8):
            got = proxy.metrics()
            assert got[counted] == got[timed] == 40
            assert got["locum_student_up{policy=default}"] == got["locum_bundle_info{bundle=base,policy=default}"] == 1

        killed, files = min(before), proxy.home / "run" / "metrics"
        assert len(list(files.glob("gauge_livesum_*.db"))) == 2
        os.kill(killed, signal.SIGKILL)
        until(lambda: killed not in proxy.workers())
        until(lambda: len(list(files.glob("gauge_livesum_*.db"))) == 1)
        for _ in range(10):
            proxy.ask()
        until(lambda: proxy.listeners() == 2, START_SECONDS)
        assert len(proxy.workers()) == 2 and killed not in proxy.workers()
        assert len(list(files.glob("counter_*.db"))) == 2
        until(lambda: proxy.metrics()[counted] == 50 and proxy.metrics()[counted] == 50)
        assert "worker_died" in (tmp_path / "errors").read_text()


def test_they_remember_conversations_together(tmp_path: Path) -> None:
    with running(tmp_path) as proxy:
        until(lambda: student_ready(proxy), START_SECONDS)
        proxy.student.always(text="")
        assert proxy.ask(**{"x-locum-conversation": "one"}).headers["x-locum-reason"] == "deferral"
        proxy.student.always()
        turns = [proxy.ask(messages=FOLLOW_UP, **{"x-locum-conversation": "one"}) for _ in range(16)]
        assert {turn.headers["x-locum-reason"] for turn in turns} == {"affinity"}
        assert proxy.ask(messages=FOLLOW_UP, **{"x-locum-conversation": "two"}).headers["x-locum-tier"] == "student"


def test_they_tell_conversations_apart_together(tmp_path: Path) -> None:
    """People who open alike, over two workers: whole, streamed, left in the middle, named or not."""
    with running(tmp_path) as proxy:
        until(lambda: student_ready(proxy), START_SECONDS)
        proxy.student.answer = easy
        people = [Person(proxy, n) for n in range(12)]
        for person in people:
            person.says("hi")
        for person in people:
            person.says(f"HARD number {person.number}" if person.number % 3 == 0 else f"question {person.number}")
        for person in people:
            person.says("and then?")
        records = until(lambda: found if len(found := read_records(proxy.home)) == 36 else None)
        for person in people:
            mine = [r for r in records if r.request_id in person.asked]
            later = [r for r in mine if r.request and len(r.request["messages"]) > 1]
            assert len({r.conversation_id for r in later}) == 1, person.number
            assert later[1].reason == ("affinity" if person.number % 3 == 0 else "score"), person.number
        assert len({r.conversation_id for r in records}) == 12


def read_records(home: Path) -> list[Record]:
    reader = open_readonly(Settings(home=home))
    try:
        return [record for _, record in reader.records()]
    finally:
        reader.close()


def easy(body: dict[str, Any]) -> Script:
    """A student that greets shortly, answers at length, and fails at what is hard."""
    said, long = str(body["messages"][-1]["content"]), " ".join(f"w{n}" for n in range(200))
    return Script(text="" if "HARD" in said else "hello to you" if said == "hi" else f"{said} {long}")


class Person:
    """A client of one kind of four, which keeps its own history. ``asked``: the ids of its requests."""

    def __init__(self, proxy: Running, number: int) -> None:
        self.number, self.asked = number, list[str]()
        self._proxy, self._history = proxy, list[dict[str, Any]]()
        self._headers = {"session_id": f"codex-{number}"} if number % 4 == 3 else {}

    def says(self, text: str) -> None:
        """Says it, and waits for the answer or for as much of it as this client waits for."""
        self._history.append({"role": "user", "content": text})
        body = {"model": "gpt-4o", "messages": self._history, "stream": self.number % 4 in (1, 2)}
        url, said = f"{self._proxy.url}/v1/chat/completions", ""
        with httpx.stream("POST", url, json=body, headers=self._headers, timeout=30) as answer:
            self.asked.append(answer.headers["x-locum-request-id"])
            if not body["stream"]:
                said = orjson.loads(answer.read())["choices"][0]["message"]["content"]
            for line in answer.iter_lines() if body["stream"] else ():
                chunk = orjson.loads(line[6:]) if line.startswith("data: {") else {"choices": []}
                said += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
                if said and self.number % 4 == 2 and len(self._history) > 1:
                    break  # it leaves in the middle, and goes on from what it has
        self._history.append({"role": "assistant", "content": said})


def test_they_spend_one_budget_and_neither_their_deaths_nor_a_new_start_refill_it(tmp_path: Path) -> None:
    short = {"objective": {"usd_per_day": 0.0001}}  # less than one answer of the teacher costs
    with running(tmp_path, **short) as proxy:
        until(lambda: student_ready(proxy), START_SECONDS)
        assert proxy.ask("locum/teacher").headers["x-locum-tier"] == "teacher"
        until(lambda: proxy.ask().headers["x-locum-reason"] == "budget")
        assert {proxy.ask().headers["x-locum-reason"] for _ in range(16)} == {"budget"}
        before = proxy.workers()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        proxy.renewed(before)
        until(lambda: student_ready(proxy), START_SECONDS)
        assert {proxy.ask().headers["x-locum-reason"] for _ in range(16)} == {"budget"}
    with running(tmp_path, **short) as proxy:
        until(lambda: student_ready(proxy), START_SECONDS)
        until(lambda: proxy.ask().headers["x-locum-reason"] == "budget")
        assert {proxy.ask().headers["x-locum-reason"] for _ in range(16)} == {"budget"}


@pytest.mark.parametrize(("ending", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 0)])
def test_they_are_renewed_on_sighup_and_end_together(tmp_path: Path, ending: signal.Signals, code: int) -> None:
    with running(tmp_path) as proxy:
        before = proxy.workers()
        if ending == signal.SIGTERM:
            proxy.process.send_signal(signal.SIGHUP)
            proxy.renewed(before)
        proxy.ask("locum/teacher")
        proxy.process.send_signal(ending)
        assert proxy.process.wait(START_SECONDS) == code
        assert proxy.listeners() == 0
        assert list((proxy.home / "run").iterdir()) == []
        assert "Traceback" not in (tmp_path / "errors").read_text()


def test_workers_whose_supervisor_was_killed_end_too(tmp_path: Path) -> None:
    with running(tmp_path) as proxy:
        proxy.process.kill()
        until(lambda: proxy.listeners() == 0, START_SECONDS)


def test_what_cannot_be_served_is_one_clear_line(tmp_path: Path) -> None:
    def refused(policy: Path, *more: str) -> str:
        env = {**os.environ, "LOCUM_HOME": str(tmp_path / "other")}
        ran = subprocess.run(
            command(policy, *more), capture_output=True, text=True, env=env, timeout=START_SECONDS, check=False
        )
        assert ran.returncode == 1 and "Traceback" not in ran.stderr
        return ran.stderr

    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("name: default\n")
    said = refused(wrong, "--port", "0")
    assert said.startswith("locum: ") and "wrong.yaml" in said
    with running(tmp_path) as proxy:
        port = proxy.url.rsplit(":", 1)[1]
        assert f"cannot listen on 127.0.0.1:{port}" in refused(tmp_path / "policy.yaml", "--port", port)
        proxy.ask("locum/teacher")

"""A cap is a cap: 64 at once against a day's money that is nearly spent, on every way to the teacher there is."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import orjson
import pytest

from tests.fakes import DEADLINE_SECONDS, FakeUpstream, World, served, until, world
from tests.router.process.test_workers import Running, running, student_ready

ANSWER_USD = Decimal("0.00013")
CAP_USD = 10 * ANSWER_USD
HARD = "Prove step by step why $\\int_0^1 x^2 dx = 1/3$ and how to compute it in Rust: ```fn main() {}```"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
TEACHER = {"x-locum-tier": "teacher"}
BUDGET = {"objective": {"usd_per_day": float(CAP_USD)}}


@dataclass
class Got:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def outcome(self) -> tuple[int, str | None, str | None]:
        return self.status, self.headers.get("x-locum-tier"), self.headers.get("x-locum-reason")


@dataclass
class Way:
    """One way on which a request gets to the teacher: what is asked, and how the policy and the student are."""

    fields: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    policy: dict[str, Any] = field(default_factory=dict)
    student: dict[str, Any] = field(default_factory=dict)
    then: tuple[int, str | None, str | None] = (200, "student", "budget")


REFUSED = (429, None, "budget")
WAYS = {
    "score": Way(),
    "streamed": Way({"stream": True}),
    "forced by header": Way(headers=TEACHER),
    "forced by name": Way({"model": "locum/teacher"}),
    "forced and streamed": Way({"stream": True}, TEACHER),
    "tools": Way({"tools": [TOOL]}, then=REFUSED),
    "images": Way({"messages": [{"role": "user", "content": [IMAGE]}]}, then=REFUSED),
    "several in a stream": Way({"stream": True, "n": 2}, then=REFUSED),
    "rule": Way(
        {"metadata": {"task": "legal"}}, policy={"rules": [{"when": {"metadata.task": "legal"}, "send": "teacher"}]}
    ),
    "deferral": Way(student={"text": " "}),
    "deferral, streamed": Way({"stream": True}, student={"text": " "}),
    "deferral of a rule's": Way(policy={"rules": [{"when": {}, "send": "student"}]}, student={"text": " "}),
    "student down": Way(student={"status": 500}, then=REFUSED),
    "student refuses": Way(student={"status": 400}, then=REFUSED),
    "cold start": Way(policy={"audit": {"rate": 0, "warmup_rate": 0, "explore": 1}}),
}


async def _post(http: aiohttp.ClientSession, url: str, body: dict[str, Any], headers: dict[str, str]) -> Got:
    async with http.post(f"{url}/v1/chat/completions", json=body, headers=headers) as answer:
        return Got(answer.status, {k.lower(): v for k, v in answer.headers.items()}, await answer.read())


async def _burst(url: str, teacher: FakeUpstream, asked: list[tuple[dict[str, Any], dict[str, str]]]) -> list[Got]:
    """All at once; the teacher says nothing until all have an answer that it need not answer."""
    gate, limit = threading.Event(), aiohttp.TCPConnector(limit=0, force_close=True)
    before = len(teacher.seen)
    teacher.always(after=gate)
    async with aiohttp.ClientSession(connector=limit, timeout=aiohttp.ClientTimeout(DEADLINE_SECONDS)) as http:
        under_way = [asyncio.create_task(_post(http, url, body, headers)) for body, headers in asked]
        async with asyncio.timeout(DEADLINE_SECONDS):
            while sum(task.done() for task in under_way) + len(teacher.seen) - before < len(asked):
                await asyncio.wait(under_way, timeout=0.01)
        gate.set()
        try:
            return await asyncio.gather(*under_way)
        finally:
            teacher.always()


def burst(url: str, teacher: FakeUpstream, asked: list[tuple[dict[str, Any], dict[str, str]]]) -> list[Got]:
    return asyncio.run(_burst(url, teacher, asked))


def ask(number: int = 0, /, **fields: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": f"{HARD} {number}"}], **fields}


def spend(url: str, times: int = 9) -> None:
    """One after the other, each alone, so that none is refused."""
    for n in range(times):
        answer = httpx.post(f"{url}/v1/chat/completions", json=ask(n), headers=TEACHER, timeout=DEADLINE_SECONDS)
        assert (answer.status_code, answer.headers["x-locum-tier"]) == (200, "teacher")


@pytest.mark.parametrize("name", WAYS)
def test_64_at_once_pass_a_cap_by_one_answer_at_most(tmp_path: Path, name: str) -> None:
    way = WAYS[name]
    with world(tmp_path, **(BUDGET | way.policy)) as proxy:
        spend(proxy.url)
        proxy.student.always(**way.student)
        before = len(proxy.teacher.seen)
        got = burst(proxy.url, proxy.teacher, [(ask(n, **way.fields), way.headers) for n in range(64)])
        assert len(proxy.teacher.seen) - before <= 1
        assert Counter(g.outcome for g in got)[way.then] >= 63
        got = burst(proxy.url, proxy.teacher, [(ask(n, **way.fields), way.headers) for n in range(16)])
        assert len(proxy.teacher.seen) - before <= 1, "and it stays so"
        assert {g.outcome for g in got} == {way.then}
        for refused in (g for g in got if g.status == 429):
            error = orjson.loads(refused.body)["error"]
            assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
            assert "midnight UTC" in error["message"] and 0 < int(refused.headers["retry-after"]) <= 86_400
        spent = sum(spent_usd(proxy), Decimal(0))
        assert CAP_USD - ANSWER_USD <= spent <= CAP_USD


def spent_usd(proxy: World) -> list[Decimal]:
    """What each recorded request cost at the teacher."""
    return [a.cost_usd for record in proxy.records() for a in record.answers if a.tier == "teacher"]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_policy_may_refuse_what_it_has_no_money_for_and_serve_the_rest(tmp_path: Path, streamed: bool) -> None:
    refusing = {"objective": {"usd_per_day": float(ANSWER_USD), "when_spent": "refuse"}}
    with world(tmp_path, rules=[{"when": {"metadata.task": "easy"}, "send": "student"}], **refusing) as proxy:
        spend(proxy.url, 1)
        hard = burst(proxy.url, proxy.teacher, [(ask(n, stream=streamed), {}) for n in range(16)])
        easy = [(ask(n, stream=streamed, metadata={"task": "easy"}), {}) for n in range(16)]
        assert {g.outcome for g in hard} == {REFUSED}
        assert {g.outcome for g in burst(proxy.url, proxy.teacher, easy)} == {(200, "student", "rule")}
        proxy.student.always(text="")
        assert {g.outcome for g in burst(proxy.url, proxy.teacher, easy[:4])} == {REFUSED}, "and no empty answer"
        assert len(proxy.teacher.seen) == 1


def test_money_left_is_spent_by_as_many_at_once_as_it_is_enough_for(tmp_path: Path) -> None:
    with world(tmp_path, **BUDGET) as proxy:
        asked = [(ask(n, max_tokens=10), TEACHER) for n in range(64)]
        got = burst(proxy.url, proxy.teacher, asked)
        tiers = Counter(g.outcome[1] for g in got)
        assert 2 <= tiers["teacher"] <= 10 and tiers["student"] == 64 - tiers["teacher"]
        until(lambda: len(proxy.records()) == 64)
        assert sum(spent_usd(proxy)) == tiers["teacher"] * ANSWER_USD <= CAP_USD


def test_two_workers_pass_a_cap_by_one_answer_at_most_together_and_a_killed_one_holds_no_money(tmp_path: Path) -> None:
    with running(tmp_path, **BUDGET) as proxy:
        until(lambda: student_ready(proxy), 60)
        killed_while_holding(proxy)
        spend(proxy.url)
        ways = [way for way in WAYS.values() if not way.policy and not way.student]
        before = len(proxy.teacher.seen)
        got = burst(proxy.url, proxy.teacher, [(ask(n, **w.fields), w.headers) for n, w in enumerate(ways * 8)])
        assert len(proxy.teacher.seen) - before <= 1
        assert {g.outcome for g in got if g.outcome[1] != "teacher"} == {(200, "student", "budget"), REFUSED}


def killed_while_holding(proxy: Running) -> None:
    """The workers die while a request of theirs holds all the money that there is."""
    proxy.teacher.always(hang=True)
    workers, broken = proxy.workers(), threading.Event()

    def hangs() -> None:
        with pytest.raises(httpx.TransportError):
            httpx.post(f"{proxy.url}/v1/chat/completions", json=ask(), headers=TEACHER, timeout=DEADLINE_SECONDS)
        broken.set()

    thread = threading.Thread(target=hangs)
    thread.start()
    until(lambda: proxy.teacher.seen)
    assert {proxy.ask(**TEACHER).headers["x-locum-reason"] for _ in range(8)} == {"budget"}
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    thread.join()
    proxy.renewed(workers)
    until(lambda: student_ready(proxy), 60)
    proxy.teacher.always()


def booked_usd(proxy: World) -> float:
    """What the budget says is spent today."""
    lines = httpx.get(f"{proxy.url}/metrics", timeout=DEADLINE_SECONDS).text.splitlines()
    name = 'locum_budget_usd{part="%s",policy="default"}'
    told = {part: float(n.split()[-1]) for part in ("spent", "held") for n in lines if n.startswith(name % part)}
    return told["spent"] if told.get("held") == 0 else -1.0


def leave(proxy: World, *, streamed: bool) -> None:
    """A client that asks the teacher, and goes away once that has the request, and begun a stream."""

    async def ask_and_leave() -> None:
        async with aiohttp.ClientSession() as http:
            asked = http.post(f"{proxy.url}/v1/chat/completions", json=ask(stream=streamed), headers=TEACHER)
            if streamed:
                async with asked as answer:
                    await answer.content.readany()
            else:
                task = asyncio.ensure_future(asked)
                while not proxy.teacher.seen:
                    await asyncio.wait({task}, timeout=0.01)
                task.cancel()

    asyncio.run(ask_and_leave())


@dataclass
class TurnEnd:
    """How a teacher ends a request: whether that is paid, for whole answers, for streams, and where the client left."""

    script: dict[str, Any]
    whole: bool | None = None
    streamed: bool | None = None
    left: bool = False


ENDINGS = {
    "usual": TurnEnd({}, True, True),
    "without usage": TurnEnd({"usage": None}, True, True),
    "refused": TurnEnd({"status": 400}, False, False),
    "rate-limited": TurnEnd({"status": 429}, False, False),
    "failed": TurnEnd({"status": 500}, False, False),
    "unreadable": TurnEnd({"raw": b"<html>no answer</html>"}, True),
    "timed out": TurnEnd({"hang": True}, True, True),
    "cut off": TurnEnd({"die_after": 3}, streamed=True),
    "broken off, and made again": TurnEnd({"die_after": 0}, streamed=True),
    "left": TurnEnd({"hang": True}, True, left=True),
    "left in the middle": TurnEnd({"hang_after": 2}, streamed=True, left=True),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_what_a_provider_bills_is_booked_and_recorded_whatever_became_of_the_answer(tmp_path: Path, name: str) -> None:
    ending = ENDINGS[name]
    seconds = DEADLINE_SECONDS if ending.left else 1.0
    with world(tmp_path, timeout_seconds=seconds, objective={"usd_per_day": 1000}) as proxy:
        proxy.teacher.always(**ending.script)
        for paid in [ending.whole] if ending.whole is not None else []:
            assert (cost_of_one(proxy, ending, streamed=False) > 0) is paid
        for paid in [ending.streamed] if ending.streamed is not None else []:
            assert (cost_of_one(proxy, ending, streamed=True) > 0) is paid
        until(lambda: booked_usd(proxy) == pytest.approx(float(sum(spent_usd(proxy))), abs=1e-8))
        if ending.whole or ending.streamed:
            assert len(spent_usd(proxy)) == len(proxy.teacher.seen), "each attempt that may be paid is recorded"


def cost_of_one(proxy: World, ending: TurnEnd, *, streamed: bool) -> Decimal:
    """What a request cost at the teacher, by its record."""
    before = len(proxy.records())
    if ending.left:
        leave(proxy, streamed=streamed)
    else:
        httpx.post(f"{proxy.url}/v1/chat/completions", json=ask(stream=streamed), headers=TEACHER, timeout=30)
    until(lambda: len(proxy.records()) > before)
    (record,) = proxy.records()[before:]
    assert (record.status == 499) is ending.left
    return sum((a.cost_usd for a in record.answers if a.tier == "teacher"), Decimal(0))


def test_embeddings_draw_on_the_budget_and_are_refused_where_it_is_spent(tmp_path: Path) -> None:
    vectors = FakeUpstream("vectors")
    vectors.always(raw=orjson.dumps({"data": [], "usage": {"prompt_tokens": 2000, "total_tokens": 2000}}))
    with served(vectors) as vectors.url:
        part = {"model": "vectors", "url": f"{vectors.url}/v1", "usd_per_million": 1}
        with world(tmp_path, embeddings=part, objective={"usd_per_day": 0.003}) as proxy:

            def embed() -> httpx.Response:
                body = {"model": "vectors", "input": "x" * 2000}
                return httpx.post(f"{proxy.url}/v1/embeddings", json=body, timeout=DEADLINE_SECONDS)

            assert [embed().status_code for _ in range(3)] == [200, 200, 429]
            assert embed().json()["error"]["code"] == "insufficient_quota"
            assert 0 < int(embed().headers["retry-after"]) <= 86_400
            assert len(vectors.seen) == 2
            chat = httpx.post(f"{proxy.url}/v1/chat/completions", json=ask(), headers=TEACHER, timeout=30)
            assert chat.headers["x-locum-reason"] == "budget", "one budget for both"


def test_a_claude_client_is_refused_in_its_own_words(tmp_path: Path) -> None:
    with world(tmp_path, objective={"usd_per_day": 0, "when_spent": "refuse"}) as proxy:
        body = {"model": "gpt-4o", "max_tokens": 5, "messages": [{"role": "user", "content": HARD}]}
        answer = httpx.post(f"{proxy.url}/v1/messages", json=body, headers=TEACHER, timeout=DEADLINE_SECONDS)
        assert (answer.status_code, answer.json()["error"]["type"]) == (429, "rate_limit_error")
        assert "midnight UTC" in answer.json()["error"]["message"] and "retry-after" in answer.headers

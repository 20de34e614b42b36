"""What a client forces, and what a failure moves, counts in money and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from distiller.data.rows import Skip, row_of
from distiller.economics.flow import Rates, flow_of
from distiller.replay.log import read_log
from distiller.rounds.trigger import Tally
from router.contracts.decision import Fallback, Reason, Tier
from router.contracts.records import Audit, Record
from router.judges.judge import Judges
from router.policy.policy import LogPart, load_policy
from router.reports.human_verdicts import sample
from router.reports.summary import Summary
from router.settings import Settings
from router.store.access import open_readonly
from router.store.sqlite import SqliteStore
from tests.fakes import World, until, world
from tests.router.conftest import _make_record

HEADERS = ({"x-locum-tier": "student"}, {"x-locum-tier": "teacher"})


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[World]:
    audit = {"rate": 1.0, "warmup_rate": 1.0, "explore": 0, "usd_per_day": 100}
    with world(tmp_path, audit=audit) as found:
        until(lambda: httpx.get(f"{found.url}/health/ready").json()["policies"][0]["student"]["ready"])
        yield found


def ask(proxy: World, model: str = "gpt-4o", **more: Any) -> httpx.Response:
    headers = more.pop("headers", {})
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}
    return httpx.post(f"{proxy.url}/v1/chat/completions", json=body, headers=headers, timeout=60)


def audits_counted(proxy: World) -> float:
    lines = httpx.get(f"{proxy.url}/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("locum_audits_total"))


@pytest.mark.parametrize("stream", [False, True])
def test_forced_requests_are_paid_for_and_tell_of_nothing(proxy: World, stream: bool) -> None:
    proxy.student.always(text="wrong")
    proxy.teacher.always(text="right")
    forced = [ask(proxy, f"locum/{tier}", stream=stream) for tier in ("student", "teacher")]
    forced += [ask(proxy, stream=stream, headers=headers) for headers in HEADERS]
    real = ask(proxy, stream=stream)
    assert {answer.status_code for answer in (*forced, real)} == {200}
    until(lambda: proxy.record(real.headers["x-locum-request-id"]).audit)
    records = [proxy.record(answer.headers["x-locum-request-id"]) for answer in forced]
    assert not any(r.is_traffic or r.decision.audited or r.audit or r.decision.propensity for r in records)
    assert sum(r.cost_usd for r in records) > 0
    assert audits_counted(proxy) == 1  # a word on any other would stand in the parity that alerts go by
    with_all, policy = proxy.records(), load_policy(proxy.policy_file)
    summary = Summary()
    for record in with_all:
        summary.add(record, may_train=True)
    assert (summary.requests, summary.traffic.total()) == (5, 1)
    assert summary.audits == 1
    assert {row_of(r, policy, Judges(policy.judge)) for r in records} == {Skip.FORCED}
    assert (
        len(read_log(with_all, [policy])[0]) == flow_of(with_all, Rates(policy.student.usd_per_million)).requests == 1
    )
    assert [r.request_id for r in sample(with_all, 9, 0)] == [real.headers["x-locum-request-id"]]


def test_what_a_failure_moved_is_not_audited_either(proxy: World) -> None:
    proxy.student.always(status=500)
    moved = ask(proxy)
    assert (moved.headers["x-locum-tier"], moved.headers["x-locum-reason"]) == ("teacher", "fallback")
    record = proxy.record(moved.headers["x-locum-request-id"])
    policy = load_policy(proxy.policy_file)
    assert record.audit is None and not record.is_traffic
    assert row_of(record, policy, Judges(policy.judge)) is Skip.MOVED


def test_forced_requests_leave_a_declared_share_as_it_is(tmp_path: Path) -> None:
    with world(tmp_path, objective={"student_share": 0.5}) as found:
        until(lambda: httpx.get(f"{found.url}/health/ready").json()["policies"][0]["student"]["ready"])
        before = ask(found).headers["x-locum-threshold"]
        for _ in range(80):
            ask(found, "locum/teacher", messages=[{"role": "user", "content": "prove that " * 400}])
        after = ask(found).headers["x-locum-threshold"]
    assert abs(float(before) - float(after)) < 0.02


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({}, True),
        ({"reason": Reason.DEFERRAL}, True),
        ({"fallback": Fallback.BUDGET, "reason": Reason.BUDGET}, True),  # the policy's own word, no failure
        ({"reason": Reason.FALLBACK, "fallback": Fallback.TIMEOUT}, False),
        ({"fallback": Fallback.UNUSABLE}, False),  # another teacher answered
        ({"decided": Reason.OVERRIDE, "reason": Reason.OVERRIDE}, False),
        ({"decided": Reason.OVERRIDE, "reason": Reason.CAPABILITY}, False),  # forced, and found unable
        ({"decided": Reason.FALLBACK, "reason": Reason.FALLBACK}, False),
    ],
)
def test_one_predicate_says_what_counts_for_every_reader(tmp_path: Path, changes: dict[str, Any], counts: bool) -> None:
    changes = dict(changes)
    plain = _make_record(tier=Tier.TEACHER, audit=Audit(acceptable=True, judge="exact"))
    decision = replace(plain.decision, audited=True, reason=changes.pop("decided", Reason.SCORE))
    record = replace(plain, decision=decision, **changes)
    assert record.is_traffic is counts
    file = tmp_path / "policy.yaml"
    file.write_text(
        "name: default\n"
        "student: {model: s, url: 'http://s', usd_per_million: {input: 0, output: 0}}\n"
        "teacher: {model: small, url: 'http://t', usd_per_million: {input: 1, output: 1}, training_rights: allowed}\n"
        "objective: {parity: {}}\n"
        "log: {redact: []}\n"
    )
    policy = load_policy(file)
    assert Tally().add(1, record, policy).audited == counts
    assert bool(read_log([record], [policy])[0]) is counts
    assert flow_of([record], Rates(policy.student.usd_per_million)).requests == counts
    assert isinstance(row_of(record, policy, Judges(policy.judge)), Skip) is not counts
    assert bool(scored(tmp_path, record)) is counts


def scored(home: Path, record: Record) -> list[Any]:
    """What drift sees of it."""
    settings = Settings(home=home / "home")
    store = SqliteStore(settings.records_db, {"default": LogPart()}, clock=lambda: record.created_at)
    store.append(record)
    store.close()
    reader = open_readonly(settings)
    return list(reader.scored("default"))

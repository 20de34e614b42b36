"""With a promised parity no uncertified student answers a client, teacher down or not, unless the policy says so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.contracts.bundles import NEVER, Evidence, Thresholds, activate
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.text.features import extract
from router.settings import Settings
from tests.fakes import World, until, world
from tests.manifests import complete

HELLO = extract({"messages": [{"role": "user", "content": "hello"}]})
PARITY = {"parity": {"at_least": 0.9, "confidence": 0.95}}


def evidence(target: float) -> Evidence:
    return Evidence(
        target=target, confidence=0.95, examples=100, served=50, unacceptable=1, risk_bound=0.05, method="exact"
    )


@contextmanager
def proxy(folder: Path, thresholds: Thresholds | None = None, **changes: Any) -> Iterator[World]:
    """Its teacher is down."""
    if thresholds is not None:
        bundles = Settings(home=folder / "home").bundles("default")
        Scorer.fit([Example(HELLO, None, True)] * 8, None).save(bundles / "b1" / "scorer")
        complete(bundles, "b1", created_at=time.time(), thresholds=thresholds)
        activate(bundles, "b1")
    with world(folder, **{"objective": PARITY, **changes}) as found:
        until(lambda: httpx.get(f"{found.url}/health/ready").json()["policies"][0]["student"]["ready"])
        found.teacher.always(status=503)
        yield found


def ask(found: World, **more: Any) -> httpx.Response:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], **more}
    return httpx.post(f"{found.url}/v1/chat/completions", json=body, timeout=60)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("changes", "thresholds", "answers"),
    [
        ({}, None, False),  # the base student, of which nobody knows anything
        ({"fallback": "any"}, None, True),
        ({"fallback": "none", "objective": {"threshold": 1.01}}, None, False),
        ({"objective": {"threshold": 1.01}}, None, True),  # where no quality is promised there is nothing to certify
        ({}, Thresholds(route=NEVER, accept=NEVER, evidence=evidence(0.9)), False),  # what certifies no share
        ({}, Thresholds(route=1.0, accept=0.0, evidence=evidence(0.9)), True),
        ({"fallback": "none"}, Thresholds(route=1.0, accept=0.0, evidence=evidence(0.9)), False),
        ({}, Thresholds(route=1.0, accept=0.0, evidence=evidence(0.8)), False),  # the floor was raised since
    ],
)
def test_who_stands_in_where_the_teacher_is_down(
    tmp_path: Path, changes: dict[str, Any], thresholds: Thresholds | None, answers: bool, stream: bool
) -> None:
    with proxy(tmp_path, thresholds, **changes) as found:
        answer = ask(found, stream=stream)
        assert (answer.status_code == 200) is answers, answer.text
        if answers:
            assert answer.headers["x-locum-reason"] == "fallback"
        else:
            assert answer.status_code == 503 and not found.student.seen
        forced = ask(found, model="locum/student", stream=stream)
        assert forced.status_code == 200, "who asks for it by name gets it"


def test_a_share_that_was_declared_certifies_nothing_once_parity_is_promised(tmp_path: Path) -> None:
    declared = Thresholds(route=0.0, accept=0.0, evidence=evidence(0.0))
    with proxy(tmp_path, declared) as found:
        found.teacher.always(text="from the teacher")
        assert ask(found).headers["x-locum-tier"] == "teacher"
        assert not found.student.seen


def test_metrics_tell_that_the_teacher_is_down_and_every_count_is_there_before_it_happens(tmp_path: Path) -> None:
    def told(name: str) -> float:
        lines = httpx.get(f"{found.url}/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    with proxy(tmp_path) as found:
        found.teacher.always(text="up")
        until(lambda: told('locum_teacher_up{policy="default"}') == 1)
        before = httpx.get(f"{found.url}/metrics").text
        for cause in ("timeout", "unreachable", "server_error", "circuit_open"):
            assert f'locum_teacher_failures_total{{cause="{cause}",policy="default"}} 0.0' in before
            assert f'locum_fallbacks_total{{cause="{cause}",policy="default"}} 0.0' in before
        assert 'locum_deferrals_total{cause="schema",policy="default"} 0.0' in before
        assert 'reason="fallback",status_class="5xx",tier="none"} 0.0' in before
        assert 'result="missed_budget",served_tier="teacher"} 0.0' in before
        found.teacher.always(status=503)
        for _ in range(40):
            ask(found)
        assert told("locum_teacher_failures_total") >= 40
        until(lambda: told('locum_teacher_up{policy="default"}') == 0)

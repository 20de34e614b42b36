"""A canary in the running proxy: who is served by it, what is recorded and audited, and when it is thrown out."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.contracts.bundles import StudentRef, Thresholds, activate, begin_canary, end_canary, read_active
from router.contracts.guard_report import CANARY_GUARDED, read_guarded
from router.reports.status import show
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.text.features import extract
from router.settings import Settings
from tests.fakes import World, until, world
from tests.manifests import complete

HELLO = extract({"messages": [{"role": "user", "content": "hello"}]})
CANARY = {"share": 0.4, "audit_rate": 1.0}


@pytest.fixture
def trying(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """The proxy with ``old`` live and ``new`` beside it, both students behind one URL."""

    with contextlib.ExitStack() as stack:

        def start(**changes: Any) -> World:
            parity = {"parity": {"at_least": 0.9, "confidence": 0.9, "over_requests": None}}
            changes = {"objective": parity, "distil": {"canary": CANARY}, "judge": "exact"} | changes
            one = stack.enter_context(world(tmp_path, **changes))
            one.student.models = ["tiny", "old", "new"]
            folder = Settings(home=one.home).bundles("default")
            for name in ("old", "new"):
                publish(folder, name)
            activate(folder, "old")
            begin_canary(folder, "new")
            until(lambda: state(one)["bundle"] == "old" and state(one)["canary"] == "new")
            return one

        yield start


def publish(folder: Path, bundle: str) -> None:
    Scorer.fit([Example(HELLO, None, True)] * 8, None).save(folder / bundle / "scorer")  # every score 0.9
    (folder / bundle / "student").mkdir()
    student = StudentRef(model=bundle, path="student")
    complete(folder, bundle, student=student, thresholds=Thresholds(route=0.5, accept=0.0))


def state(one: World) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{one.url}/health/ready").json()["policies"][0]
    return found


def ask(one: World, conversation: int, **more: Any) -> httpx.Response:
    """One request of a conversation, by its name."""
    body = {"model": "locum/default", "messages": [{"role": "user", "content": f"hello {conversation}"}], **more}
    named = {"x-locum-conversation": f"c{conversation}"}
    return httpx.post(f"{one.url}/v1/chat/completions", json=body, headers=named, timeout=60)


def folder_of(one: World) -> Path:
    return Settings(home=one.home).bundles("default")


def test_a_share_of_the_conversations_is_the_canarys_and_each_stays_with_its_own(
    trying: Callable[..., World],
) -> None:
    one = trying(audit={"rate": 0.25, "warmup_rate": 0, "explore": 0, "usd_per_day": 5})
    first = [ask(one, n).headers["x-locum-bundle"] for n in range(60)]
    assert [ask(one, n).headers["x-locum-bundle"] for n in range(60)] == first
    served = first.count("new")
    assert 10 <= served <= 40  # of 60 at 0.4, by chance outside once in 10,000 runs; the ids are fixed besides
    records = until(lambda: r if len(r := one.records()) == 120 else None)
    for record in records:
        assert record.answers[0].student_version == record.bundle, "its own student answered"
        assert record.decision.propensity == (1.0 if record.bundle == "new" else 0.25)
        assert record.decision.audited or record.bundle == "old"
    asked = {seen.body["model"] for seen in one.student.seen}
    assert asked == {"old", "new"}


def test_when_it_ends_all_are_served_by_one_again(trying: Callable[..., World]) -> None:
    one = trying()
    end_canary(folder_of(one), "new", kept=True, reasons=("no worse",))
    until(lambda: state(one)["bundle"] == "new" and state(one)["canary"] is None)
    assert {ask(one, n).headers["x-locum-bundle"] for n in range(12)} == {"new"}
    metrics = httpx.get(f"{one.url}/metrics").text
    assert 'locum_canary_share{policy="default"} 0.0' in metrics


def test_the_share_that_it_serves_is_a_metric_and_its_audits_are_counted_apart(trying: Callable[..., World]) -> None:
    one = trying()
    metrics = httpx.get(f"{one.url}/metrics").text
    assert 'locum_canary_share{policy="default"} 0.4' in metrics
    assert 'locum_audits_total{bundle="new",policy="default",result="acceptable",served_tier="student"} 0.0' in metrics


def test_one_whose_server_fails_again_and_again_is_rolled_back_at_once(trying: Callable[..., World]) -> None:
    one = trying()
    fails = {"status": 500}
    working = one.student.answer
    one.student.answer = lambda body: type(working(body))(**fails) if body["model"] == "new" else working(body)

    def sent() -> Any:
        assert {ask(one, n).status_code for n in range(20)} == {200}, "the teacher or the live student stands in"
        return read_active(folder_of(one)).ended

    ended = until(sent)
    assert (ended.bundle, ended.kept) == ("new", False)
    assert "failed several times in a row" in ended.reasons[0]
    until(lambda: state(one)["canary"] is None)
    assert {ask(one, n).headers["x-locum-bundle"] for n in range(12)} == {"old"}


def test_where_both_servers_fail_it_is_not_the_canarys_fault(trying: Callable[..., World]) -> None:
    one = trying()
    one.student.always(status=500)

    def sent() -> bool:
        for n in range(20):
            ask(one, n)
        return not state(one)["student"]["ready"]

    until(sent)
    for n in range(100):  # the live student's circuit is open, so is the canary's, more than once
        ask(one, n)
    assert read_active(folder_of(one)).canary is not None


def test_one_whose_audits_prove_parity_broken_is_rolled_back_at_once_and_is_no_alarm_of_what_is_live(
    trying: Callable[..., World],
) -> None:
    one = trying(audit={"rate": 0, "warmup_rate": 0, "explore": 0, "usd_per_day": 50, "concurrency": 4})
    working = one.student.answer
    one.student.answer = lambda body: type(working(body))(text="wrong") if body["model"] == "new" else working(body)

    def sent() -> Any:
        for n in range(20):
            ask(one, hashlib.md5(str(n).encode()).digest()[0] + 1000 * n)
        return read_active(folder_of(one)).ended

    ended = until(sent)
    assert (ended.bundle, ended.kept) == ("new", False)
    assert "parity broken" in ended.reasons[0]
    found = read_guarded(folder_of(one), CANARY_GUARDED)
    assert found is not None and found.alarms
    live = read_guarded(folder_of(one))
    assert live is None or live.changed_at == 0


def test_status_tells_of_a_canary_and_of_how_it_ended(
    trying: Callable[..., World], capsys: pytest.CaptureFixture[str]
) -> None:
    one = trying()
    settings = Settings(home=one.home)
    show([one.policy_file], hours=1, settings=settings)
    assert "new serves 40.0% of the conversations since" in " ".join(capsys.readouterr().out.split())
    end_canary(folder_of(one), "new", kept=False, reasons=("slice task=x: worse",))
    show([one.policy_file], hours=1, settings=settings)
    assert "new was rolled back at" in (said := " ".join(capsys.readouterr().out.split()))
    assert "slice task=x: worse" in said

"""Verdicts are taken on what was said, and what redaction changed is neither learnt from nor measured by."""

from __future__ import annotations

import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from distiller.data import dataset
from distiller.data.rows import DatasetRow, Skip, row_of
from distiller.evaluation.grading import live_answer
from distiller.rounds.trigger import Tally
from router.contracts.bundles import Evidence, Thresholds, activate
from router.contracts.decision import Tier
from router.judges.judge import Judges
from router.policy.policy import Policy, load_policy
from router.reports.human_verdicts import sample
from router.reports.status import show
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.text.features import extract
from router.settings import Settings
from tests.fakes import Script, World, policy_of, until, world
from tests.manifests import complete

AUDIT = {"rate": 1.0, "warmup_rate": 1.0, "explore": 0, "usd_per_day": 100}
LOG = {"redact_except": {"extract": ["email"]}}
TEACHER = {"training_rights": "allowed"}


def mail(body: dict[str, Any]) -> Script:
    """Finds the address, as the teacher does."""
    return Script(text=next(w for w in body["messages"][-1]["content"].split() if "@" in w))


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("true"), audit=AUDIT, log=LOG, judge="exact") as found:
        until(lambda: httpx.get(f"{found.url}/health/ready").json()["policies"][0]["student"]["ready"])
        yield found


def ask(proxy: World, text: str, task: str | None = None, **more: Any) -> Any:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **more}
    if task is not None:
        body["metadata"] = {"task": task}
    answer = httpx.post(f"{proxy.url}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    request_id = answer.headers["x-locum-request-id"]
    until(lambda: proxy.record(request_id).audit)
    return proxy.record(request_id)


@pytest.mark.parametrize("stream", [False, True])
def test_an_audit_judges_what_was_said_and_not_what_is_kept(proxy: World, stream: bool) -> None:
    """Both would read ``[EMAIL]``."""
    proxy.student.always(text="ben@acme.example")
    proxy.teacher.always(text="anna@acme.example")
    record = ask(proxy, "write to anna@acme.example please", stream=stream)
    assert record.audit.acceptable is False
    said = [record.answer_of(tier).message["content"] for tier in Tier]
    assert said == ["[EMAIL]", "[EMAIL]"]
    assert (record.redacted, record.answers[0].redacted, record.audit.answer.redacted) == (True, True, True)


def test_what_redaction_changed_is_in_no_split_and_counted_by_name_everywhere(proxy: World, tmp_path: Path) -> None:
    proxy.student.answer = proxy.teacher.answer = mail
    changed = ask(proxy, "find it: anna@acme.example")
    policy = load_policy(proxy.policy_file)
    judges = Judges(policy.judge)
    assert row_of(changed, policy, judges) is Skip.REDACTED
    assert live_answer(changed, frozenset({"base", "tiny"}), 0.0) is None
    assert sample([changed], 5, 0) == []
    tally = Tally().add(1, changed, policy)
    assert (tally.audited, tally.trainable, tally.acceptable) == (0, 0, 0)
    built = dataset.build([changed], policy, tmp_path / "dataset")
    assert built.skipped == {"changed_by_redaction": 1} and sum(built.counts.values()) == 0
    out = StringIO()
    show([proxy.policy_file], hours=1, settings=Settings(home=proxy.home), console=Console(file=out, width=200))
    assert "requests hold what log.redact changes (no task tag" in " ".join(out.getvalue().split())


def test_a_task_that_is_exempted_by_name_is_learnt_as_it_was_said(proxy: World) -> None:
    proxy.student.answer = proxy.teacher.answer = mail
    kept = ask(proxy, "find it: anna@acme.example or call +49 30 1234567", task="extract")
    assert not kept.answers[0].redacted and "[PHONE]" in str(kept.request) and "anna@acme.example" in str(kept.request)
    assert kept.redacted, "the number is still redacted"
    true = ask(proxy, "find it: anna@acme.example", task="extract")
    policy = load_policy(proxy.policy_file)
    row = row_of(true, policy, Judges(policy.judge))
    assert isinstance(row, DatasetRow) and row.answer == "anna@acme.example"
    assert not true.redacted and not true.audit.answer.redacted


def test_what_only_names_the_user_changes_nothing_that_is_learnt(proxy: World) -> None:
    proxy.student.always(text="yes")
    proxy.teacher.always(text="yes")
    record = ask(proxy, "is it", user="anna@acme.example")
    assert record.request["user"] == "[EMAIL]" and record.redacted is False


@pytest.mark.parametrize(
    "wrong", [{"extract": ["iban"]}, {"extract": []}, {"": ["email"]}, {"extract": ["names"]}, ["extract"]]
)
def test_an_exemption_says_of_which_task_and_what(tmp_path: Path, proxy: World, wrong: Any) -> None:
    values = policy_of(proxy.student, proxy.teacher, log={"redact_except": wrong})
    with pytest.raises(ValueError, match="redact_except"):
        Policy.model_validate(values)


def test_where_a_parity_is_promised_a_students_personal_data_is_the_teachers_to_give(tmp_path: Path) -> None:
    """Nothing like it was ever measured, so no certificate holds for it."""
    evidence = Evidence(
        target=0.9, confidence=0.95, examples=99, served=50, unacceptable=0, risk_bound=0.05, method="exact"
    )
    bundles = Settings(home=tmp_path / "home").bundles("default")
    hello = extract({"messages": [{"role": "user", "content": "hello"}]})
    Scorer.fit([Example(hello, None, True)] * 8, None).save(bundles / "b1" / "scorer")
    complete(bundles, "b1", created_at=time.time(), thresholds=Thresholds(route=0.0, accept=0.0, evidence=evidence))
    activate(bundles, "b1")
    with world(tmp_path, objective={"parity": {"at_least": 0.9}}, log=LOG) as found:
        until(lambda: httpx.get(f"{found.url}/health/ready").json()["policies"][0]["student"]["ready"])
        found.student.always(text="anna@acme.example")

        def served(**more: Any) -> str:
            body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}], **more}
            answer = httpx.post(f"{found.url}/v1/chat/completions", json=body, timeout=60)
            return answer.headers["x-locum-tier"]

        assert served() == served(stream=True) == "teacher"
        until(lambda: len(found.records()) == 2)
        assert [record.deferral for record in found.records()] == ["personal", "personal"]
        assert served(metadata={"task": "extract"}) == "student"

"""The guard: it reads the audits in their order, and thresholds and audit rate follow."""

from __future__ import annotations

import itertools
import re
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from structlog.testing import capture_logs

from router.bundles.watcher import LiveBundle
from router.cascade.audit import MissReason
from router.contracts.bundles import NEVER, Evidence, Thresholds, activate
from router.contracts.decision import Decision, Deferral, Reason, Tier
from router.contracts.guard_report import GUARDED, GuardReport, read_guarded
from router.contracts.records import Audit, Record
from router.metrics.metrics import Metrics
from router.policy.policy import Policy
from router.routing.decision import audit_rate
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.statistics.monitor import AuditedRequest
from router.scoring.text.features import extract
from router.served.audits import AuditReader
from router.served.guard import AuditSampling, Guard, Stage
from router.settings import Settings
from router.store.sqlite import SqliteStore
from tests.fakes import World, until, world
from tests.manifests import complete
from tests.router.conftest import MakeRecord

HELLO = extract({"messages": [{"role": "user", "content": "hello"}]})
SCORER = Scorer.fit([Example(HELLO, None, True)] * 8, None)  # every score 0.9
BEFORE = Thresholds(route=0.2, accept=0.5)


def policy(**changes: Any) -> Policy:
    values: dict[str, Any] = {
        "name": "default",
        "student": {"model": "small", "url": "http://student", "usd_per_million": {"input": 0, "output": 0}},
        "teacher": {"model": "t", "url": "http://teacher", "usd_per_million": {"input": 1, "output": 3}},
        "objective": {"parity": {"at_least": 0.9, "confidence": 0.95}},
        "audit": {"rate": 0.02, "warmup_rate": 0.2},
    }
    return Policy.model_validate(values | changes)


def publish(settings: Settings, bundle: str, thresholds: Thresholds, scorer: Scorer = SCORER) -> None:
    folder = settings.bundles("default")
    scorer.save(folder / bundle / "scorer")
    complete(folder, bundle, thresholds=thresholds)
    activate(folder, bundle)


class Home:
    """One policy's log and bundles, without a proxy."""

    def __init__(self, path: Path, make_record: MakeRecord) -> None:
        self.settings, self._make = Settings(home=path), make_record
        kept = {"default": policy().log}
        self.store = SqliteStore(self.settings.records_db, kept, clock=lambda: 1_000_060.0)  # none is too old
        self._ids = (f"r-{n}" for n in itertools.count())
        self.base = LiveBundle("b-1", SCORER, BEFORE)
        for bundle in ("b-1", "b-2"):
            publish(self.settings, bundle, BEFORE)

    def guard(self, **changes: Any) -> Guard:
        values = {
            "base": lambda: self.base,
            "audits": AuditReader("default", self.store),
            "metrics": Metrics(),
        } | changes
        return Guard(values.pop("policy", policy()), self.settings, **values)

    def audit(self, outcomes: str, *, acceptance: float = 0.8, **changes: Any) -> None:
        """One audited request that the student served for each letter: ``+`` acceptable, ``-`` not."""
        for outcome in outcomes:
            record = self._make(next(self._ids), acceptance=acceptance, **changes)
            self.store.append(record)
            self.store.amend(record.request_id, audit=Audit(acceptable=outcome == "+", judge="normalised"))


@pytest.fixture
def home(tmp_path: Path, make_record: MakeRecord) -> Iterator[Home]:
    made = Home(tmp_path, make_record)
    yield made
    made.store.close()


async def refreshed(home: Home, guard: Guard) -> LiveBundle:
    await home.store.flush()
    await guard.refresh()
    return guard.live


async def test_while_parity_is_kept_the_bundles_own_word_holds(home: Home) -> None:
    home.audit("+" * 400)
    live = await refreshed(home, home.guard())
    assert live == home.base
    assert audit_rate(policy(), live.thresholds, live.wary) == 0.02


async def test_a_broken_floor_closes_the_student_off_audits_more_and_says_so(home: Home) -> None:
    told: list[LiveBundle] = []
    metrics = Metrics()
    guard = home.guard(changed=told.append, metrics=metrics)
    home.audit("+" * 200)
    await refreshed(home, guard)
    home.audit("-" * 40)
    with capture_logs() as logs:
        live = await refreshed(home, guard)
    assert live.thresholds == Thresholds(route=NEVER, accept=NEVER)
    assert audit_rate(policy(), live.thresholds, live.wary) == 0.2
    assert told == [live]
    assert [e["event"] for e in logs if e["log_level"] == "warning"] == ["parity_below_floor"]
    exposed = metrics.expose().decode()
    assert 'locum_guard_alarm{policy="default"} 1.0' in exposed
    assert 'locum_audit_rate{policy="default"} 0.2' in exposed
    found = read_guarded(home.settings.bundles("default"))
    assert found is not None
    assert (found.alarm, found.alarms, found.changed_at, found.bundle) == (True, 1, 1_000_000.0, "b-1")


async def test_what_is_certified_since_lets_the_student_in_again(home: Home) -> None:
    guard = home.guard()
    home.audit("-" * 40)
    home.audit("+" * 150, acceptance=0.9, tier=Tier.TEACHER)
    with capture_logs() as logs:
        live = await refreshed(home, guard)
    assert live.thresholds is not None
    assert live.thresholds.route == BEFORE.route
    assert live.thresholds.accept < 0.9
    assert not live.wary
    assert not logs  # the alarm came and went between two looks
    found = read_guarded(home.settings.bundles("default"))
    assert found is not None
    assert (found.alarm, found.alarms) == (False, 1)


async def test_recovery_is_told(home: Home) -> None:
    guard = home.guard()
    home.audit("-" * 40)
    await refreshed(home, guard)
    home.audit("+" * 150)
    with capture_logs() as logs:
        await refreshed(home, guard)
    assert [(e["event"], e["log_level"]) for e in logs] == [("parity_recovered", "info")]


async def test_a_restart_and_another_worker_come_to_the_same_state(home: Home) -> None:
    one = home.guard()
    for part in ("+" * 90, "-" * 40, "+" * 130, "-+" * 6):
        home.audit(part)
        await refreshed(home, one)
    assert one.live == await refreshed(home, home.guard())
    assert one.live.thresholds != BEFORE


async def test_bundles_are_never_pooled(home: Home) -> None:
    guard = home.guard()
    home.audit("-" * 40, bundle="b-2")
    assert (await refreshed(home, guard)).thresholds == BEFORE
    home.base = replace(home.base, bundle="b-2")
    assert (await refreshed(home, guard)).thresholds == Thresholds(route=NEVER, accept=NEVER)
    home.base = replace(home.base, bundle="b-1")
    assert (await refreshed(home, guard)).thresholds == BEFORE


async def test_the_traffics_last_change_is_remembered_over_bundles(home: Home) -> None:
    guard = home.guard()
    home.audit("-" * 40)
    await refreshed(home, guard)
    home.base = replace(home.base, bundle="b-2")
    await refreshed(home, guard)
    found = read_guarded(home.settings.bundles("default"))
    assert found is not None
    assert (found.bundle, found.alarm, found.changed_at) == ("b-2", False, 1_000_000.0)


async def test_a_damaged_file_of_findings_is_replaced(home: Home) -> None:
    file = home.settings.bundles("default") / GUARDED
    file.write_text("{")
    home.audit("+")
    await refreshed(home, home.guard())
    assert GuardReport.model_validate_json(file.read_bytes()).audits == 1


async def test_without_a_floor_it_watches_and_changes_nothing(home: Home) -> None:
    metrics = Metrics()
    guard = home.guard(policy=policy(objective={"student_share": 0.8}), metrics=metrics)
    home.audit("-" * 60)
    assert await refreshed(home, guard) is home.base
    assert 'locum_parity{bound="estimate",policy="default"} 0.0' in metrics.expose().decode()


async def test_a_student_that_comes_and_goes_changes_no_threshold(home: Home) -> None:
    guard = home.guard()
    home.audit("-" * 40)
    closed = (await refreshed(home, guard)).thresholds
    home.base = replace(home.base, student=None)
    assert guard.live.thresholds == closed != BEFORE


async def test_a_bundle_certified_with_less_than_all_doubt_is_loosened_by_live_audits(home: Home) -> None:
    def evidence(confidence: float) -> Evidence:
        return Evidence(
            target=0.9, confidence=confidence, examples=1, served=1, unacceptable=0, risk_bound=0.1, method=""
        )

    home.audit("+" * 300, acceptance=0.3)
    home.base = replace(home.base, thresholds=BEFORE.model_copy(update={"evidence": evidence(0.95)}))
    assert (await refreshed(home, home.guard())).thresholds == home.base.thresholds
    home.base = replace(home.base, thresholds=BEFORE.model_copy(update={"evidence": evidence(0.97)}))
    loosened = (await refreshed(home, home.guard())).thresholds
    assert loosened is not None
    assert loosened.accept < 0.3


def final(record: Record, *, cascade: bool = True) -> float | None:
    return Stage(policy(accept={"cascade": cascade}), SCORER, BEFORE).final(record)


def decided(reason: Reason, score: float | None = 0.9) -> Decision:
    return Decision(tier=Tier.STUDENT, reason=reason, score=score, threshold=0.5)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"acceptance": 0.6}, 0.6),
        ({}, 0.9),  # never asked: the answer of the audit is looked at, here without token probabilities
        ({"decision": decided(Reason.SCORE, 0.1)}, -1.0),
        ({"deferral": Deferral.CONFIDENCE, "acceptance": 0.3}, 0.3),
        ({"deferral": Deferral.REFUSAL, "acceptance": 0.9}, -1.0),
        ({"decision": decided(Reason.AFFINITY), "reason": Reason.AFFINITY}, -1.0),
        ({"decision": decided(Reason.OVERRIDE), "reason": Reason.OVERRIDE}, None),
        ({"reason": Reason.FALLBACK}, None),
        ({"decision": decided(Reason.COLD_START, None)}, None),
    ],
)
def test_the_final_score_is_what_decided_or_would_have(
    make_record: MakeRecord, changes: Mapping[str, Any], expected: float | None
) -> None:
    assert final(make_record(**changes)) == expected


def test_without_a_cascade_the_routing_score_decides(make_record: MakeRecord) -> None:
    assert final(make_record(acceptance=0.6), cascade=False) == 0.9


def test_while_the_money_for_audits_is_spent_the_teachers_verdicts_alone_count_for_nothing(
    make_record: MakeRecord,
) -> None:
    sampling = AuditSampling(Stage(policy(), SCORER, BEFORE))

    def outcome(tier: Tier, **audit: Any) -> AuditedRequest | None:
        return sampling.outcome(make_record(tier=tier, acceptance=0.7, audit=Audit(**audit)))

    known, unknown = AuditedRequest(0.7, True), AuditedRequest(0.7, None)
    assert outcome(Tier.TEACHER, acceptable=True) == known
    assert outcome(Tier.STUDENT, missed=MissReason.BUDGET) == unknown
    assert outcome(Tier.TEACHER, acceptable=True) is None
    assert outcome(Tier.STUDENT, missed=MissReason.BUDGET) is None
    assert outcome(Tier.STUDENT, acceptable=True) is None  # a new day, known only by this one
    assert outcome(Tier.TEACHER, acceptable=True) == known
    assert outcome(Tier.TEACHER, missed=MissReason.STUDENT_UNREADY) is None


# ---- the whole proxy ----


def fit_scorer() -> Scorer:
    texts = [(f"what is my balance {n}", True) for n in range(80)] + [(f"prove theorem {n}", False) for n in range(80)]
    examples = [Example(extract({"messages": [{"role": "user", "content": t}]}), None, ok) for t, ok in texts]
    return Scorer.fit(examples, encoder=None)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[World]:
    publish(Settings(home=tmp_path / "home"), "b1", Thresholds(route=0.5, accept=0.5), fit_scorer())
    objective = {"parity": {"at_least": 0.6, "confidence": 0.9}}
    audit = {"rate": 1.0, "warmup_rate": 1.0, "explore": 0, "usd_per_day": 1000, "concurrency": 4}
    with world(tmp_path, objective=objective, audit=audit, judge="exact") as running:
        running.teacher.always(text="right")
        yield running


def test_a_student_that_goes_bad_is_closed_off_and_let_in_again_by_itself(guarded: World) -> None:
    client = OpenAI(base_url=f"{guarded.url}/v1", api_key="none", max_retries=0)
    numbers = itertools.count()

    def ask() -> str:
        content = f"what is my balance {next(numbers)}"
        answer = client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": content}])
        return str(answer.choices[0].message.content)

    def alarm() -> float:
        with urllib.request.urlopen(f"{guarded.url}/metrics", timeout=10) as answer:
            found = re.search(r'^locum_guard_alarm\{policy="default"\} (\S+)', answer.read().decode(), re.M)
        return float(found[1]) if found else -1.0

    def keep_asking(true: Callable[[], bool]) -> None:
        until(lambda: true() or not ask(), 60)

    until(lambda: alarm() == 0)
    guarded.student.always(text="right")
    keep_asking(lambda: len([r for r in guarded.records() if r.tier is Tier.STUDENT and r.audit]) >= 20)
    guarded.student.always(text="wrong")
    keep_asking(lambda: alarm() == 1)
    assert ask() == "right"  # by the teacher
    guarded.student.always(text="right")
    keep_asking(lambda: alarm() == 0)
    assert guarded.record(guarded.records()[-1].request_id)
    before = time.time()
    ask()
    last = until(lambda: [r for r in guarded.records() if r.created_at >= before])[-1]
    assert (last.tier, last.reason) == (Tier.STUDENT, Reason.SCORE)

"""`locum status` tells what the records and files of a home say, whether or not a proxy runs."""

import json
import os
import time
from collections.abc import Callable
from contextlib import closing
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from router.contracts.bundles import NEVER, Evidence, Thresholds, activate
from router.contracts.decision import Decision, Reason, Tier
from router.contracts.guard_report import GuardReport, write_guarded
from router.contracts.records import Answer, AnswerKind, Audit, Record
from router.errors import PolicyError
from router.policy.policy import load_policy
from router.reports import status
from router.reports.status import show
from router.settings import Settings
from router.store.access import open_store
from tests.fakes import until, world
from tests.manifests import complete

MakeRecord = Callable[..., Record]
POLICY = """
name: default
student: {model: s, engine: embedded, usd_per_million: {input: 0.02, output: 0.06}}
teacher: {model: openai/gpt-5, training_rights: forbidden}
objective: {parity: {at_least: 0.95}}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "default.yaml"
    path.write_text(POLICY)
    return path


def shown(policy: Path, settings: Settings, hours: float = 24) -> str:
    out = StringIO()
    show([policy], hours=hours, settings=settings, console=Console(file=out, width=160, color_system=None))
    return " ".join(out.getvalue().split())


def publish(settings: Settings, bundle: str) -> None:
    evidence = Evidence(
        target=0.05, confidence=0.95, examples=800, served=600, unacceptable=9, risk_bound=0.021, method="exact"
    )
    thresholds = Thresholds(route=0.71, accept=NEVER, evidence=evidence)
    values = {"created_at": time.time(), "thresholds": thresholds, "cost_usd": "0.25"}
    complete(settings.bundles("default"), bundle, **values)
    activate(settings.bundles("default"), bundle)


def test_a_fresh_home_says_what_to_do(policy: Path, settings: Settings) -> None:
    text = shown(policy, settings)
    assert "proxy not running" in text
    assert "No request in the last 24 h" in text and "locum/default" in text
    assert "live base student" in text
    assert not settings.home.exists()  # looking leaves no trace


def test_everything_that_was_recorded_is_told(policy: Path, settings: Settings, make_record: MakeRecord) -> None:
    publish(settings, "b-0")
    publish(settings, "b-1")
    teacher = Answer(tier=Tier.TEACHER, kind=AnswerKind.AUDITED, model="gpt-5", cost_usd="0.004")
    with closing(open_store(settings, [load_policy(policy)])) as store:
        for i in range(8):
            store.append(make_record(f"s{i}", created_at=time.time()))
        store.append(make_record("t", created_at=time.time(), tier=Tier.TEACHER, reason=Reason.DEFERRAL))
        store.append(make_record("x", created_at=time.time(), tier=None, status=502, reason=Reason.FALLBACK))
        store.append(make_record("old", created_at=time.time() - 7200))
        store.append(make_record("other", created_at=time.time(), policy="other"))
        store.amend("s0", audit=Audit(answer=teacher, acceptable=False))
        store.amend("s1", audit=Audit(answer=teacher, acceptable=True))
    text = shown(policy, settings, hours=1)
    assert "live b-1, made 20" in text and "before it b-0, made 20" in text
    assert "route 0.710, accept never (risk at most 2.1% at 95%, exact, 800 examples)" in text
    assert "10 requests in 1 h" in text
    assert "student all 8 88.9% score 8 88.9%" in text
    assert "teacher all 1 11.1% deferral 1 11.1%" in text
    assert "nobody 1" in text
    assert "student served 0.0040" in text and "student trained 0.5000" in text
    assert "teacher audited 0.0080" in text and "teacher served 0.0005" in text
    assert "teacher alone estimate 0.0200" in text and "lost -0.4925" in text
    assert "wanted 95%" in text and "b-1 2 2 1 55.6% 12.2% to 98.9%" in text
    assert "student, whole answer 250.0 250.0" in text and "overhead 0.8 0.8" in text
    assert "escalations 1" in text and "this policy never learns" in text


def test_what_the_guard_found_is_told_of_the_live_bundle_alone(policy: Path, settings: Settings) -> None:
    publish(settings, "b-1")
    assert "guard no audit of this bundle yet" in shown(policy, settings)
    found = GuardReport(bundle="b-1", audits=400, lower=0.93, estimate=0.96, upper=0.98, route=0.71, accept=0.6)
    write_guarded(settings.bundles("default"), found)
    assert "guard parity between 93.0% and 98.0% by 400 audits; route 0.710, accept 0.600" in shown(policy, settings)
    alarm = {"alarm": True, "alarms": 1, "changed_at": time.time(), "audits": 0, "route": 1.01, "accept": 1.01}
    write_guarded(settings.bundles("default"), found.model_copy(update=alarm))
    text = shown(policy, settings)
    assert "guard ALARM: parity fell below its floor at 20" in text
    assert "route never, accept never in force" in text
    publish(settings, "b-2")
    assert "guard no audit of this bundle yet" in shown(policy, settings)


def test_running_processes_are_told_from_dead_ones(policy: Path, settings: Settings) -> None:
    settings.run.mkdir(parents=True)
    place = {"url": "http://127.0.0.1:1/v1", "model": "base"}
    student = settings.run / "default.student.json"
    (settings.run / "proxy.json").write_text(json.dumps({"pid": os.getpid(), "url": "http://127.0.0.1:8080"}))
    student.write_text(json.dumps({"pid": os.getpid(), "versions": {"base": place, "b-1": place}}))
    text = shown(policy, settings)
    assert "proxy running at http://127.0.0.1:8080" in text
    assert "students ready b-1, base" in text
    child = os.spawnlp(os.P_NOWAIT, "true", "true")
    os.waitpid(child, 0)
    student.write_text(json.dumps({"pid": child, "versions": {"base": place}}))
    (settings.run / "proxy.json").write_text("{not whole")
    text = shown(policy, settings)
    assert "proxy not running" in text
    assert "students ready none" in text


def test_what_is_new_in_the_traffic_is_told_by_name(policy: Path, settings: Settings, make_record: MakeRecord) -> None:
    publish(settings, "b-1")
    asked = [(f"where is my lost card {n}", 0.0) for n in range(30)]
    fates = ("wait", "die", "spin", "hang", "stop", "start", "fail", "leak", "lag", "jam")
    asked += [(f"why does my kubernetes pod {fate}", 0.9) for fate in fates]
    with closing(open_store(settings, [load_policy(policy)])) as store:
        for n, (text, novelty) in enumerate(asked):
            decision = Decision(tier=Tier.TEACHER, reason=Reason.SCORE, score=0.4, threshold=0.5, novelty=novelty)
            request = {"messages": [{"role": "user", "content": text}]}
            now = time.time()
            store.append(make_record(f"r{n}", created_at=now, tier=Tier.TEACHER, decision=decision, request=request))
    text = shown(policy, settings)
    assert "10 of 40 requests (25.0%) were strange to the scorer, in a day under b-1" in text
    assert "kubernetes pod 10" in text and "100.0% not audited yet" in text
    assert "the bundle does not say how scores were spread" in text


def test_rounds_that_were_rejected_are_in_the_spend(policy: Path, settings: Settings, make_record: MakeRecord) -> None:
    publish(settings, "b-1")  # 0.25 USD, and not in the history
    settings.work("default").mkdir(parents=True)
    rounds = [
        {"at": time.time(), "bundle": None, "cost_usd": "1.5"},
        {"at": time.time() - 9e5, "bundle": None, "cost_usd": "7"},
    ]
    (settings.work("default") / "rounds.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rounds))
    with closing(open_store(settings, [load_policy(policy)])) as store:
        store.append(make_record("r", created_at=time.time()))
    assert "student trained 1.7500" in shown(policy, settings)


def test_a_wrong_policy_file_is_told_after_what_the_others_say(policy: Path, settings: Settings) -> None:
    wrong = policy.with_name("wrong.yaml")
    wrong.write_text(f"{POLICY}\nnonsense: 1\n")
    out = StringIO()
    with pytest.raises(PolicyError, match=r"wrong.yaml: nonsense.*a proxy that runs goes on by what the file said"):
        show([wrong, policy], hours=1, settings=settings, console=Console(file=out, width=160))
    assert "No request in the last 1 h" in out.getvalue()


def problems(text: str) -> str:
    """The text, once both the file and the bundle are told of."""
    return text if "not taken over" in text and "gone has no manifest" in text else ""


def test_a_running_proxy_says_what_was_not_taken_over(tmp_path: Path) -> None:
    with world(tmp_path) as running:
        settings = Settings(home=running.home)
        settings.run.mkdir(parents=True, exist_ok=True)
        (settings.run / "proxy.json").write_text(json.dumps({"pid": os.getpid(), "url": running.url}))
        good = running.policy_file.read_text()
        assert "not taken over" not in shown(running.policy_file, settings)
        running.policy_file.write_text(f"{good}\nnonsense: 1\n")
        folder = settings.bundles("default")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "active.json").write_text('{"bundle": "gone"}')
        kept = tmp_path / "kept.yaml"
        kept.write_text(good)
        text = until(lambda: problems(shown(kept, settings)))
        assert "default: its file was not taken over, what it said before stays:" in text and "nonsense" in text
        running.policy_file.write_text(good)
        (folder / "active.json").write_text('{"bundle": null}')
        until(lambda: "not taken over" not in shown(kept, settings))


def test_where_the_disk_is_full_no_record_is_not_told_as_no_request(
    policy: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.home.mkdir()
    assert "No request in the last 24 h" in shown(policy, settings)
    monkeypatch.setattr(status, "LEAST_BYTES", 2**80)  # no disk has that much room
    found = shown(policy, settings)
    assert f"the disk that holds {settings.home} is full: records cannot be written" in found
    assert "No record of the last 24 h" in found
    assert "No request" not in found

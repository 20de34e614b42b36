"""A whole round where the served teacher may not be learnt from: what a label teacher says is learnt, and what is
promised stays promised against the served one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from distiller.rounds.report import RoundReport
from distiller.rounds.round import run_round
from router.contracts.bundles import read_active, read_manifest
from router.contracts.records import Rights
from router.contracts.rounds import history
from router.policy.policy import Policy
from router.settings import Settings
from tests.distiller.labels.label_server import LabelServer
from tests.distiller.tickets import TEAMS, traffic, write
from tests.fakes import DEADLINE_SECONDS, Script, served, until


@pytest.fixture
def server() -> Iterator[LabelServer]:
    upstream = LabelServer()
    upstream.says = lambda text: next(team for word, team in TEAMS.items() if word in text.split())
    with served(upstream) as url:
        upstream.url = url
        yield upstream


def policy(labels: dict[str, Any] | None) -> Policy:
    price = {"input": 1, "output": 10}
    return Policy.model_validate({
        "name": "tickets",
        "student": {"engine": "head"},
        "teacher": {"model": "recorded", "training_rights": "forbidden", "usd_per_million": price},
        "objective": {"parity": {"at_least": 0.9, "confidence": 0.9}},
        "distil": {"min_new_records": 300, "labels_from": labels},
    })  # fmt: skip


def named(server: LabelServer, **more: Any) -> dict[str, Any]:
    price = {"input": 1, "output": 3}
    rights = {"training_rights": "allowed"}
    return {"model": "open-weights", "url": f"{server.url}/v1", "usd_per_million": price, **rights, **more}


def round_of(folder: Path, by: Policy) -> tuple[RoundReport, Settings]:
    settings = Settings(home=folder / "home", cache=folder / "cache")
    records = traffic(800, seed=1)
    forbidden = [replace(r, answers=[replace(a, training_rights=Rights.FORBIDDEN) for a in r.answers]) for r in records]
    write(settings, by, forbidden)
    return run_round(by, settings, encoders=lambda *_: None), settings


@pytest.mark.parametrize("batch", [False, True])
def test_a_student_learns_from_the_label_teacher_and_is_certified_against_the_served_one(
    server: LabelServer, tmp_path: Path, batch: bool
) -> None:
    report, settings = round_of(tmp_path, policy(named(server, batch=batch)))
    assert report.promoted, report.reasons
    assert report.share > 0.8 and report.labels is not None
    bundles = settings.bundles("tickets")
    live = read_active(bundles).bundle
    assert live is not None and report.page is not None
    rights = read_manifest(bundles, live).dataset.rights
    assert rights == {f"open-weights: allowed, label teacher at {server.url}/v1": report.counts["train"]}
    assert any("agrees with recorded in 100.0%" in reason for reason in report.reasons)
    page = Path(report.page)
    assert "Label teacher" in page.read_text()
    told = json.loads(page.with_name("report.json").read_bytes())["labels"]
    assert told["agreement"][0]["name"] == "all" and told["rows"] == report.labels["rows"]
    assert Decimal(report.cost_usd) == Decimal(report.labels["cost_usd"]) > 0


def test_one_that_is_wrong_costs_share_and_never_the_promise(server: LabelServer, tmp_path: Path) -> None:
    server.says = lambda text: (
        "delivery" if "login" in text.split() else {**TEAMS}[next(word for word in TEAMS if word in text.split())]
    )
    report, settings = round_of(tmp_path, policy(named(server)))
    assert report.labels is not None and 0.7 < report.labels["agreement"][0]["share"] < 0.9
    assert report.acceptable_rate is not None and report.acceptable_rate < 0.9
    if report.bundle is not None:
        evidence = read_manifest(settings.bundles("tickets"), report.bundle).thresholds.evidence
        assert evidence is not None and evidence.risk_bound <= 0.1


def test_one_that_is_down_leaves_a_round_that_says_so(server: LabelServer, tmp_path: Path) -> None:
    server.always(status=503)
    report, _ = round_of(tmp_path, policy(named(server)))
    assert not report.promoted and Decimal(report.cost_usd) == 0
    said = " ".join(report.reasons)
    assert "nothing was trained" in said and "calls failed" in said


def test_without_one_the_round_says_in_a_sentence_why_not_and_what_to_change(tmp_path: Path) -> None:
    report, _ = round_of(tmp_path, policy(None))
    assert not report.promoted
    (why, *_) = report.reasons
    assert "this policy never learns, since recorded's own may not be trained on" in why
    assert "distil.labels_from: {model: …, url: …, training_rights: allowed}" in why


def killed_when(ready: Callable[[], bool], command: list[str], env: dict[str, str]) -> None:
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(ready)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("batch", [False, True])
def test_a_round_that_kill_9_ended_goes_on_and_nothing_is_paid_twice(
    server: LabelServer, tmp_path: Path, batch: bool
) -> None:
    by, usual = policy(named(server, batch=batch)), server.answer
    settings = Settings(home=tmp_path / "home", cache=Settings.from_env().cache)
    forbidden = [
        replace(r, answers=[replace(a, training_rights=Rights.FORBIDDEN) for a in r.answers])
        for r in traffic(800, seed=1)
    ]
    write(settings, by, forbidden)
    file = tmp_path / "policy.json"
    file.write_text(by.model_dump_json(exclude_defaults=True))
    command = [sys.executable, "-m", "router.cli", "distill", "run", "--policy", str(file), "--force"]
    env = {**os.environ, "LOCUM_HOME": str(settings.home)}
    if batch:
        server.looks = 10**6
        killed_when(lambda: any(b["looks"] > 1 for b in server.made.values()), command, env)
        server.looks = 1
    else:
        server.answer = lambda body: usual(body) if len(server.seen) <= 60 else Script(hang=True)
        killed_when(lambda: len(server.seen) > 65, command, env)
        server.answer = usual
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False)
    assert ended.returncode == 0, ended.stderr
    (report,) = history(settings.work("tickets"))
    asked = [json.dumps(s.body, sort_keys=True) for s in server.seen]
    assert len(asked) == len(set(asked)) and len(server.made) == batch
    labels = report["labels"]
    lost = labels["out"].get("under way when an earlier run was killed", 0)
    assert lost == (0 if batch else labels["wanted"] - labels["rows"]) <= 8
    assert labels["wanted"] == labels["rows"] + lost > 300
    assert report["bundle"] is not None, report["reasons"]

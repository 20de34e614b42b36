"""The demo's whole loop at small scale, with clients who say nothing of a temperature: what is certified is served."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from distiller.config import Configs, EvaluateConfig, TrainConfig
from distiller.rounds.round import run_round
from router.contracts.bundles import Evidence, Manifest, Thresholds, read_manifest
from router.contracts.records import AnswerKind, Record
from router.policy.policy import load_policy
from router.store.access import open_readonly
from tests.benchmarks.conftest import Script
from tests.distiller.tickets import FILLER, TEAMS, make_student
from tests.fakes import until
from tests.manifests import complete

BEFORE, AFTER = 480, 200


def tickets(script: Script, n: int) -> list[Any]:
    """Different tickets, of which one in five is beyond every student: its answer follows from nothing."""
    rng, made = random.Random(5), {}
    while len(made) < n:
        word = rng.choice(list(TEAMS))
        words = [*rng.choices(FILLER, k=7), word]
        rng.shuffle(words)
        odd = rng.random() < 0.2
        text = " ".join(["hop", "hop", *words] if odd else words)
        made[text] = script("workload").Task(
            "triage", "Which team?", text, rng.choice(list(TEAMS.values())) if odd else TEAMS[word]
        )
    return list(made.values())


def records(locum: Any) -> list[Record]:
    reader = open_readonly(locum.settings)
    try:
        return [r for _, r in reader.records(policy="demo")]
    finally:
        reader.close()


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads only cost on matrices this small; the processes that are started inherit it."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.usefixtures("one_thread")
def test_clients_without_a_temperature_get_the_share_that_was_promised(script: Script, tmp_path: Path) -> None:
    demo, harness, shares = script("demo"), script("harness"), script("shares")
    work = tickets(script, BEFORE + AFTER)
    answers = {task.prompt: task.answer for task in work}
    console = Console(quiet=True)
    with harness.ReplayServer("simulated", lambda body: answers[harness.last_user_text(body)]) as teacher:
        policy = demo.policy(teacher.url)
        policy["student"] |= {"model": str(make_student(tmp_path / "student")), "form": "int8"}
        policy |= {"objective": {"parity": {"at_least": 0.9, "confidence": 0.9}}, "judge": "exact"}
        with harness.running(tmp_path / "home", policy) as locum:
            asyncio.run(demo.traffic(locum.url, work[:BEFORE], "before", console))
            until(lambda: all(r.audit for r in records(locum) if r.decision.audited))
            told = load_policy(locum.policy_file)
            report = run_round(told, locum.settings, configs=configs(), encoders=lambda *_: None)
            assert report.bundle is not None, report.reasons
            asked: list[Any] = []

            def serves() -> bool:
                asked[:] = asyncio.run(demo.traffic(locum.url, work[:1], "waiting", console))
                return bool(asked[0].bundle == report.bundle)

            until(serves)
            fresh = asyncio.run(demo.traffic(locum.url, work[BEFORE:], "after", console))
            said = demo.share_told(locum, fresh)
        mine = {s.request_id for s in fresh}
        found = [r for r in records(locum) if r.request_id in mine]
    kept = shares.kept_share(read_manifest(locum.settings.bundles("demo"), report.bundle), [s.tier for s in fresh])
    assert kept.kept, said
    assert kept.got > 0.1 and f"{kept.got:.1%}, inside" in said
    assert not [r for r in found if "temperature" in (r.request or {})]
    served = [a for r in found for a in r.answers if a.kind is AnswerKind.SERVED and a.tier == "student"]
    assert len(served) == round(kept.got * AFTER) and {a.temperature for a in served} == {0.0}


def configs() -> Configs:
    train = TrainConfig(
        epochs=6, learning_rate=3e-3, precision="fp32", device="cpu", threads=1, freeze_embeddings=False
    )
    return Configs(evaluate=EvaluateConfig(max_dev=100, max_holdout=400), train=train)


def promise_of(folder: Path, share: float | None, served: int, examples: int) -> Manifest:
    evidence = Evidence(
        target=0.95, confidence=0.9, examples=examples, served=served, unacceptable=0, risk_bound=0.05, method="exact",
        share=share,
    )  # fmt: skip
    complete(folder, "b1", thresholds=Thresholds(route=0.5, accept=0.5, evidence=evidence))
    return read_manifest(folder, "b1")


@pytest.mark.parametrize(
    ("promised", "students", "kept"), [(0.48, 32, False), (0.48, 43, True), (0.0, 0, True), (1.0, 100, True)]
)
def test_a_share_that_clients_did_not_get_is_told(
    script: Script, tmp_path: Path, promised: float, students: int, kept: bool
) -> None:
    tiers, served = ["student"] * students + ["teacher"] * (100 - students), round(promised * 200)
    for made in (promise_of(tmp_path, promised, served // 2, 200), promise_of(tmp_path, None, served, 200)):
        found = script("shares").kept_share(made, tiers)
        assert (found.promised, found.got, found.kept) == (promised, students / 100, kept)
        assert ("OUTSIDE" in str(found)) is not kept


def test_the_interval_holds_as_often_as_it_says(script: Script) -> None:
    """Over all samples there are of one rate, by their true chances, and never much less often."""
    from scipy.stats import binom

    of, ahead = 60, 40
    limits = [script("shares").coming(hits, of, ahead) for hits in range(of + 1)]
    for rate in (0.03, 0.3, 0.72, 0.98):
        inside = sum(
            binom.pmf(hits, of, rate) * binom.pmf(got, ahead, rate)
            for hits, (low, high) in enumerate(limits)
            for got in range(ahead + 1)
            if low <= got / ahead <= high
        )
        assert inside >= 0.95

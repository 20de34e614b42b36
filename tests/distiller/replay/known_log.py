"""A log whose truth is known: both tiers' outcomes of every request, recorded as a policy would have."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from typer.testing import CliRunner

from distiller.replay.cli import replay, tune
from distiller.replay.log import read_log
from distiller.replay.traffic import Traffic, bundle_of, traffic_of
from router.contracts.decision import Decision, Reason, Tier
from router.contracts.records import Answer, AnswerKind, Audit, Record, Signals, Usage
from router.policy.policy import Policy
from router.pricing import Prices, cost_usd
from router.scoring.scorer import Scorer
from router.settings import Settings
from router.store.access import open_store

STUDENT, TEACHER = Tier.STUDENT, Tier.TEACHER
POLICY = """
name: default
student: {model: s, url: "http://s", usd_per_million: {input: 0.1, output: 0.1}}
teacher: {model: t, url: "http://t", usd_per_million: {input: 1.0, output: 4.0}}
objective: {threshold: 0.5}
audit: {rate: 0.2, explore: 0, usd_per_day: 1000}
"""


def policy(**changes: Any) -> Policy:
    return Policy.model_validate({**yaml.safe_load(POLICY), **changes})


PRICES = Prices.of(policy())


def signals(mean: float) -> Signals:
    return Signals(
        tokens=20, sum_logprob=20 * mean, mean_logprob=mean, min_logprob=2 * mean, first_logprob=mean,
        q10_logprob=2 * mean, q25_logprob=mean, q50_logprob=mean,
    )  # fmt: skip


class Recorded:
    """Requests whose both outcomes are known, as the records that a policy at ``threshold`` would have left."""

    def __init__(self, n: int = 2000, *, threshold: float = 0.5, rate: float = 0.2, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.score = rng.beta(3, 1.5, n)
        self.good = rng.random(n) < self.score
        self.lengths = rng.integers(20, 200, (n, 2))
        self.certainty = np.where(self.good, -0.1, -0.8) * rng.uniform(0.5, 1.5, n)
        self.audited = rng.random(n) < rate
        self.threshold, self.rate = threshold, rate

    def usage(self, i: int, tier: Tier) -> Usage:
        return Usage(input_tokens=100, output_tokens=int(self.lengths[i, 0 if tier is STUDENT else 1]))

    def answer(self, i: int, tier: Tier, kind: AnswerKind = AnswerKind.SERVED) -> Answer:
        usage = self.usage(i, tier)
        price = PRICES.student if tier is STUDENT else PRICES.teacher()
        said = signals(float(self.certainty[i])) if tier is STUDENT else None
        return Answer(
            tier=tier, kind=kind, model="m", usage=usage, cost_usd=cost_usd(usage, price), signals=said,
            finish_reason="stop",
        )  # fmt: skip

    def record(self, i: int, **changes: Any) -> Record:
        tier = STUDENT if self.score[i] >= self.threshold else TEACHER
        decision = Decision(
            tier=tier, reason=Reason.SCORE, score=float(self.score[i]), propensity=self.rate,
            audited=bool(self.audited[i]),
        )  # fmt: skip
        audit = Audit(answer=self.answer(i, tier.other, AnswerKind.AUDITED), acceptable=bool(self.good[i]))
        values: dict[str, Any] = {
            "request_id": f"r-{i}",
            "conversation_id": f"c-{i}",
            "created_at": 60.0 * i,
            "policy": "default",
            "policy_version": "1",
            "bundle": "b-1",
            "features_version": "1",
            "decision": decision,
            "tier": tier,
            "reason": Reason.SCORE,
            "answers": [self.answer(i, tier)],
            "audit": audit if self.audited[i] else None,
        }
        return Record(**(values | changes))

    def records(self) -> list[Record]:
        return [self.record(i) for i in range(len(self.score))]

    def given(self, threshold: float) -> dict[str, float]:
        """What routing at ``threshold`` really gives, without audits."""
        served = self.score >= threshold
        each = np.array([[float(self.answer(i, t).cost_usd) for t in Tier] for i in range(len(served))])
        cost, alone = np.where(served, each[:, 0], each[:, 1]).mean(), each[:, 1].mean()
        lost = (served & ~self.good).mean()
        return {"share": served.mean(), "parity": 1 - lost, "risk": lost / served.mean(), "cost": cost, "alone": alone}


def read(records: list[Record], by: Policy, scorer: Scorer | None = None) -> Traffic:
    rows, _ = read_log(records, [by])
    return traffic_of(rows, 0, by, scorer, bundle_of(rows, None))


def commands(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs `replay` or `tune` on ``folder/default.yaml`` in a home whose log holds 2,000 requests."""
    settings, file = Settings(home=folder / "home"), folder / "default.yaml"
    file.write_text(POLICY + "accept: {cascade: false}   # mine\n")
    with closing(open_store(settings, [policy()])) as store:
        for record in Recorded().records():
            store.append(record)
    monkeypatch.setenv("LOCUM_HOME", str(settings.home))
    app = typer.Typer()
    app.command("replay")(replay)
    app.command("tune")(tune)
    return lambda name, *args: CliRunner().invoke(app, [name, "--policy", str(file), *args], env={"COLUMNS": "100"})

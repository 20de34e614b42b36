"""What a threshold's evidence says of the share, and how an incumbent's is judged by today's rows."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from distiller.rounds.tuning import retuned, share_of
from router.contracts.bundles import Evidence, Thresholds
from router.policy.policy import Policy
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.statistics.risk import most_failures
from router.scoring.text.features import extract


def policy(objective: dict[str, Any]) -> Policy:
    return Policy.model_validate(
        {
            "name": "default",
            "student": {"model": "s", "engine": "embedded", "usd_per_million": {"input": 1, "output": 1}},
            "teacher": {"model": "t", "url": "http://t/v1", "usd_per_million": {"input": 9, "output": 9}},
            "objective": objective,
        }
    )


def examples(n: int, seed: int) -> list[Example]:
    rng = np.random.default_rng(seed)
    found = []
    for easy in (rng.uniform(size=n) < 0.7).tolist():
        text = f"{'greet' if easy else 'prove'} number {rng.integers(999)}"
        good = bool(rng.uniform() < (0.99 if easy else 0.3))
        found.append(Example(extract({"messages": [{"role": "user", "content": text}]}), None, good))
    return found


OLD = Evidence(
    target=0.95, confidence=0.95, examples=200, served=50, unacceptable=1, risk_bound=0.03, method="Clopper-Pearson"
)


def test_the_share_is_by_weight_where_known_and_by_count_in_older_bundles() -> None:
    floor = policy({"parity": {}})
    assert share_of(Thresholds(route=0.5, accept=0, evidence=OLD), floor) == 0.25
    weighted = OLD.model_copy(update={"share": 0.4})
    assert share_of(Thresholds(route=0.5, accept=0, evidence=weighted), floor) == 0.4
    assert share_of(Thresholds(route=0.5, accept=0), floor) == 0
    assert share_of(Thresholds(route=0.5, accept=0, evidence=OLD), policy({"student_share": 0.7})) == 0.7


@pytest.mark.parametrize("over", [None, 500, 5000])
def test_an_incumbent_is_certified_anew_over_the_policys_horizon(over: int | None) -> None:
    scorer = Scorer.fit(examples(300, 0), None)
    found = retuned(
        scorer, Thresholds(route=0.9, accept=0), examples(1500, 1), policy({"parity": {"over_requests": over}})
    )
    assert found.evidence is not None and found.evidence.over == over
    assert found.evidence.unacceptable <= most_failures(1500, 0.05, 0.95, over)
    assert found.evidence.served > 500


def test_other_objectives_keep_their_thresholds_and_are_measured_by_weight() -> None:
    scorer, rows = Scorer.fit(examples(300, 0), None), examples(400, 1)
    heavy = [replace(e, weight=1.0 if "greet" in e.features.last_user else 5.0) for e in rows]
    given = Thresholds(route=0.6, accept=0)
    plain, weighted = (retuned(scorer, given, part, policy({"threshold": 0.6})) for part in (rows, heavy))
    assert (plain.route, weighted.route) == (0.6, 0.6)
    assert share_of(weighted, policy({"threshold": 0.6})) < share_of(plain, policy({"threshold": 0.6})) - 0.2

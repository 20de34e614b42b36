"""What a threshold's evidence says of the share, and how an incumbent's is judged by today's rows."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from distiller.rounds.tuning import retuned, share_of
from router.contracts.bundles import Evidence, Thresholds
from router.policy.policy import Policy, UnfitFor
from router.routing.decision import proves_tools
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


TOOL = {"type": "function", "function": {"name": "f"}}


def with_tools(n: int, good: float, seed: int) -> list[Example]:
    """Requests with tools, right so often, whatever they say."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        messages = [{"role": "user", "content": f"greet number {rng.integers(999)}"}]
        features = extract({"messages": messages, "tools": [TOOL]})
        found.append(Example(features, None, bool(rng.uniform() < good)))
    return found


def declared(told: bool | None) -> Policy:
    floor = policy({"parity": {}})
    student = floor.student.model_copy(update={"unfit_for": UnfitFor(tools=told)})
    return floor.model_copy(update={"student": student})


def test_requests_with_tools_are_certified_apart_and_cost_the_others_nothing() -> None:
    plain = examples(1500, 1)
    scorer = Scorer.fit([*examples(300, 0), *with_tools(100, 0.97, 2)], None)
    start = Thresholds(route=0.9, accept=0)
    alone = retuned(scorer, start, plain, declared(None))
    assert alone.tools is None
    good = retuned(scorer, start, [*plain, *with_tools(400, 1.0, 3)], declared(None))
    assert good.tools is not None and proves_tools(declared(None), good.tools) and good.tools.examples == 400
    bad = retuned(scorer, start, [*plain, *with_tools(400, 0.5, 4)], declared(None))
    assert bad.tools is not None and not proves_tools(declared(None), bad.tools)
    assert bad.model_copy(update={"tools": None}) == alone
    few = retuned(scorer, start, [*plain, *with_tools(40, 1.0, 5)], declared(None))
    assert few.tools is not None and not proves_tools(declared(None), few.tools), "too few to prove anything"


def test_a_policy_that_says_its_student_is_fit_has_them_certified_with_the_rest() -> None:
    scorer = Scorer.fit([*examples(300, 0), *with_tools(100, 0.97, 2)], None)
    rows = [*examples(1500, 1), *with_tools(400, 0.5, 4)]
    found = retuned(scorer, Thresholds(route=0.9, accept=0), rows, declared(False))
    assert found.evidence is not None and found.evidence.examples == len(rows)

"""What a threshold's evidence says of the share, and how an incumbent's is judged by today's rows."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from distiller.rounds.tuning import ScoredSample, retuned, share_of, tuned
from router.contracts.bundles import NEVER, Evidence, Thresholds
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


def declared(told: bool | None, **parity: Any) -> Policy:
    floor = policy({"parity": parity})
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
    assert (bad.route, bad.accept) == (alone.route, alone.accept) == (good.route, good.accept)
    assert alone.evidence and bad.evidence and good.evidence
    assert bad.evidence.model_copy(update={"share": alone.evidence.share}) == alone.evidence
    assert share_of(bad, declared(None)) == pytest.approx(share_of(alone, declared(None)) * 1500 / 1900)
    assert (good.evidence.examples, good.evidence.over) == (1900, alone.evidence.over)
    few = retuned(scorer, start, [*plain, *with_tools(40, 1.0, 5)], declared(None))
    assert few.tools is not None and not proves_tools(declared(None), few.tools), "too few to prove anything"


def test_a_policy_that_says_its_student_is_fit_has_them_certified_with_the_rest() -> None:
    scorer = Scorer.fit([*examples(300, 0), *with_tools(100, 0.97, 2)], None)
    rows = [*examples(1500, 1), *with_tools(400, 0.5, 4)]
    found = retuned(scorer, Thresholds(route=0.9, accept=0), rows, declared(False))
    assert found.evidence is not None and found.evidence.examples == len(rows)


def alike(wrong: int, tools: int, others: int) -> ScoredSample:
    """One score for all, and so many wrong among those with tools."""
    n = tools + others
    scores, has_tools = np.full(n, 0.9), np.arange(n) < tools
    return ScoredSample(scores, scores, None, np.arange(n) >= wrong, np.ones(n), has_tools)


def test_where_nearly_all_have_tools_nothing_is_certified_before_they_are_proven() -> None:
    """9 of 320 pass the exact test, 9 of 300 do not, 8 of 300 do."""
    nobody, floor = Scorer.fit([], None), declared(None, over_requests=None)
    known = np.zeros(0, np.bool_)
    good = tuned(nobody, known, alike(8, 300, 20), floor)
    assert good.route <= 0.9 and proves_tools(floor, good.tools) and share_of(good, floor) == 1
    bad = tuned(nobody, known, alike(9, 300, 20), floor)
    assert (bad.route, bad.accept, share_of(bad, floor)) == (NEVER, NEVER, 0)
    assert bad.tools is not None and not proves_tools(floor, bad.tools)


@pytest.mark.parametrize("risk", [(0.05, 0.0), (0.0, 0.05), (0.05, 0.05)])
def test_both_promises_together_are_broken_no_more_often_than_stated(risk: tuple[float, float]) -> None:
    """One score for all, so that a threshold lets in all or nothing; each kind's risk lies on the line or at 0."""
    rng, broken, draws, floor = np.random.default_rng(7), 0, 400, declared(None, over_requests=None)
    tools = np.arange(500) >= 300
    for _ in range(draws):
        acceptable = rng.uniform(size=500) >= np.where(tools, risk[1], risk[0])
        sample = ScoredSample(np.full(500, 0.9), np.full(500, 0.9), None, acceptable, np.ones(500), tools)
        found = tuned(Scorer.fit([], None), np.zeros(0, np.bool_), sample, floor)
        lets_in = found.route <= 0.9
        broken += lets_in and (risk[0] > 0 or (risk[1] > 0 and proves_tools(floor, found.tools)))
    assert broken <= binom.ppf(0.999, draws, 0.05)

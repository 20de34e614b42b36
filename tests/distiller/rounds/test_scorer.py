from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from distiller.rounds.scorer import LEAST_DEV, fit_bundle_scorer, parted
from router.contracts.bundles import NEVER
from router.policy.policy import Policy
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.signals import summarise
from router.scoring.statistics.shift import ALPHA, BLOCK, Shifts, Spread
from router.scoring.text.features import extract

TOPICS = ["card", "fee", "transfer", "limit", "integral", "patent", "theorem", "lawsuit"]


def policy(
    objective: dict[str, Any], cascade: bool = True, student_price: str = "0.02", routing: bool = True
) -> Policy:
    return Policy.model_validate(
        {
            "name": "default",
            "student": {"model": "s", "engine": "embedded", "usd_per_million": {"input": student_price, "output": "0"}},
            "teacher": {"model": "t", "url": "http://t/v1", "usd_per_million": {"input": "1", "output": "1"}},
            "objective": objective,
            "accept": {"cascade": cascade, "routing": routing},
        }
    )


def examples(n: int, seed: int, good: float = 0.99, signals: bool = True) -> list[Example]:
    """The student can do the first four topics; it hesitates where it is wrong."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(n):
        topic = int(rng.integers(len(TOPICS)))
        acceptable = bool(rng.uniform() < (good if topic < 4 else 0.3))
        p = rng.beta(20, 1, 10) if acceptable else rng.beta(4, 2, 10)
        seen = summarise(np.log(p).tolist(), complete=True) if signals else None
        text = f"tell me of {TOPICS[topic]} number {rng.integers(999)}"
        found.append(Example(extract({"messages": [{"role": "user", "content": text}]}), seen, acceptable))
    return found


PARITY = {"parity": {"at_least": 0.95, "confidence": 0.95}}


def test_parity_is_certified_on_the_holdout_and_holds_on_fresh_traffic() -> None:
    scorer, thresholds, report = fit_bundle_scorer(examples(300, 0), examples(400, 1), policy(PARITY), None)
    assert thresholds.evidence is not None and thresholds.evidence.risk_bound <= 0.05
    assert thresholds.evidence.examples == report["certified_on"] == 400 and report["fitted_on"] == 300
    fresh, wrong, served = examples(1000, 2), 0, 0
    for e in fresh:
        score = scorer.score(e.features)
        out = score >= thresholds.route and scorer.accept(score, e.signals) >= thresholds.accept
        served, wrong = served + out, wrong + (out and not e.acceptable)
    assert wrong / 1000 <= 0.05 and served / 1000 > 0.5
    assert served / 1000 == pytest.approx(report["student_share"], abs=0.1)
    assert report["holdout"]["auroc_accept"] > report["holdout"]["auroc_route"] > 0.6
    assert report["holdout"]["ece"] < 0.1


def test_without_the_second_look_the_route_is_what_is_certified() -> None:
    for cascade, signals in ((False, True), (True, False)):
        data = examples(300, 0, signals=signals), examples(400, 1, signals=signals)
        _, thresholds, report = fit_bundle_scorer(*data, policy(PARITY, cascade), None)
        assert thresholds.accept == 0 and 0 < thresholds.route < 1
        assert 0.2 < report["student_share"] < 0.7


def test_the_cascade_alone_is_certified_for_asking_the_student_always() -> None:
    data = examples(300, 0), examples(400, 1)
    dear = fit_bundle_scorer(*data, policy(PARITY, student_price="0.9"), None)[1]
    alone = fit_bundle_scorer(*data, policy(PARITY, student_price="0.9", routing=False), None)[1]
    assert dear.route > alone.route == 0
    assert 0 < alone.accept < 1 and alone.evidence is not None and alone.evidence.risk_bound <= 0.05
    assert fit_bundle_scorer(*data, policy({"threshold": 0.6}, routing=False), None)[1].route == 0
    assert fit_bundle_scorer(*data, policy({"usd_per_day": 5}, routing=False), None)[1].route == 0


def test_what_clients_stream_is_certified_by_its_beginning() -> None:
    """The beginnings of these answers tell nothing: a stream's threshold must not rest on what comes later."""

    def begun(data: list[Example], streamed: bool) -> list[Example]:
        blank = summarise([-0.01] * 4, complete=False)
        seen = [replace(e.signals, held=blank) for e in data if e.signals is not None]
        return [replace(e, signals=s, streamed=streamed) for e, s in zip(data, seen, strict=True)]

    shares = []
    for streamed in (False, True):
        data = begun(examples(300, 0), streamed), begun(examples(400, 1), streamed)
        shares.append(fit_bundle_scorer(*data, policy(PARITY), None)[2]["student_share"])
    assert shares[0] > shares[1] + 0.1


def test_a_dear_student_is_asked_less() -> None:
    data = examples(300, 0), examples(400, 1)
    cheap = fit_bundle_scorer(*data, policy(PARITY), None)[1]
    dear = fit_bundle_scorer(*data, policy(PARITY, student_price="1.3"), None)[1]
    assert dear.route > cheap.route


def test_a_thin_dev_set_borrows_a_third_of_the_holdout_and_no_example_does_both() -> None:
    _, thresholds, report = fit_bundle_scorer(examples(LEAST_DEV - 1, 0), examples(300, 1), policy(PARITY), None)
    assert report["borrowed_from_holdout"] == pytest.approx(100, abs=25)
    assert report["borrowed_from_holdout"] + report["certified_on"] == 300
    assert thresholds.evidence is not None and thresholds.evidence.examples == report["certified_on"]


@pytest.mark.parametrize(("dev", "holdout"), [(0, 0), (0, 20), (300, 20)])
def test_without_enough_evidence_the_student_never_serves(dev: int, holdout: int) -> None:
    _, thresholds, report = fit_bundle_scorer(examples(dev, 0), examples(holdout, 1), policy(PARITY), None)
    assert thresholds.route == thresholds.accept == NEVER and report["student_share"] == 0


def test_a_bad_student_never_serves() -> None:
    bad = [Example(e.features, e.signals, False) for e in examples(300, 0)]
    assert fit_bundle_scorer(bad, bad, policy(PARITY), None)[1].route == NEVER


def test_other_objectives_get_a_start_and_are_measured() -> None:
    data = examples(300, 0), examples(300, 1)
    share = fit_bundle_scorer(*data, policy({"student_share": 0.3}), None)
    assert share[1].accept == 0 and share[2]["student_share"] == pytest.approx(0.3, abs=0.1)
    declared = fit_bundle_scorer(*data, policy({"threshold": 0.62}), None)[1]
    assert (declared.route, declared.accept) == (0.62, 0.62) and declared.evidence is not None
    budget = fit_bundle_scorer(*data, policy({"usd_per_day": "5"}), None)[1]
    assert (budget.route, budget.accept) == (0.5, 0.0)
    assert fit_bundle_scorer(*data, policy({"student_share": 0.0}), None)[1].route == NEVER


def test_a_weighted_holdout_certifies_for_the_traffic_that_it_stands_for() -> None:
    holdout = [replace(e, weight=1.0 if e.acceptable else 4.0) for e in examples(400, 1)]
    fitting = examples(300, 0)
    plain, weighted = (fit_bundle_scorer(fitting, rows, policy(PARITY), None) for rows in (examples(400, 1), holdout))
    assert weighted[2]["student_share"] < plain[2]["student_share"]
    assert weighted[1].evidence is not None and weighted[1].evidence.examples <= 400
    assert weighted[1].evidence.risk_bound <= 0.05


def shifted(reference: Spread, scorer: Scorer, traffic: list[Example]) -> list[bool]:
    """Block by block of simulated traffic."""
    shifts, found = Shifts(reference), []
    for n, example in enumerate(traffic, 1):
        shifts.add(scorer.score(example.features))
        if n % BLOCK == 0:
            assert shifts.last is not None
            found.append(shifts.last.shifted)
    return found


def test_the_scores_of_what_certified_are_those_of_the_same_traffic_and_not_of_another() -> None:
    false_alarms, streams = 0, 8
    for seed in range(streams):
        dev, holdout = examples(LEAST_DEV - 20, 10 * seed), examples(600, 10 * seed + 1)
        scorer, _, report = fit_bundle_scorer(dev, holdout, policy(PARITY), None)
        _, certifying = parted(dev, holdout)
        assert len(certifying) == report["certified_on"] < len(holdout)
        reference = Spread.of(scorer.score(e.features) for e in certifying)
        false_alarms += any(shifted(reference, scorer, examples(3 * BLOCK, 10 * seed + 2)))
        hard = [e for e in examples(3 * BLOCK, 10 * seed + 3) if not e.acceptable]
        assert all(shifted(reference, scorer, hard[:BLOCK]))
    assert false_alarms / streams <= ALPHA

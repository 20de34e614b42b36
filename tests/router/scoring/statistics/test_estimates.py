"""Estimates from audits: right on average, and inside their intervals as often as they say."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from router.scoring.statistics.estimates import FIGURES, AuditSample, exact_interval, figures, weighted_rate

Rng = np.random.Generator


def logged(rng: Rng, n: int = 3000, rate: float = 0.05, skill: float = 1.0, threshold: float = 0.6) -> AuditSample:
    """A stream routed at ``threshold``: P(acceptable) is the score if ``skill`` is 1, unrelated to it if 0."""
    score = rng.beta(4, 1.5, n)
    acceptable = rng.random(n) < skill * score + (1 - skill) * 0.7
    served = (score >= threshold).astype(float)
    teacher = rng.lognormal(-4, 0.5, n)
    student = teacher / 20
    audited = rng.random(n) < rate
    cost = np.where(served > 0, student, teacher)
    guessed = np.where(served > 0, np.exp(-4 + 0.125), teacher)  # what is known: the tier that served
    return AuditSample(
        served=served,
        guess_served=served,
        bad=(~acceptable).astype(float),
        guess_bad=1 - score,
        cost=cost,
        guess_cost=cost,
        alone=teacher,
        guess_alone=guessed,
        noise=np.zeros(n),
        audited=audited,
        propensity=np.full(n, rate),
    )


def truth(sample: AuditSample) -> dict[str, float]:
    lost = float((sample.served * sample.bad).mean())
    share, cost, alone = (float(x.mean()) for x in (sample.served, sample.cost, sample.alone))
    return {
        "share": share,
        "parity": 1 - lost,
        "risk": lost / share,
        "cost": cost,
        "alone": alone,
        "saving": alone - cost,
        "saved_share": 1 - cost / alone,
        "cost_per_resolved": cost / (1 - lost),
    }


def coverage(make: Callable[[Rng], AuditSample], *, robust: bool, times: int = 300) -> dict[str, float]:
    rng = np.random.default_rng(3)
    population = truth(make_large(make))
    inside = dict.fromkeys(FIGURES, 0)
    for _ in range(times):
        found = figures(make(rng), robust=robust)
        for name in FIGURES:
            inside[name] += found[name].holds(population[name])
    return {name: count / times for name, count in inside.items()}


def make_large(make: Callable[..., AuditSample]) -> AuditSample:
    return make(np.random.default_rng(0), n=400_000)


@pytest.mark.parametrize("robust", [True, False])
@pytest.mark.parametrize("skill", [1.0, 0.0])
def test_the_truth_lies_inside_as_often_as_said_whatever_the_scorer_is_worth(robust: bool, skill: float) -> None:
    def make(rng: Rng, n: int = 3000) -> AuditSample:
        return logged(rng, n, skill=skill)

    for name, share in coverage(make, robust=robust).items():
        assert share >= 0.92, name


@pytest.mark.parametrize("robust", [True, False])
def test_a_dozen_audits_with_hardly_a_failure_are_not_believed_too_much(robust: bool) -> None:
    def make(rng: Rng, n: int = 240) -> AuditSample:
        return logged(rng, n, threshold=0.85)  # about 12 audits, of which 5 were served

    found = coverage(make, robust=robust)
    assert found["parity"] >= 0.94 and found["risk"] >= 0.94


def test_what_the_next_requests_give_lies_inside_their_interval() -> None:
    rng, inside, times = np.random.default_rng(5), dict.fromkeys(FIGURES, 0), 300
    for _ in range(times):
        told, given = figures(logged(rng), ahead=500), truth(logged(rng, 500))
        for name in FIGURES:
            inside[name] += told[name].holds(given[name])
    assert {name: n for name, n in inside.items() if n / times < 0.92} == {}


def test_a_good_guess_makes_the_interval_narrower_and_a_bad_one_no_wrong_estimate() -> None:
    rng = np.random.default_rng(1)
    robust, plain, errors = [], [], []
    for _ in range(60):
        sample = logged(rng, rate=0.2)
        by_guess, by_audits = figures(sample), figures(sample, robust=False)
        robust.append(by_guess["share"].high - by_guess["share"].low)
        plain.append(by_audits["share"].high - by_audits["share"].low)
        wrong = figures(logged(rng, rate=0.2, skill=0.0))["risk"]
        assert wrong.estimate is not None
        errors.append(wrong.estimate - 0.3)
    assert np.mean(robust) < 0.6 * np.mean(plain)
    assert abs(np.mean(errors)) < 0.01


def test_a_guess_that_is_lopsided_for_the_cascade_is_corrected() -> None:
    rng, errors = np.random.default_rng(2), []
    for _ in range(100):
        sample = logged(rng, rate=0.2)
        leaves = rng.random(len(sample.served)) < 0.5  # the model thinks that nine in ten do
        cascade = AuditSample(**{f: getattr(sample, f) for f in AuditSample.__slots__} | {
            "served": sample.served * leaves, "guess_served": sample.served * 0.9,
        })  # fmt: skip
        found, true = figures(cascade), truth(cascade)
        assert found["share"].estimate is not None and found["risk"].estimate is not None
        errors.append((found["share"].estimate - true["share"], found["risk"].estimate - true["risk"]))
    assert np.abs(np.mean(errors, axis=0)).max() < 0.01


def test_without_an_audit_share_is_known_and_quality_is_not() -> None:
    sample = logged(np.random.default_rng(0), rate=0.0)
    found = figures(sample)
    assert found["share"].estimate == pytest.approx(sample.served.mean())
    assert found["risk"].estimate is None and found["parity"].estimate is None
    assert found["parity"].low == pytest.approx(1 - found["share"].high)


def test_a_policy_that_never_asks_the_student_has_full_parity() -> None:
    found = figures(logged(np.random.default_rng(0), threshold=2.0))
    assert (found["parity"].estimate, found["parity"].low, found["share"].estimate) == (1.0, 1.0, 0.0)


def test_the_exact_interval_is_clopper_and_pearsons() -> None:
    expected = stats.binomtest(7, 50).proportion_ci(0.95, "exact")
    assert exact_interval(0.14, 50) == pytest.approx((expected.low, expected.high))
    assert exact_interval(0.0, 0) == (0.0, 1.0)
    assert exact_interval(1.0, 20)[1] == 1.0


def test_audits_of_two_rates_count_for_what_they_stand_for() -> None:
    found = weighted_rate([False] * 200 + [True] * 10 + [False] * 10, [0.2] * 200 + [0.02] * 20)
    assert found.estimate == pytest.approx(0.25)
    assert (found.low, found.high) == pytest.approx(exact_interval(0.25, 2000**2 / 55_000))  # 73 audits, not 220
    assert weighted_rate([], []).estimate is None

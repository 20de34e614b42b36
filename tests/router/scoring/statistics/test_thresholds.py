import numpy as np
import pytest

from router.contracts.bundles import NEVER
from router.scoring.statistics.risk import break_probability, most_failures
from router.scoring.statistics.thresholds import Pace, ShareThreshold, fixed_grid, for_parity

TARGET, CONFIDENCE = 0.95, 0.95
TWO_ERRORS = 0.022
"""Two standard errors of a rate of 0.05 over 400 trials."""


def traffic(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Scores that are true probabilities, and outcomes drawn by them."""
    scores = rng.beta(4, 1.2, n)
    return scores, rng.uniform(size=n) < scores


def lost(threshold: float, scores: np.ndarray, acceptable: np.ndarray) -> float:
    return float(((scores >= threshold) & ~acceptable).mean())


def test_in_the_long_run_the_floor_breaks_no_more_often_than_promised_and_a_point_estimate_half_the_time() -> None:
    rng = np.random.default_rng(0)
    scores, acceptable = traffic(100_000, rng)  # the population, so that true risks are known
    certified, pointwise, shares = 0, 0, []
    for _ in range(400):
        sample = rng.integers(0, len(scores), 500)
        s, good = scores[sample], acceptable[sample]
        found = for_parity(s, None, good, TARGET, CONFIDENCE)
        certified += lost(found.route, scores, acceptable) > 1 - TARGET
        shares.append(float((scores >= found.route).mean()))
        pointwise += lost(np.sort(s[~good])[::-1][25], scores, acceptable) > 1 - TARGET
    assert certified / 400 <= 1 - CONFIDENCE + TWO_ERRORS
    assert pointwise / 400 > 0.35
    assert np.mean(shares) > 0.3  # and it is no empty promise


@pytest.mark.parametrize("over", [300, 1000])
def test_over_the_next_requests_the_floor_breaks_as_often_as_promised_and_the_long_runs_more_often(over: int) -> None:
    rng, broken = np.random.default_rng(1), np.zeros(2)
    for _ in range(400):
        s, good = traffic(500, rng)
        fresh = traffic(over, rng)
        found = [for_parity(s, None, good, TARGET, CONFIDENCE, over=horizon) for horizon in (over, None)]
        broken += [lost(f.route, *fresh) > 1 - TARGET + 1e-9 for f in found]
    promised = break_probability(most_failures(500, 1 - TARGET, CONFIDENCE, over), 500, 1 - TARGET, over)
    assert broken[0] / 400 == pytest.approx(promised, abs=TWO_ERRORS) and promised <= 1 - CONFIDENCE
    assert broken[1] > broken[0]


def test_the_floor_holds_where_scores_are_coarse_and_where_they_tell_nothing() -> None:
    rng, broken = np.random.default_rng(2), np.zeros(2)
    for _ in range(400):
        s, good = traffic(800, rng)
        for i, scores in enumerate((np.round(s, 1), rng.uniform(size=800))):
            found = for_parity(scores[:400], None, good[:400], TARGET, CONFIDENCE, over=400)
            broken[i] += lost(found.route, scores[400:], good[400:]) > 1 - TARGET + 1e-9
    assert (broken / 400 <= 1 - CONFIDENCE + TWO_ERRORS).all()


def test_just_so_many_failures_are_let_in_as_the_bound_allows() -> None:
    s, good = traffic(2000, np.random.default_rng(3))
    for over in (None, 1000):
        evidence = for_parity(s, None, good, TARGET, CONFIDENCE, over=over).evidence
        assert evidence is not None and evidence.over == over and evidence.risk_bound <= 0.05
        assert evidence.unacceptable == most_failures(2000, 0.05, CONFIDENCE, over)
        assert evidence.share == pytest.approx(evidence.served / 2000)


def test_too_few_examples_never_serve() -> None:
    found = for_parity([0.9] * 58, None, [True] * 58, TARGET, CONFIDENCE)
    assert found.route == found.accept == NEVER
    assert found.evidence is not None and found.evidence.served == 0
    assert for_parity([0.9] * 59, None, [True] * 59, TARGET, CONFIDENCE).route <= 0.9
    assert for_parity([], None, [], TARGET, CONFIDENCE).route == NEVER


def test_a_hopeless_student_never_serves() -> None:
    found = for_parity([0.9995] * 500, [0.9995] * 500, [False] * 500, TARGET, CONFIDENCE)
    assert found.route == found.accept == NEVER


def test_a_student_without_fault_serves_whatever_it_is_asked() -> None:
    assert for_parity([0.2] * 100, None, [True] * 100, TARGET, CONFIDENCE, over=1000).route == 0.0


def test_the_accept_threshold_is_certified_given_the_route() -> None:
    rng = np.random.default_rng(1)
    route, acceptable = traffic(2000, rng)
    accept = np.clip(route + rng.normal(0, 0.05, 2000) + np.where(acceptable, 0.1, -0.4), 0, 1)
    one = for_parity(route, None, acceptable, TARGET, CONFIDENCE)
    two = for_parity(route, accept, acceptable, TARGET, CONFIDENCE, route=0.3)
    assert two.route == 0.3 and one.evidence is not None and two.evidence is not None
    assert two.evidence.served > one.evidence.served  # the second look is worth it
    served = (route >= 0.3) & (accept >= two.accept)
    assert two.evidence.served == served.sum() and two.evidence.unacceptable == (served & ~acceptable).sum()


RARE_AND_HEAVY = np.array([1.0, 20.0]), np.array([0.99, 0.01])
HALF_AND_HALF = np.array([1.0, 0.25]), np.array([0.5, 0.5])


@pytest.mark.parametrize(("kinds", "method"), [(RARE_AND_HEAVY, "betting"), (HALF_AND_HALF, "exact")])
def test_weighted_samples_keep_the_floor_of_the_traffic_they_stand_for(
    kinds: tuple[np.ndarray, np.ndarray], method: str
) -> None:
    """Heavy requests are harder, so that who ignores weights breaks the floor."""
    rng, broken, naive, shares = np.random.default_rng(4), 0, 0, []
    weights, drawn = kinds
    stood_for = drawn * weights / (drawn * weights).sum()

    def requests(n: int, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        weight = rng.choice(weights, n, p=shares)
        scores = rng.beta(4, 1.2, n)
        hard = np.where(weight == weights.max(), 0.8, 1.1)
        return scores, rng.uniform(size=n) < np.minimum(scores * hard, 1), weight

    population = requests(200_000, stood_for)[:2]
    for _ in range(200):
        s, good, weight = requests(1500, drawn)
        found = for_parity(s, None, good, TARGET, CONFIDENCE, weights=weight)
        broken += lost(found.route, *population) > 1 - TARGET
        naive += lost(for_parity(s, None, good, TARGET, CONFIDENCE).route, *population) > 1 - TARGET
        assert found.evidence is not None and method in found.evidence.method
        shares.append(float((population[0] >= found.route).mean()))
    assert broken / 200 <= 1 - CONFIDENCE + 0.031
    assert naive / 200 > 0.5
    assert np.mean(shares) > 0.1


def test_equal_weights_are_no_weights() -> None:
    s, good = traffic(500, np.random.default_rng(5))
    one, two = (for_parity(s, None, good, TARGET, CONFIDENCE, weights=w) for w in (None, np.full(500, 7.0)))
    assert one == two


def test_grids_fall_to_zero() -> None:
    grid = fixed_grid()
    assert (np.diff(grid) < 0).all() and grid[-1] == 0 and len(grid) >= 200


@pytest.mark.parametrize("share", [0.0, 0.2, 0.8, 1.0])
def test_a_declared_share_is_kept_while_traffic_drifts(share: float) -> None:
    rng, tracker = np.random.default_rng(0), ShareThreshold(window=500)
    served = []
    for i in range(6000):
        score = float(rng.beta(2 + i / 1000, 3))
        served.append(score >= tracker.threshold(share))
        tracker.observe(score)
    assert np.mean(served[:200]) == pytest.approx(share, abs=0.12)
    assert np.mean(served[1000:]) == pytest.approx(share, abs=0.03)


def test_a_share_is_kept_when_all_scores_are_equal() -> None:
    tracker, served = ShareThreshold(), []
    for _ in range(1000):
        served.append(tracker.threshold(0.8) <= 0.5)
        tracker.observe(0.5)
    assert np.mean(served[200:]) == pytest.approx(0.8, abs=0.01)


def test_before_any_traffic_the_priors_quantile_stands() -> None:
    tracker = ShareThreshold(prior=[0.1, 0.2, 0.3, 0.4, 0.5])
    assert tracker.threshold(0.4) == pytest.approx(0.4)
    assert ShareThreshold(prior=[0.1, 0.2]).threshold(0.0) == NEVER


DAY = 86_400.0


def a_day(cap: float, arrivals: np.ndarray, rng: np.random.Generator, forced: float = 0.0) -> tuple[np.ndarray, ...]:
    """One day's requests, paced by what is left: (score, went to the teacher, dollars), (n,) each."""
    pace, tracker, spent, rows = Pace(), ShareThreshold(), 0.0, []
    for at in arrivals.tolist():
        score, price, must = float(rng.uniform()), float(rng.exponential(0.01)), bool(rng.uniform() < forced)
        pace.observe(at)
        tracker.observe(score)
        share = pace.student_share(cap - spent, DAY - at)
        escalated = spent < cap and (must or score < tracker.threshold(share))
        usd = price if escalated else 0.0
        pace.learn(usd, by_score=not must, escalated=escalated)
        spent += usd
        rows.append((score, escalated, usd))
    scores, escalated_, usd_ = zip(*rows, strict=True)
    return np.array(scores), np.array(escalated_), np.array(usd_)


@pytest.mark.parametrize("forced", [0.0, 0.1])
def test_money_lasts_the_day_evenly_and_goes_to_the_hardest(forced: float) -> None:
    rng = np.random.default_rng(6)
    arrivals = np.sort(rng.uniform(0, DAY, 6000))
    scores, escalated, usd = a_day(18.0, arrivals, rng, forced)  # all 6,000 would cost 60
    assert usd.sum() == pytest.approx(18.0, rel=0.02)
    quarters = [usd[(arrivals >= q * DAY / 4) & (arrivals < (q + 1) * DAY / 4)].sum() for q in range(4)]
    assert quarters == pytest.approx([4.5] * 4, rel=0.15)
    late = (arrivals > DAY / 4) & (arrivals < 0.95 * DAY)  # it has learned what answers cost
    assert escalated[late & (scores < 0.1)].mean() > 0.99
    assert escalated[late & (scores > 0.5)].mean() < forced + 0.03


def test_a_rush_is_paid_for_by_a_stricter_choice_not_by_the_evening() -> None:
    rng = np.random.default_rng(7)
    calm, rush = rng.uniform(0, DAY, 3000), rng.uniform(DAY / 4, DAY / 3, 6000)
    arrivals = np.sort(np.concatenate([calm, rush]))
    _, escalated, usd = a_day(15.0, arrivals, rng)
    evening = arrivals > 0.75 * DAY
    in_rush = (arrivals > DAY / 4) & (arrivals < DAY / 3)
    assert usd.sum() <= 15.1
    assert usd[evening].sum() > 15 / 4 * 0.8
    assert escalated[in_rush].mean() < escalated[evening].mean() / 3


def test_money_for_all_sends_all_and_none_sends_none() -> None:
    rng = np.random.default_rng(8)
    arrivals = np.sort(rng.uniform(0, DAY, 500))
    assert a_day(1e6, arrivals, rng)[1][100:].all()
    pace = Pace()
    pace.observe(0.0)
    pace.learn(0.01, by_score=True, escalated=True)
    assert pace.student_share(0.0, DAY) == 1.0


def test_the_teacher_answers_until_it_is_known_what_that_costs() -> None:
    pace = Pace()
    pace.observe(0.0)
    pace.learn(0.0, by_score=True, escalated=False)
    assert pace.student_share(5.0, DAY) == 0.0

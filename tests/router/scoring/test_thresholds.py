import numpy as np
import pytest

from router.scoring.thresholds import NEVER, ShareThreshold, fixed_grid, for_parity, grid_of

TARGET, CONFIDENCE = 0.95, 0.95


def traffic(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Scores that are true probabilities, and outcomes drawn by them."""
    scores = rng.beta(4, 1.2, n)
    return scores, rng.uniform(size=n) < scores


def test_the_floor_breaks_no_more_often_than_promised_and_a_point_estimate_breaks_half_the_time() -> None:
    rng = np.random.default_rng(0)
    scores, acceptable = traffic(400_000, rng)  # the population, so that true risks are known
    order = np.argsort(-scores)
    risk = np.cumsum(~acceptable[order]) / len(scores)  # of serving the k best
    descending = scores[order]

    def true_risk(threshold: float) -> float:
        served = int(np.searchsorted(-descending, -threshold, side="right"))
        return float(risk[served - 1]) if served else 0.0

    certified, pointwise, shares = 0, 0, []
    for _ in range(400):
        sample = rng.integers(0, len(scores), 500)
        found = for_parity(scores[sample], None, acceptable[sample], TARGET, CONFIDENCE)
        certified += true_risk(found.route) > 1 - TARGET
        shares.append(float((scores >= found.route).mean()))
        s, bad = scores[sample], ~acceptable[sample]
        best = np.argsort(-s)
        fits = np.flatnonzero(np.cumsum(bad[best]) <= (1 - TARGET) * 500)
        pointwise += true_risk(s[best][fits[-1]]) > 1 - TARGET
    assert certified / 400 <= 1 - CONFIDENCE + 0.025  # plus two standard errors of 400 splits
    assert pointwise / 400 > 0.35
    assert np.mean(shares) > 0.3  # and it is no empty promise


def test_testing_stops_at_the_first_failure_though_a_looser_one_would_pass_by_luck() -> None:
    scores = np.linspace(1, 0, 1000)
    acceptable = np.ones(1000, bool)
    acceptable[100:140] = False  # crosses the bound here
    found = for_parity(scores, None, acceptable, TARGET, CONFIDENCE)
    assert found.evidence is not None
    assert 100 <= found.evidence.served < 140 and found.evidence.risk_bound <= 0.05
    assert found.evidence.examples == 1000 and found.accept == 0


def test_too_few_examples_never_serve() -> None:
    found = for_parity([0.9] * 58, None, [True] * 58, TARGET, CONFIDENCE)
    assert found.route == found.accept == NEVER
    assert found.evidence is not None and found.evidence.served == 0
    assert for_parity([0.9] * 59, None, [True] * 59, TARGET, CONFIDENCE).route <= 0.9
    assert for_parity([], None, [], TARGET, CONFIDENCE).route == NEVER


def test_a_hopeless_student_never_serves() -> None:
    found = for_parity([0.9995] * 500, [0.9995] * 500, [False] * 500, TARGET, CONFIDENCE)
    assert found.route == found.accept == NEVER


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


def test_grids_fall_to_zero() -> None:
    for grid in (fixed_grid(), grid_of(np.random.default_rng(0).uniform(size=500)), grid_of([])):
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

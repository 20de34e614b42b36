"""The monitor on simulated audits: how seldom it errs, how soon it notices, and how it comes back."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from router.contracts.bundles import NEVER
from router.scoring.statistics.monitor import (
    BETTER,
    WORSE,
    AuditedRequest,
    Gamblers,
    Monitor,
    RunningParity,
    start_share,
)

TARGET, CONFIDENCE = 0.95, 0.95


def monitor(start: float = 0.5, spare: float = 0.0) -> Monitor:
    return Monitor(TARGET, CONFIDENCE, start=start, spare=spare)


def stream(seed: int, risk_at_half: float) -> Callable[[], AuditedRequest]:
    """Final scores uniform on [0, 1], losses the rarer the higher: of all requests, ``risk_at_half`` are lost at
    a threshold of 0.5, and four times that at 0."""
    rng = np.random.default_rng(seed)

    def draw() -> AuditedRequest:
        final = float(rng.random())
        return AuditedRequest(final, bool(rng.random() >= 8 * risk_at_half * (1 - final)))

    return draw


def observe(watched: Monitor, draw: Callable[[], AuditedRequest], audits: int) -> int | None:
    """How many audits there were when the alarm went up; None where it did not."""
    for n in range(1, audits + 1):
        watched.observe(draw())
        if watched.alarm:
            return n
    return None


def settle(watched: Monitor, draw: Callable[[], AuditedRequest], audits: int) -> None:
    for _ in range(audits):
        watched.observe(draw())


def risk(threshold: float, risk_at_half: float) -> float:
    return 4 * risk_at_half * (1 - min(threshold, 1.0)) ** 2


def test_starts_share_out_the_whole_bet_and_no_more() -> None:
    assert math.fsum(start_share(n) for n in range(100_000)) < 1
    assert math.fsum(start_share(n) for n in range(100_000)) == pytest.approx(1, abs=0.07)  # a slow series: 1/log


@pytest.mark.parametrize("odds", [WORSE, BETTER])
@pytest.mark.parametrize("risk", [0.02, 0.05, 0.3])
def test_wealth_against_what_is_true_is_one_on_average(odds: tuple[float, ...], risk: float) -> None:
    """The heart of every promise here: at the null no bet makes money. Over all that ten audits can show."""
    lost = np.array([[n >> k & 1 for n in range(1024)] for k in range(10)], np.bool_)  # (audits, streams)
    gamblers = Gamblers(np.full(1024, risk), odds)
    for audit in lost:
        gamblers.update(audit)
    assert gamblers.wealth @ np.where(lost, risk, 1 - risk).prod(axis=0) == pytest.approx(1.0)


@pytest.mark.parametrize(("odds", "bar"), [(WORSE, 20.0), (BETTER, 20.0)])
def test_peeking_at_every_audit_errs_no_more_often_than_promised(odds: tuple[float, ...], bar: float) -> None:
    rng = np.random.default_rng(5)
    gamblers, crossed = Gamblers(np.full(1000, 0.05), odds), np.zeros(1000, np.bool_)
    for _ in range(1500):
        gamblers.update(rng.random(1000) < 0.05)
        crossed |= gamblers.wealth >= bar
    assert crossed.mean() <= 0.05


@pytest.mark.parametrize("good", [50, 1000])
def test_a_break_is_noticed_soon_even_after_a_long_good_history(good: int) -> None:
    for seed in range(3):
        watched = monitor()
        assert observe(watched, stream(seed, 0.02), good) is None
        delay = observe(watched, stream(seed + 100, 0.2), 400)
        assert delay is not None
        assert delay < 200


def test_an_alarm_closes_the_student_off_and_the_certificates_let_it_in_again() -> None:
    watched = monitor()
    settle(watched, stream(1, 0.02), 300)
    bad = stream(2, 0.15)
    assert observe(watched, bad, 1000) is not None
    assert (watched.alarm, watched.wary, watched.threshold) == (True, True, NEVER)
    settle(watched, bad, 2000)
    assert (watched.alarm, watched.alarms) == (False, 1)
    assert watched.threshold < 0.85
    assert risk(watched.threshold, 0.15) <= 1 - TARGET


def test_what_was_bad_for_long_and_is_good_again_is_let_in() -> None:
    watched = monitor()
    assert observe(watched, stream(1, 0.5), 200) is not None
    settle(watched, lambda: AuditedRequest(0.9, False), 500)
    assert watched.threshold == NEVER
    settle(watched, stream(3, 0.02), 800)
    assert not watched.alarm
    assert risk(watched.threshold, 0.02) <= 1 - TARGET


def test_a_bundle_that_certified_nothing_opens_as_audits_come_in() -> None:
    watched = monitor(start=NEVER)
    settle(watched, stream(4, 0.02), 600)
    assert watched.threshold < 0.7
    assert (watched.alarm, watched.alarms) == (False, 0)
    assert risk(watched.threshold, 0.02) <= 1 - TARGET


def test_a_bundles_threshold_loosens_only_by_the_doubt_that_its_own_certificate_left() -> None:
    spared, spent = monitor(start=0.9, spare=0.01), monitor(start=0.9, spare=0.0)
    for watched in (spared, spent):
        settle(watched, stream(5, 0.02), 600)
    assert spent.threshold == 0.9
    assert spared.threshold < 0.8


def test_no_threshold_that_breaks_the_floor_is_certified_more_often_than_promised() -> None:
    broken = 0
    for seed in range(60):
        watched = monitor(start=NEVER)
        settle(watched, stream(1000 + seed, 0.08), 400)
        broken += risk(watched.threshold, 0.08) > 1 - TARGET
    assert broken <= 0.05 * 60 + 2


def test_a_verdict_missing_where_the_student_served_counts_against_it_but_raises_no_alarm() -> None:
    watched = monitor(start=NEVER)
    for _ in range(500):
        watched.observe(AuditedRequest(0.9, None))
    assert (watched.threshold, watched.alarm) == (NEVER, False)
    assert watched.running.estimate is None


def test_suspicion_asks_for_more_audits_before_there_is_proof() -> None:
    watched = monitor()
    settle(watched, lambda: AuditedRequest(0.9, True), 500)
    assert not watched.wary
    while not watched.wary:
        watched.observe(AuditedRequest(0.9, False))
    assert not watched.alarm
    settle(watched, lambda: AuditedRequest(0.9, True), 100)
    assert not watched.wary


def test_what_is_suspected_is_not_served_by_until_it_is_laid_down() -> None:
    watched = monitor()
    settle(watched, stream(7, 0.02), 300)
    assert watched.threshold == 0.5
    while not watched.wary:
        watched.observe(AuditedRequest(0.6, False))  # what scores above that is as good as it was
    assert (watched.alarm, watched.certified) == (False, 0.5)
    assert 0.6 < watched.threshold < 0.7
    settle(watched, lambda: AuditedRequest(0.6, True), 100)
    assert watched.threshold == 0.5


def test_where_the_strictest_is_suspected_nothing_is_served() -> None:
    watched = monitor()
    while not watched.wary:
        watched.observe(AuditedRequest(1.0, False))
    assert (watched.alarm, watched.threshold) == (False, NEVER)


def test_what_was_suspected_rightly_is_proven_though_it_no_longer_serves() -> None:
    watched = monitor()
    assert observe(watched, lambda: AuditedRequest(0.6, False), 50) is not None
    assert (watched.certified, watched.threshold) == (NEVER, NEVER)


def test_bounds_hold_the_parity_and_cross_when_it_changes() -> None:
    rng = np.random.default_rng(6)
    running = RunningParity(TARGET, CONFIDENCE)
    assert (running.lower, running.estimate, running.upper) == (0.0, None, 1.0)
    for _ in range(1500):
        running.update(bool(rng.random() < 0.03))
    assert 0.94 < running.lower < 0.97 < running.upper < 0.99
    for _ in range(300):
        running.update(bool(rng.random() < 0.25))
    assert running.upper < TARGET

"""What could be promised on the audits that there are, and on more of them."""

from __future__ import annotations

import numpy as np

from distiller.replay.outlook import LITTLE, PromiseOutlook, outlook
from distiller.replay.plans import Way
from distiller.replay.report import certified
from distiller.replay.traffic import Traffic
from router.policy.objective import Parity
from tests.distiller.replay.known_log import Recorded, policy, read


def traffic(recorded: Recorded) -> Traffic:
    return read(recorded.records(), policy(accept={"cascade": False}))


def looked(goal: Parity, n: int = 2000, *, rate: float = 0.2, worse: float = 0.0) -> PromiseOutlook:
    recorded = Recorded(n, rate=rate, seed=3)
    recorded.good &= np.random.default_rng(4).random(n) >= worse
    return outlook(traffic(recorded), Way.ROUTING, goal)


def test_todays_share_is_the_certificates_and_falls_as_the_floor_rises() -> None:
    goal = Parity(at_least=0.9)
    found = looked(goal, 6000)
    evidence = certified(traffic(Recorded(6000, seed=3)), Way.ROUTING, goal).evidence
    assert evidence is not None and found.share == evidence.share > LITTLE
    shares = [found.floors[floor] for floor in sorted(found.floors)]
    assert shares == sorted(shares, reverse=True)
    assert found.highest is not None and found.highest >= 0.9


def test_more_audits_let_more_be_promised_and_no_number_all_of_it() -> None:
    found = looked(Parity(at_least=0.9), 3000)
    later = list(found.later.values())
    assert later == sorted(later)
    assert found.share <= later[-1] <= found.at_most < 1


def test_what_was_promised_to_come_comes() -> None:
    goal, more = Parity(at_least=0.9), 1000
    before, after = Recorded(2500, rate=0.2, seed=3), Recorded(7500, rate=0.2, seed=3)
    expected = outlook(traffic(before), Way.ROUTING, goal).later[more]
    assert abs(outlook(traffic(after), Way.ROUTING, goal).share - expected) < 0.1


def test_a_floor_that_cannot_be_promised_yet_says_how_many_audits_it_takes() -> None:
    found = looked(Parity(at_least=0.98), 1000, rate=0.1)
    assert found.share == 0 and found.needed is not None and found.needed > 0
    assert "audits more to leave it 5%" in found.lines[-1]


def test_a_floor_that_no_number_of_audits_lets_be_promised_asks_for_a_better_student() -> None:
    found = looked(Parity(at_least=0.99), worse=0.6)
    assert found.share < LITTLE and found.needed is None
    assert "takes a better student" in found.lines[-1]


def test_without_any_audit_nothing_is_promised() -> None:
    found = looked(Parity(at_least=0.9), 200, rate=0.0)
    assert (found.share, found.at_most, found.highest) == (0, 0, None)

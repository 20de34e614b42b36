"""What could be promised on the audits that there are, and what more of them would let be promised.

Today's promises are certified as any (``distiller.replay.report.certified``). What more audits would give is a guess:
as if they failed where those failed that there are. Then of n + m audits as many may be lost as the same test lets in,
which of the n is a larger part the more there are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distiller.replay.plans import Way
from distiller.replay.report import certified, final_scores
from distiller.replay.traffic import Traffic
from router.policy.objective import Parity
from router.scoring.statistics.risk import most_failures

FLOORS = (0.99, 0.98, 0.95, 0.9, 0.8)
MORE = (250, 1000, 4000)
LITTLE = 0.05
"""The share that the student must be able to carry for a floor to be worth promising."""
MOST_AUDITS = 1_000_000
FINEST = 0.001


@dataclass(frozen=True, slots=True)
class PromiseOutlook:
    """Shares are the student's of all requests, from 0 to 1.

    Attributes:
        goal: what was asked for.
        share: what it could carry under it today: 0 where no threshold keeps it for certain.
        floors: the same for other floors.
        highest: the highest floor under which it could carry ``LITTLE`` today, None where there is none.
        later: by how many audits more, what it could carry under ``goal`` then.
        at_most: what it could carry however many audits there were.
        needed: how many audits more it takes until it could carry ``LITTLE`` under ``goal``: None where no
            number does.
    """

    goal: Parity
    share: float
    floors: dict[float, float]
    highest: float | None
    later: dict[int, float]
    at_most: float
    needed: int | None

    @property
    def lines(self) -> list[str]:
        wished = f"{self.goal.at_least:.4g}"
        later = ", ".join(f"{share:.0%} with {more:,} audits more" for more, share in self.later.items())
        others = ", ".join(f"{floor:.4g}: {share:.0%}" for floor, share in self.floors.items())
        best = f"{self.highest:.3f}" if self.highest is not None else "none"
        said = [
            f"the student could carry under a floor of {wished}: {self.share:.0%} today; if the next audits are like "
            f"these about {later}; {self.at_most:.0%} however many",
            f"under other floors today: {others}; the highest floor that leaves it {LITTLE:.0%}: {best}",
        ]
        if self.share < LITTLE:
            said.append(
                f"a floor of {wished} takes a better student: no number of audits like these leaves it {LITTLE:.0%}"
                if self.needed is None
                else f"a floor of {wished} takes about {self.needed:,} audits more to leave it {LITTLE:.0%}"
            )
        return said


def outlook(traffic: Traffic, way: Way, goal: Parity) -> PromiseOutlook:
    """What the log's audits let be promised today, at ``goal``'s confidence, and what more would."""

    def share(floor: float) -> float:
        evidence = certified(traffic, way, goal.model_copy(update={"at_least": floor})).evidence
        return (evidence.share or 0.0) if evidence else 0.0

    audited = traffic.audited
    served = _Ranked(final_scores(traffic, way)[audited], traffic.acceptable[audited])
    limit = 1 - goal.at_least
    return PromiseOutlook(
        goal,
        share(goal.at_least),
        {floor: share(floor) for floor in FLOORS if floor != goal.at_least},
        _highest(share),
        {more: served.share(_part(served.audits, more, goal)) for more in MORE},
        served.share(limit),
        _needed(served, goal),
    )


def _highest(share: Callable[[float], float]) -> float | None:
    """To within ``FINEST``; the share only falls as the floor rises."""
    steps = round(1 / FINEST)
    fails = bisect_left(range(1, steps), True, key=lambda step: share(step * FINEST) < LITTLE)
    return fails * FINEST if fails else None


def _part(audits: int, more: int, goal: Parity) -> float:
    """The part of so many audits that may be lost."""
    n = audits + more
    return max(-1, most_failures(n, 1 - goal.at_least, goal.confidence, goal.over_requests)) / max(1, n)


def _needed(served: _Ranked, goal: Parity) -> int | None:
    if served.share(1 - goal.at_least) < LITTLE:
        return None
    steps = [0, *np.unique(np.geomspace(1, MOST_AUDITS, 200).astype(int)).tolist()]
    enough = bisect_left(steps, True, key=lambda m: served.share(_part(served.audits, m, goal)) >= LITTLE)
    return steps[enough] if enough < len(steps) else None


class _Ranked:
    """Audits from the best score down. ``final``: -1 for what never reaches the student; both (n,)."""

    def __init__(self, final: npt.NDArray[np.float64], good: npt.NDArray[np.bool_]) -> None:
        order = np.argsort(-final, kind="stable")
        self.audits = len(final)
        self._reach = int((final >= 0).sum())
        self._wrong = np.flatnonzero(~good[order[: self._reach]])

    def share(self, part: float) -> float:
        """What could be served so that no more than this part of all is lost; nothing where it is negative."""
        if part < 0 or not self.audits:
            return 0.0
        most = int(part * self.audits + 1e-9)
        end = int(self._wrong[most]) if most < len(self._wrong) else self._reach
        return end / self.audits

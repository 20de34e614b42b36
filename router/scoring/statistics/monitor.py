"""A watch over the promise: is parity still kept by what serves now, and which threshold would keep it?

Audits are a uniform sample of the traffic, drawn without looking at the requests, so given all that came before
the next audited request is lost (served by the student, unacceptable) with the traffic's own risk of that moment,
at whatever rate is being audited. So tests on that risk need no weights where the rate changes, and the rate may
follow from the tests themselves.

Both questions are asked by betting (Waudby-Smith and Ramdas 2020, arXiv 2010.09686): a wealth that no traffic for
which the null hypothesis holds increases on average reaches ``1 / doubt`` with probability ``doubt`` at most,
however often one looks (Ville 1939). One gambler who began with the first audit would notice a change after a
long good history late, so a gambler starts at every audit, with shares of the money that sum to one (the mixture
that Shin, Ramdas and Rinaldo 2022, "E-detectors", arXiv 2203.03532, call an e-process over unknown change points).
The share of the start after n audits falls as ``1 / (n log(n)^2)``: for a change after n good audits the delay
grows with log n alone, and the false alarms stay bounded over all time, not just on average.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from router.contracts.bundles import NEVER
from router.scoring.statistics.thresholds import fixed_grid

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

WORSE = (1.3, 1.6, 2.0, 3.0, 5.0, 10.0, 30.0)
"""Odds of a loss, as multiples of the odds at the risk in question, that the gamblers against it bet on."""
BETTER = (0.0, 0.1, 0.3, 0.5, 0.7, 0.85)
"""The same for those who bet that the risk is lower."""
SUSPICIOUS = 4.0
"""The wealth that makes audits more frequent; it is reached again and again, and costs audits alone."""
CALM = 1.5
"""The wealth below which suspicion, once raised, is laid down."""
CERTAIN = 100.0
"""The wealth that suspicion is no surer above, so that a long bad stretch does not outlast itself."""
MEMORY = 300
"""Audits over which it is counted how much could be served."""
LITTLE, WORTHWHILE = 0.5, 0.8
"""Recovered is who serves the latter share of what looks possible; who then serves less than the former looks again."""
RICHEST = 1e280
_SHOWN = 33


class Gamblers:
    """Wealth against each of several risks: (r,), one start after the other, several odds each.

    Args:
        risks: null hypotheses, (r,), each in (0, 1): "the risk is at most this" for gamblers on odds above 1,
            "at least this" for those on odds below 1.
        odds: what they bet on, (k,), as multiples of the risk's odds.
    """

    def __init__(self, risks: npt.ArrayLike, odds: tuple[float, ...]) -> None:
        self._lost, self._kept = payoffs(np.asarray(risks, np.float64)[:, None], odds)  # (r, k)
        self._value = np.zeros_like(self._lost)
        self._each = np.full(len(odds), 1 / len(odds))
        self._started = 0

    def update(self, lost: bool | Bools) -> None:
        """Plays one round; ``lost`` for all risks alike, or one for each, (r,)."""
        factor = np.where(np.asarray(lost)[..., None], self._lost, self._kept)
        self._value += start_share(self._started)
        self._value *= factor
        np.minimum(self._value, RICHEST, out=self._value)
        self._started += 1

    @property
    def wealth(self) -> Floats:
        """What all together have, of 1 at the beginning, what later starts will get included: (r,)."""
        return np.asarray(self._value @ self._each + unspent(self._started))


def payoffs(risks: Floats, odds: tuple[float, ...]) -> tuple[Floats, Floats]:
    """What a bet pays by which the odds of a loss are ``odds`` times those at ``risks``: where it was lost, and where
    it was not. The stake comes back on average where the risk is as it is named."""
    multiple = np.asarray(odds) * risks / (1 - risks)
    rival = multiple / (1 + multiple)
    return rival / risks, (1 - rival) / (1 - risks)


def unspent(n: int) -> float:
    """What is left for gamblers who start after ``n`` audits or more: 1 at first, then as ``1 / log n``."""
    return math.log(2) / math.log(n + 2)


def start_share(n: int) -> float:
    """What the gambler who starts after ``n`` audits gets."""
    return unspent(n) - unspent(n + 1)


class RunningParity:
    """Anytime-valid bounds on the running parity, from losses in their order.

    ``upper``: some stretch of the audits up to now shows that parity was below this; ``lower``: that it was above.
    Each holds at any one time with probability ``confidence``. While parity stays as it is, it lies between
    them; where they cross, it has changed.
    """

    def __init__(self, target: float, confidence: float) -> None:
        self._bar = 1 / (1 - confidence)
        limit = 1 - target
        self._risks = limit * np.geomspace(1 / 16, 0.98 / limit, _SHOWN - 1)
        self._risks = np.sort(np.append(self._risks, limit))
        self._above, self._below = Gamblers(self._risks, WORSE), Gamblers(self._risks, BETTER)
        self._lost, self.audits = 0, 0

    def update(self, lost: bool) -> None:
        self._above.update(lost)
        self._below.update(lost)
        self._lost, self.audits = self._lost + lost, self.audits + 1

    @property
    def estimate(self) -> float | None:
        return 1 - self._lost / self.audits if self.audits else None

    @property
    def upper(self) -> float:
        refuted = self._risks[self._above.wealth >= self._bar]
        return 1 - float(refuted.max()) if len(refuted) else 1.0

    @property
    def lower(self) -> float:
        refuted = self._risks[self._below.wealth >= self._bar]
        return 1 - float(refuted.min()) if len(refuted) else 0.0


class Suspicion:
    """A quick, unsure look at each threshold: does it lose more than it may? Page's CUSUM (1954) for each, wealth that
    never stays below 1.

    It forgets what was good, so that only the last stretch of losses counts. It promises little (at the floor,
    ``SUSPICIOUS`` audits or more on average until it is raised) and needs to: it only makes audits more frequent and
    the student serve less until it is laid down.

    Args:
        thresholds: strictest first, (t,).
    """

    def __init__(self, target: float, thresholds: Floats) -> None:
        self._thresholds = thresholds
        self._lost, self._kept = payoffs(np.array(1 - target), WORSE)
        self._value = np.ones((len(thresholds), len(WORSE)))
        self._each = np.full(len(WORSE), 1 / len(WORSE))
        self._calm, self._raised = np.ones(len(thresholds), np.bool_), np.zeros(len(thresholds), np.bool_)

    def update(self, lost: Bools) -> None:
        """``lost``: by each threshold, (t,)."""
        np.maximum(self._value, 1, out=self._value)
        self._value *= np.where(lost[:, None], self._lost, self._kept)
        wealth = self._value @ self._each
        self._calm = wealth < CALM
        self._raised = wealth >= np.where(self._raised, CALM, SUSPICIOUS)
        self._value *= np.minimum(1, CERTAIN / wealth)[:, None]

    def raised(self, threshold: float) -> bool:
        """Whether any threshold as strict as this or stricter is suspected."""
        return bool(self._raised[: self._count(threshold)].any())

    def loosest(self, threshold: float) -> float:
        """This threshold where it is not suspected, else the loosest that, like all stricter ones, is calm; ``NEVER``
        where the strictest is not."""
        if not self.raised(threshold):
            return threshold
        calm = int(np.append(self._calm, False).argmin())
        return float(self._thresholds[calm - 1]) if calm else NEVER

    def _count(self, threshold: float) -> int:
        return int(np.searchsorted(-self._thresholds, -threshold, side="right"))


@dataclass(frozen=True, slots=True)
class AuditedRequest:
    """One audited request. ``final``: the score that decides in the end, so that the student serves the request
    at every threshold up to it; -1 where it does at none. ``acceptable``: None where the verdict is missing
    since the student served, so that leaving the request out would flatter the student."""

    final: float
    acceptable: bool | None


class Certificates:
    """Which thresholds keep the floor, anytime-valid: bets that the risk at each threshold is below the limit.

    Losses only ever grow as a threshold loosens, and so wealth only falls: whichever threshold is certified, all
    stricter ones are. That is fixed-sequence testing with e-processes, so trying them all, at every audit,
    costs nothing: the chance that a threshold ever passes that never kept the floor is ``doubt`` at most.
    """

    def __init__(self, target: float, doubt: float, grid: Floats) -> None:
        self.loosest = NEVER
        self._limit, self._grid = 1 - target, grid
        self._bar = 1 / doubt if doubt > 0 else math.inf
        self._gamblers = Gamblers(np.full(len(grid), 1 - target), BETTER)
        self._lately = np.zeros((3, len(grid)))  # served, lost, all

    def update(self, outcome: AuditedRequest) -> None:
        served = outcome.final >= self._grid
        lost = served & (outcome.acceptable is not True)
        self._gamblers.update(lost)
        self._lately *= 1 - 1 / MEMORY
        self._lately += (served, lost, np.ones(len(lost)))
        passed = self._grid[(self._gamblers.wealth >= self._bar) & (self._lately[0] > 0)]
        if len(passed):
            self.loosest = min(self.loosest, float(passed[-1]))

    def serves(self, part: float) -> bool:
        """Whether what is certified serves this part of what looks possible by counting alone, or more."""
        served, lost, audits = self._lately
        certified = served[self._grid >= self.loosest]
        possible = served[lost <= self._limit * audits]
        return len(certified) > 0 and float(certified[-1]) >= part * float(possible.max(initial=0.0))


class Monitor:
    """The threshold in force, as it follows from one bundle's audits in their order.

    It begins with the bundle's own. When it is proven that what is certified loses more than it may, there is an
    alarm: nothing more is served, evidence from before it counts no longer, and thresholds are certified anew from what
    is audited since, loosening as the evidence comes in. Between two alarms: a false alarm happens with
    probability ``1 - confidence`` at most, and so does a threshold that breaks the floor all the while.

    A proof takes time, in which the floor would go on being broken. So what is only suspected is not served by
    until the suspicion is laid down: the threshold in force is the strictest that either says.

    Without an alarm the same certificates loosen the bundle's threshold, at what doubt its own left over.

    Args:
        start: the bundle's threshold on the final score; above 1: none was certified.
        spare: the doubt that the bundle's certificate left over: 0 where it used all of ``1 - confidence``.
    """

    def __init__(self, target: float, confidence: float, *, start: float, spare: float) -> None:
        self._target, self._confidence = target, confidence
        self._grid = fixed_grid()
        self._watched = np.sort(np.append(self._grid, start))[::-1] if start <= 1 else self._grid
        self.alarms, self.alarm, self._closed = 0, False, start > 1
        self.certified = self.threshold = start
        self.running = RunningParity(target, confidence)
        self._begin(1 - confidence if start > 1 else spare)

    def _begin(self, doubt: float) -> None:
        self._proof = Gamblers([1 - self._target], WORSE)
        self._suspicion = Suspicion(self._target, self._watched)
        self._certificates = Certificates(self._target, doubt, self._grid)

    @property
    def wary(self) -> bool:
        """Whether more audits are wanted than usual: the student is not let in, or not yet as far as it might be,
        or something looks wrong."""
        return self._closed or self._suspicion.raised(self.certified)

    def observe(self, outcome: AuditedRequest) -> None:
        """Takes the next audited request into account."""
        if outcome.acceptable is not None:
            lost = (outcome.final >= self._watched) & (not outcome.acceptable)
            self.running.update(outcome.final >= self.threshold and not outcome.acceptable)
            self._proof.update(outcome.final >= self.certified and not outcome.acceptable)
            self._suspicion.update(lost)
        self._certificates.update(outcome)
        if self._proof.wealth[0] >= 1 / (1 - self._confidence):
            self.alarm, self._closed, self.certified, self.threshold = True, True, NEVER, NEVER
            self.alarms += 1
            self.running = RunningParity(self._target, self._confidence)
            self._begin(1 - self._confidence)
            return
        self.certified = min(self.certified, self._certificates.loosest)
        self.threshold = self._suspicion.loosest(self.certified) if self.certified <= 1 else NEVER
        if self._closed and self._certificates.serves(WORTHWHILE):
            self.alarm = self._closed = False
        elif self.alarms and not self._certificates.serves(LITTLE):
            self._closed = True

"""Whether a round is worth what it costs: what it is expected to gain, by the rounds before it, and how sure that is.

A round is taken to close a part of the gap to a student that serves everything, so that gains shrink as the share
grows. The part is what earlier rounds closed (a rejected one closed none), newer ones counting more, beside an
assumption that weighs as much as one round. Uncertainty is the Beta distribution's that these parts, each taken for
as many successes in one trial, give: wider than their own scatter would, which of few rounds says little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

ASSUMED_PART = 0.2
"""Of the gap, that a round is taken to close where there is no history."""
FADES = 0.8
"""What a round counts beside the one after it."""
CONFIDENCE = 0.9
RECENT = 3
"""Newest training rounds by whose mean the next one's cost is told."""

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Gain:
    """Student share that a round is expected to add, between ``low`` and ``high`` at 90%; ``rounds`` is how many
    earlier ones that rests on, 0: on the assumption alone."""

    mean: float
    low: float
    high: float
    rounds: int


@dataclass(frozen=True, slots=True)
class RoundCost:
    """What a round costs, in USD: the machine's time, and what is paid to judges and for synthetic data."""

    hours: float
    machine: Decimal
    paid: Decimal

    @property
    def usd(self) -> Decimal:
        return self.machine + self.paid


@dataclass(frozen=True, slots=True)
class Worth:
    """A round weighed: ``cost`` in USD, ``usd_per_day`` that it saves (expected, low, high), within ``days``."""

    cost: Decimal
    usd_per_day: tuple[Decimal, Decimal, Decimal]
    days: float

    @property
    def pays(self) -> bool:
        return self.usd_per_day[0] * Decimal(str(self.days)) >= self.cost

    @property
    def payback_days(self) -> float | None:
        """None: never."""
        return payback_days(self.cost, self.usd_per_day[0])

    @property
    def why(self) -> str:
        mean, low, high = map(money, self.usd_per_day)
        verdict = "worth it" if self.pays else "not worth it"
        return (
            f"a round would cost {money(self.cost)} USD and save {mean} USD/day ({low} to {high}): "
            f"{verdict} within {self.days:g} days"
        )


def trainings(rounds: Sequence[Line]) -> list[Line]:
    """The rounds of a history that trained a student; one that ended before tells neither cost nor gain."""
    return [line for line in rounds if line.get("kind") == "train" and "train" in line["seconds"]]


def part_closed(line: Line) -> float:
    """The part of the gap that a round closed, 0 to 1; 0 where nothing was published."""
    before, after = float(line["incumbent_share"]), float(line["share"])
    if line.get("bundle") is None or before >= 1:
        return 0.0
    return min(1.0, max(0.0, (after - before) / (1 - before)))


def expected_gain(rounds: Sequence[Line], share: float) -> Gain:
    """What the next round is expected to add to ``share``, by a policy's history, oldest first."""
    from scipy.stats import beta

    parts = [part_closed(line) for line in trainings(rounds)]
    closed, left = ASSUMED_PART, 1 - ASSUMED_PART
    for age, part in enumerate(reversed(parts)):
        closed += FADES**age * part
        left += FADES**age * (1 - part)
    gap, tail = 1 - share, (1 - CONFIDENCE) / 2
    low, high = (float(x) for x in beta.ppf([tail, 1 - tail], closed, left))
    return Gain(gap * closed / (closed + left), gap * low, gap * high, len(parts))


def round_cost(line: Line, usd_per_hour: Decimal) -> RoundCost:
    """What a finished round cost, its machine's time at ``usd_per_hour``."""
    seconds = sum(line["seconds"].values())
    machine = Decimal(str(round(seconds, 3))) * usd_per_hour / 3600
    paid = line.get("paid_usd")  # older rounds told the sum alone
    rest = max(Decimal(0), Decimal(line["cost_usd"]) - machine) if paid is None else Decimal(paid)
    return RoundCost(seconds / 3600, machine, rest)


def next_cost(rounds: Sequence[Line], usd_per_hour: Decimal) -> RoundCost | None:
    """What the next training round will cost by the last ones; None where there was none."""
    last = [round_cost(line, usd_per_hour) for line in trainings(rounds)[-RECENT:]]
    if not last:
        return None
    n = len(last)
    machine, paid = (sum((getattr(c, name) for c in last), Decimal(0)) / n for name in ("machine", "paid"))
    return RoundCost(sum(c.hours for c in last) / n, machine, paid)


def weighed(cost: Decimal, gain: Gain, requests_per_day: float, usd_per_moved: Decimal, days: float) -> Worth:
    """A round that adds ``gain`` to the student's share; ``usd_per_moved`` is what each request is worth that it serves
    instead of the teacher."""
    per_share = Decimal(str(requests_per_day)) * usd_per_moved
    mean, low, high = (Decimal(str(x)) * per_share for x in (gain.mean, gain.low, gain.high))
    return Worth(cost, (mean, min(low, high), max(low, high)), days)


def payback_days(cost: Decimal, usd_per_day: Decimal) -> float | None:
    """Days until what is saved has paid for the cost; None: never."""
    if cost <= 0:
        return 0.0
    return float(cost / usd_per_day) if usd_per_day > 0 else None


def break_even(fixed_per_day: Decimal, usd_per_request: Decimal) -> float | None:
    """Requests a day from which on what is saved on each pays for what a day costs anyway; None: never."""
    if fixed_per_day <= 0:
        return 0.0
    return float(fixed_per_day / usd_per_request) if usd_per_request > 0 else None


def money(usd: Decimal) -> str:
    """Two decimals, or two significant digits of what is less than a cent."""
    if usd == 0 or abs(usd) >= Decimal("0.01"):
        return f"{usd:.2f}"
    return f"{usd:.2g}" if abs(usd) >= Decimal("0.0001") else f"{float(usd):.1e}"

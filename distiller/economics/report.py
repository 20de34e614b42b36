"""The economics of one policy: what a month saves, what a round cost and brings, from which volume on it pays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from distiller.economics.flow import DAY_SECONDS, Flow
from distiller.economics.worth import (
    Gain,
    Line,
    RoundCost,
    Worth,
    break_even,
    expected_gain,
    next_cost,
    payback_days,
    round_cost,
    trainings,
    weighed,
)
from router.contracts.definitions import saved_usd
from router.contracts.records import AnswerKind

MONTH = 30
"""Days of a month, everywhere here."""
LEAST_DAYS = 7.0
"""Of the log, below which it does not tell how often rounds run."""
ASSUMED_ROUNDS = 1.0
"""Training rounds a month where the log is shorter than that."""
CURVE_POINTS, CURVE_SPAN = 60, 100.0
"""Of the break-even curve: from a hundredth to a hundred times what it is drawn around."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is reckoned with beside the log and the history. None: as they say.

    ``serving_usd_per_hour`` is what the student's own machine costs all the time, where that is not in its price per
    token. ``hours`` is how long the next round takes, ``gain`` the student share that it adds. ``data_usd`` was paid
    for synthetic data beside the rounds, while the traffic was recorded.
    """

    usd_per_hour: Decimal
    audit_rate: float
    payback_days: float
    serving_usd_per_hour: Decimal = Decimal(0)
    requests_per_day: float | None = None
    hours: float | None = None
    gain: float | None = None
    rounds_per_month: float | None = None
    data_usd: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class LastRound:
    """The last training round: its cost, the student share before and after, and what that is worth. ``audits`` is
    about what those cost, with their judges, that it was judged by; a month's saving is net of them already."""

    at: float
    bundle: str | None
    cost: RoundCost
    before: float
    after: float
    audits: Decimal
    usd_per_month: Decimal
    payback_days: float | None


@dataclass(frozen=True, slots=True)
class Economics:
    """Amounts are US dollars; a month is 30 days. Savings are signed and net of audits, judges and discarded answers.

    ``alone``: what the teacher alone would cost a month; ``spent``: what requests cost, by purpose; ``fixed``: what a
    month costs whatever the traffic: the student's machine, rounds, and synthetic ``data`` beside them.
    ``usd_per_moved``: what a request is worth that the student serves instead of the teacher. ``next``: None where
    nothing tells what a round costs. ``student_pays_from`` and ``round_pays_from``: requests a day; None: at no volume.
    """

    requests: int
    days: float
    requests_per_day: float
    tokens: tuple[float, float]
    share: float
    alone: Decimal
    spent: dict[str, Decimal]
    serving: Decimal
    rounds: Decimal
    data: Decimal
    rounds_per_month: float
    rounds_assumed: bool
    usd_per_moved: Decimal
    last: LastRound | None
    gain: Gain
    next: Worth | None
    next_cost: RoundCost | None
    student_pays_from: float | None
    round_pays_from: float | None
    payback_days: float

    @property
    def fixed(self) -> Decimal:
        return self.serving + self.rounds + self.data

    @property
    def saved(self) -> Decimal:
        """A month as it is now, before what it costs whatever the traffic."""
        return saved_usd(self.alone, sum(self.spent.values(), Decimal(0)))

    @property
    def saved_next(self) -> Decimal:
        """The same once the next round has brought what is expected of it."""
        return self.saved + (self.next.usd_per_day[0] * MONTH if self.next else Decimal(0))

    def curve(self) -> list[tuple[float, float, float, float]]:
        """(requests a day, USD a month of the teacher alone, with the student as it is, with what the next round is
        expected to bring), evenly on a logarithmic scale."""
        per_day = self.requests_per_day or 1.0
        alone, saved, saved_next = (float(x) / per_day for x in (self.alone, self.saved, self.saved_next))
        around, fixed = self.student_pays_from or per_day, float(self.fixed)
        low = min(around, per_day) / CURVE_SPAN**0.5
        high = max(around, per_day) * CURVE_SPAN**0.5
        volumes = [low * (high / low) ** (i / (CURVE_POINTS - 1)) for i in range(CURVE_POINTS)]
        return [(v, v * alone, v * (alone - saved) + fixed, v * (alone - saved_next) + fixed) for v in volumes]

    def as_dict(self) -> dict[str, Any]:
        """Plain values: amounts as text, so that none loses a digit."""
        return {
            "traffic": {
                "requests": self.requests,
                "days": self.days,
                "requests_per_day": self.requests_per_day,
                "input_tokens": self.tokens[0],
                "output_tokens": self.tokens[1],
                "student_share": self.share,
            },
            "month": {
                "teacher_alone_usd": str(self.alone),
                "spent_usd": {purpose: str(usd) for purpose, usd in self.spent.items()},
                "saved_usd": str(self.saved),
                "serving_usd": str(self.serving),
                "rounds_usd": str(self.rounds),
                "data_usd": str(self.data),
                "rounds": self.rounds_per_month,
                "rounds_assumed": self.rounds_assumed,
                "saved_net_usd": str(self.saved - self.fixed),
                "saved_net_with_next_round_usd": str(self.saved_next - self.fixed),
            },
            "usd_per_request_moved_to_the_student": str(self.usd_per_moved),
            "last_round": _done(self.last) if self.last else None,
            "next_round": self._next(),
            "break_even_requests_per_day": {
                "student": self.student_pays_from,
                "next_round": self.round_pays_from,
                "within_days": self.payback_days,
            },
            "curve": [list(point) for point in self.curve()],
        }

    def _next(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "share_gain": {"expected": self.gain.mean, "low": self.gain.low, "high": self.gain.high},
            "rests_on_rounds": self.gain.rounds,
            "cost": _cost(self.next_cost) if self.next_cost else None,
        }
        if self.next is not None:
            names = ("expected", "low", "high")
            told |= {
                "usd_per_day": {n: str(usd) for n, usd in zip(names, self.next.usd_per_day, strict=True)},
                "payback_days": self.next.payback_days,
                "worth_it": self.next.pays,
                "why": self.next.why,
            }
        return told


def _cost(cost: RoundCost) -> dict[str, Any]:
    return {"hours": cost.hours, "machine_usd": str(cost.machine), "paid_usd": str(cost.paid), "usd": str(cost.usd)}


def _done(done: LastRound) -> dict[str, Any]:
    return {
        "at": done.at,
        "bundle": done.bundle,
        "cost": _cost(done.cost),
        "share_before": done.before,
        "share_after": done.after,
        "audits_usd": str(done.audits),
        "usd_per_month": str(done.usd_per_month),
        "payback_days": done.payback_days,
    }


def economics(flow: Flow, rounds: Sequence[Line], inputs: Inputs) -> Economics:
    """Reckons everything.

    Args:
        rounds: the policy's history, oldest first.
    """
    per_day = flow.requests_per_day if inputs.requests_per_day is None else inputs.requests_per_day
    volume, n = Decimal(str(per_day)) * MONTH, max(1, flow.requests)
    moved = flow.moved_per_request(inputs.audit_rate)
    gain = expected_gain(rounds, flow.share)
    if inputs.gain is not None:
        gain = Gain(inputs.gain, inputs.gain, inputs.gain, gain.rounds)
    cost = _next_cost(rounds, inputs)
    per_month, assumed = _rounds_per_month(flow, rounds, inputs)
    serving = inputs.serving_usd_per_hour * 24 * MONTH
    paid_rounds = Decimal(str(per_month)) * (cost.usd if cost else Decimal(0))
    data = inputs.data_usd * MONTH / Decimal(str(max(flow.days, LEAST_DAYS)))
    worth = weighed(cost.usd, gain, per_day, moved, inputs.payback_days) if cost else None
    horizon = Decimal(str(inputs.payback_days))
    return Economics(
        requests=flow.requests,
        days=flow.days,
        requests_per_day=per_day,
        tokens=(flow.tokens.input_tokens / n, flow.tokens.output_tokens / n),
        share=flow.share,
        alone=flow.alone / n * volume,
        spent={kind.value: usd / n * volume for kind, usd in flow.by_kind.items() if usd},
        serving=serving,
        rounds=paid_rounds,
        data=data,
        rounds_per_month=per_month,
        rounds_assumed=assumed,
        usd_per_moved=moved,
        last=_last(rounds, flow, inputs.usd_per_hour, per_day, moved),
        gain=gain,
        next=worth,
        next_cost=cost,
        student_pays_from=break_even((serving + paid_rounds + data) / MONTH, flow.saved_per_request),
        round_pays_from=break_even(cost.usd / horizon, Decimal(str(gain.mean)) * moved) if cost else None,
        payback_days=inputs.payback_days,
    )


def _next_cost(rounds: Sequence[Line], inputs: Inputs) -> RoundCost | None:
    known = next_cost(rounds, inputs.usd_per_hour)
    if inputs.hours is None:
        return known
    machine = Decimal(str(inputs.hours)) * inputs.usd_per_hour
    return RoundCost(inputs.hours, machine, known.paid if known else Decimal(0))


def _rounds_per_month(flow: Flow, rounds: Sequence[Line], inputs: Inputs) -> tuple[float, bool]:
    """How many rounds train in a month, and whether that is an assumption."""
    if inputs.rounds_per_month is not None:
        return inputs.rounds_per_month, False
    if flow.days < LEAST_DAYS:
        return ASSUMED_ROUNDS, True
    return sum(line["at"] >= flow.first_at for line in trainings(rounds)) / flow.days * MONTH, False


def _last(
    rounds: Sequence[Line], flow: Flow, usd_per_hour: Decimal, per_day: float, moved: Decimal
) -> LastRound | None:
    done = trainings(rounds)
    if not done:
        return None
    last, since = done[-1], done[-2]["at"] if len(done) > 1 else flow.first_at
    cost, before, after = round_cost(last, usd_per_hour), float(last["incumbent_share"]), float(last["share"])
    gained = after - before if last.get("bundle") else 0.0
    usd_per_day = Decimal(str(gained)) * Decimal(str(per_day)) * moved
    days = min(flow.days, max(0.0, (last["at"] - since) / DAY_SECONDS))
    audits = (flow.by_kind[AnswerKind.AUDITED] + flow.by_kind[AnswerKind.JUDGED]) * Decimal(str(days / flow.days))
    payback = payback_days(cost.usd, usd_per_day)
    return LastRound(last["at"], last.get("bundle"), cost, before, after, audits, usd_per_day * MONTH, payback)

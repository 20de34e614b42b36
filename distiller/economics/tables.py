"""The economics as rows of words, for the terminal and for the page."""

from __future__ import annotations

from decimal import Decimal

from distiller.economics.report import Economics
from distiller.economics.worth import RoundCost, money

PURPOSES = {"served": "answers served", "audited": "audits", "discarded": "answers thrown away", "judged": "judges"}

Rows = list[tuple[str, str]]


def sections(found: Economics) -> dict[str, Rows]:
    """(what, how much) by heading."""
    return {
        "Traffic": [
            (
                "requests",
                f"{found.requests:,} in {found.days:.1f} days of the log; {found.requests_per_day:,.1f} a day",
            ),
            ("tokens a request", f"{found.tokens[0]:,.0f} in, {found.tokens[1]:,.0f} out"),
            ("student share", f"{found.share:.1%}"),
            ("a request moved to the student", f"{_signed(found.usd_per_moved)} USD"),
        ],
        "A month of 30 days": _month(found),
        "The last training round": _last(found),
        "The next training round": _next(found),
        "Break-even": [
            ("the student pays from", _volume(found.student_pays_from)),
            (f"the next round pays within {found.payback_days:g} days from", _volume(found.round_pays_from))
            if found.next_cost
            else ("the next round", "nobody knows yet what one costs: give --hours"),
        ],
    }


def _month(found: Economics) -> Rows:
    spent = [(f"  {PURPOSES.get(purpose, purpose)}", f"{money(usd)} USD") for purpose, usd in found.spent.items()]
    rounds = "assumed, the log is short" if found.rounds_assumed else "training rounds"
    return [
        ("the teacher alone", f"{money(found.alone)} USD"),
        *spent,
        ("saved on requests", f"{_signed(found.saved)} USD"),
        (f"rounds ({found.rounds_per_month:.3g} {rounds})", f"{money(found.rounds)} USD"),
        *([("synthetic data beside the rounds", f"{money(found.data)} USD")] if found.data else []),
        ("the student's machine", f"{money(found.serving)} USD"),
        ("saved, net of all that", f"{_signed(found.saved - found.fixed)} USD"),
        ("expected after the next round", f"{_signed(found.saved_next - found.fixed)} USD"),
    ]


def _last(found: Economics) -> Rows:
    done = found.last
    if done is None:
        return [("none yet", "")]
    return [
        ("cost", _cost(done.cost)),
        ("audits that it was judged by", f"about {money(done.audits)} USD, in the month above already"),
        ("student share", f"{done.before:.1%} -> {done.after:.1%}" + ("" if done.bundle else ", but it was rejected")),
        ("saves a month", f"{_signed(done.usd_per_month)} USD"),
        ("pays itself back in", _days(done.payback_days)),
    ]


def _next(found: Economics) -> Rows:
    gain = found.gain
    basis = f"by {gain.rounds} rounds before it" if gain.rounds else "assumed: a fifth of what the student lacks"
    limits = f"{100 * gain.low:.1f} to {100 * gain.high:.1f} at 90%"
    rows = [("expected student share", f"{gain.mean * 100:+.1f} points ({limits}; {basis})")]
    if found.next is None or found.next_cost is None:
        return [*rows, ("cost", "nobody knows yet what one costs: give --hours")]
    return [
        *rows,
        ("cost", _cost(found.next_cost)),
        ("pays itself back in", _days(found.next.payback_days)),
        ("verdict", found.next.why),
    ]


def _cost(cost: RoundCost) -> str:
    machine = f"{cost.hours:.2f} h of the machine {money(cost.machine)}"
    return f"{money(cost.usd)} USD: {machine}, judges and synthetic data {money(cost.paid)}"


def _signed(usd: Decimal) -> str:
    return money(usd) if usd < 0 else f"+{money(usd)}"


def _days(days: float | None) -> str:
    return "never" if days is None else f"{days:,.1f} days"


def _volume(per_day: float | None) -> str:
    return "no volume: it costs more than it saves" if per_day is None else f"{per_day:,.0f} requests a day"

"""Whether a round pays: parts of the gap that rounds closed, what they cost, what that comes to. By hand."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from distiller.economics.worth import (
    Gain,
    break_even,
    expected_gain,
    money,
    next_cost,
    part_closed,
    payback_days,
    round_cost,
    weighed,
)


def line(before: float, after: float, *, bundle: str | None = "b", hours: float = 2.0, **more: Any) -> dict[str, Any]:
    seconds = {"dataset": 600.0, "train": 3600 * hours - 600}
    values = {"kind": "train", "bundle": bundle, "counts": {"train": 9}, "incumbent_share": before, "share": after}
    return values | {"seconds": seconds, "cost_usd": "1.5", "paid_usd": "0.5"} | more


def test_a_round_closes_a_part_of_the_gap_to_serving_everything() -> None:
    assert part_closed(line(0.5, 0.75)) == 0.5
    assert part_closed(line(0.5, 0.4)) == 0.0
    assert part_closed(line(0.5, 0.75, bundle=None)) == 0.0  # it was rejected
    assert part_closed(line(1.0, 1.0)) == 0.0


def test_without_history_a_fifth_of_the_gap_is_assumed_and_almost_anything_is_possible() -> None:
    gain = expected_gain([], 0.5)
    assert gain.mean == pytest.approx(0.1)
    assert gain.rounds == 0
    assert gain.low < 0.001 and gain.high > 0.4


def test_rounds_count_beside_the_assumption_newer_ones_more() -> None:
    one = expected_gain([line(0.0, 0.6)], 0.6)
    assert one.mean == pytest.approx(0.4 * (0.2 + 0.6) / 2)
    two = expected_gain([line(0.0, 0.6), line(0.6, 0.6)], 0.6)
    assert two.mean == pytest.approx(0.4 * (0.2 + 0.8 * 0.6 + 0.0) / (1 + 0.8 + 1))
    assert expected_gain([line(0.6, 0.6), line(0.0, 0.6)], 0.6).mean > two.mean
    tuned_only = {**line(0.0, 0.6), "kind": "calibrate"}
    assert expected_gain([tuned_only], 0.6) == expected_gain([], 0.6)


def test_gains_shrink_as_the_share_grows_and_rounds_that_gain_nothing_end_it() -> None:
    history = [line(0.0, 0.5), line(0.5, 0.75)]
    assert expected_gain(history, 0.9).mean == pytest.approx(expected_gain(history, 0.5).mean / 5)
    empty = [line(0.75, 0.75)] * 8
    assert expected_gain([*history, *empty], 0.75).mean < 0.03
    assert expected_gain([*history, *empty], 0.75).high < expected_gain(history, 0.75).high


def test_what_a_round_costs_follows_the_machines_price_and_keeps_what_was_paid() -> None:
    cost = round_cost(line(0, 1), Decimal("0.60"))
    assert (cost.hours, cost.machine, cost.paid, cost.usd) == (2.0, Decimal("1.2"), Decimal("0.5"), Decimal("1.7"))
    older = line(0, 1)
    del older["paid_usd"]
    assert round_cost(older, Decimal("0.60")).usd == Decimal("1.5")  # 1.2 for the machine, so 0.3 was paid


def test_the_next_round_costs_what_the_last_three_did_on_average() -> None:
    rounds = [line(0, 0, hours=100), line(0, 0, hours=1), line(0, 0, hours=2), line(0, 0, hours=3)]
    found = next_cost(rounds, Decimal(1))
    assert found is not None
    assert (found.hours, found.machine, found.paid) == (2.0, Decimal(2), Decimal("0.5"))
    assert next_cost([], Decimal(1)) is None
    nothing = line(0, 0) | {"seconds": {"dataset": 5.0}}
    assert next_cost([nothing], Decimal(1)) is None  # it ended before it trained


def test_a_round_is_worth_it_where_it_pays_within_the_days() -> None:
    gain = Gain(0.05, 0.0, 0.2, rounds=2)
    worth = weighed(Decimal("1.20"), gain, 600.0, Decimal("0.001"), 30)
    assert worth.usd_per_day == (Decimal("0.03"), Decimal(0), Decimal("0.12"))
    assert worth.payback_days == 40.0
    assert not worth.pays
    assert worth.why == (
        "a round would cost 1.20 USD and save 0.03 USD/day (0.00 to 0.12): not worth it within 30 days"
    )
    assert weighed(Decimal("1.20"), gain, 600.0, Decimal("0.001"), 40).pays


def test_a_student_that_costs_more_than_its_teacher_never_pays() -> None:
    worth = weighed(Decimal("1.20"), Gain(0.1, 0.0, 0.2, 1), 1000.0, Decimal("-0.001"), 30)
    assert worth.usd_per_day == (Decimal("-0.1"), Decimal("-0.2"), Decimal(0))
    assert worth.payback_days is None and not worth.pays


def test_payback_and_break_even_by_hand() -> None:
    assert payback_days(Decimal(3), Decimal("0.5")) == 6.0
    assert payback_days(Decimal(0), Decimal(-1)) == 0.0
    assert break_even(Decimal(24), Decimal("0.002")) == 12_000
    assert break_even(Decimal(24), Decimal("-0.002")) is None
    assert break_even(Decimal(0), Decimal("0.002")) == 0.0


@pytest.mark.parametrize(
    ("usd", "told"),
    [("1.2", "1.20"), ("0.0042", "0.0042"), ("0", "0.00"), ("-0.03", "-0.03"), ("0.0000071", "7.1e-06")],
)
def test_amounts_are_told_to_what_counts(usd: str, told: str) -> None:
    assert money(Decimal(usd)) == told

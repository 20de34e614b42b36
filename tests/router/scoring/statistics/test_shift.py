"""A shift of the scores is told from chance, however often one looks."""

import random

import pytest

from router.scoring.statistics.shift import ALPHA, BLOCK, Shift, Shifts, Spread, compare


def told(reference: Spread, scores: list[float]) -> Shift | None:
    shifts = Shifts(reference)
    for score in scores:
        shifts.add(score)
    return shifts.last


def test_nothing_is_said_before_a_block_is_whole() -> None:
    reference = Spread.of([0.1, 0.5, 0.9] * 100)
    assert told(reference, [0.5] * (BLOCK - 1)) is None
    assert told(reference, [0.5] * BLOCK) is not None


def test_a_shift_is_found_and_told_which_way() -> None:
    r = random.Random(1)
    reference = Spread.of(r.random() for _ in range(800))
    lower = told(reference, [r.random() ** 2 for _ in range(BLOCK)])
    higher = told(reference, [r.random() ** 0.5 for _ in range(BLOCK)])
    assert lower is not None and lower.shifted and lower.gap > 0.2 and lower.stability_index > 0.25
    assert higher is not None and higher.shifted and higher.gap < -0.2


def test_looking_again_and_again_raises_few_false_alarms() -> None:
    """Of many watches over many blocks each, no more than ALPHA raise any alarm."""
    r, alarms = random.Random(2), 0
    watches = 60
    for _ in range(watches):
        reference = Spread.of(r.betavariate(4, 1.5) for _ in range(300))
        shifts, alarmed = Shifts(reference), False
        for _ in range(20):
            for _ in range(BLOCK):
                shifts.add(r.betavariate(4, 1.5))
            alarmed |= shifts.last is not None and shifts.last.shifted
        alarms += alarmed
    assert alarms <= ALPHA * watches


@pytest.mark.parametrize("few", [5, 40])
def test_a_small_reference_proves_little(few: int) -> None:
    r = random.Random(3)
    reference = Spread.of(r.random() for _ in range(few))
    shift = told(reference, [r.random() ** 1.3 for _ in range(BLOCK)])
    assert shift is not None and not shift.shifted


def test_scores_that_are_all_the_same_are_no_shift() -> None:
    reference = Spread.of([0.7] * 200)
    same, other = told(reference, [0.7] * BLOCK), told(reference, [0.2] * BLOCK)
    assert same is not None and same.gap == 0 and same.stability_index == 0
    assert other is not None and other.shifted and other.gap == 1


def test_the_bound_grows_with_every_look() -> None:
    reference = Spread.of(n / 100 for n in range(100))
    counts = [0] + [BLOCK // 20] * 20 + [0]
    assert compare(reference, counts, 1).bound < compare(reference, counts, 2).bound < 0.3


def test_a_spread_is_read_as_it_was_written() -> None:
    spread = Spread.of([0.1, 0.2, 0.2, 0.9])
    assert Spread.read(spread.as_dict()) == spread
    assert spread.edges[1:] == (0.1, 0.2, 0.9) and spread.at_most == (0, 0.25, 0.75, 1)
    assert Spread.read({}) is None and Spread.read(Spread.of([]).as_dict()) is None
    assert Spread.read({"edges": None, "at_most": [], "examples": 3}) is None

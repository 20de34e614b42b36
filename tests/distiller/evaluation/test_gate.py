"""The gate on synthetic per-row outcomes: a spoiled student never passes, an equal one is not worse."""

from __future__ import annotations

import random

import pytest

from distiller.evaluation.gate import GateConfig, Outcome, judge, paired_lower_bound


def rows(
    n: int, candidate: dict[str, float], incumbent: float, rng: random.Random, agreement: float = 0.8
) -> list[Outcome]:
    """``n`` rows over ``candidate``'s slices (slice -> acceptable rate), correlated with the incumbent's."""
    made = []
    for i in range(n):
        name = rng.choice(list(candidate))
        luck = rng.random()
        own = luck if rng.random() < agreement else rng.random()
        made.append(Outcome(f"r{i}", own < candidate[name], luck < incumbent, (f"task={name}",)))
    return made


def test_identical_students_are_not_inferior_but_neither_are_they_promoted() -> None:
    outcomes = [Outcome(f"r{i}", i % 4 > 0, i % 4 > 0, (f"task={i % 3}",)) for i in range(300)]
    verdict = judge(outcomes, candidate_share=0.5, incumbent_share=0.5)
    assert all(v.passed for v in verdict.slices)
    assert not verdict.promoted
    assert verdict.reasons == (
        "neither better nor cheaper: student share at the target 50.0% -> 50.0%, acceptable 75.0% -> 75.0%",
    )


def test_an_identical_student_with_a_larger_share_is_promoted_as_cheaper() -> None:
    outcomes = [Outcome(f"r{i}", i % 4 > 0, i % 4 > 0) for i in range(300)]
    verdict = judge(outcomes, candidate_share=0.6, incumbent_share=0.5)
    assert verdict.promoted
    assert any(r.startswith("cheaper") for r in verdict.reasons)


@pytest.mark.parametrize("seed", range(40))
def test_a_student_trained_on_shuffled_labels_is_rejected_every_time(seed: int) -> None:
    outcomes = rows(250, {"intent": 0.2, "extract": 0.2}, 0.7, random.Random(seed), agreement=0.0)
    assert not judge(outcomes, candidate_share=0.9, incumbent_share=0.1).promoted


@pytest.mark.parametrize("seed", range(40))
def test_a_student_broken_on_one_slice_only_is_rejected_every_time_with_the_slice_named(seed: int) -> None:
    rates = {"intent": 0.95, "extract": 0.95, "summary": 0.95, "legal": 0.3}
    verdict = judge(rows(400, rates, 0.75, random.Random(seed)), candidate_share=0.9, incumbent_share=0.1)
    assert not verdict.promoted
    assert any("task=legal" in r for r in verdict.reasons)


def test_a_better_student_is_rejected_by_chance_in_few_of_a_hundred_rounds() -> None:
    rates = {"intent": 0.82, "extract": 0.82, "summary": 0.82}
    verdicts = [judge(rows(400, rates, 0.72, random.Random(s)), 0.6, 0.5) for s in range(100)]
    assert sum(v.promoted for v in verdicts) >= 95


def test_an_equal_student_fails_a_slice_by_chance_in_few_of_a_hundred_rounds() -> None:
    rates = {str(i): 0.72 for i in range(5)}
    failed = 0
    for seed in range(100):
        verdict = judge(rows(500, rates, 0.72, random.Random(seed)), 0.6, 0.5)
        failed += any(not v.passed for v in verdict.slices if v.name != "overall")
    assert failed <= 10


def test_a_slightly_worse_student_is_not_proven_non_inferior() -> None:
    promoted = sum(judge(rows(400, {"all": 0.69}, 0.72, random.Random(s)), 0.9, 0.1).promoted for s in range(100))
    assert promoted <= 10


def test_small_slices_carry_no_veto() -> None:
    outcomes = [Outcome(f"r{i}", True, True, ("task=large",)) for i in range(600)]
    outcomes += [Outcome(f"s{i}", False, True, ("task=small",)) for i in range(3)]
    verdict = judge(outcomes, candidate_share=0.6, incumbent_share=0.5)
    assert {v.name for v in verdict.slices} == {"overall", "task=large"}
    assert verdict.promoted


def test_without_an_incumbent_enough_rows_must_exist_and_some_answers_be_acceptable() -> None:
    few = [Outcome(f"r{i}", True) for i in range(10)]
    assert not judge(few, 0.5, 0.0).promoted
    assert judge([Outcome(f"r{i}", i % 2 == 0) for i in range(60)], 0.5, 0.0).promoted
    assert not judge([Outcome(f"r{i}", False) for i in range(60)], 0.5, 0.0).promoted


def test_a_proven_gain_in_quality_is_promoted_though_its_estimated_share_is_a_little_lower() -> None:
    outcomes = [Outcome(f"r{i}", i % 10 < 9, i % 10 < 6) for i in range(300)]
    assert judge(outcomes, candidate_share=0.49, incumbent_share=0.50).promoted
    assert not judge(outcomes, candidate_share=0.40, incumbent_share=0.50).promoted


def test_a_failed_slice_reads_as_a_sentence_with_its_figures() -> None:
    outcomes = [Outcome(f"a{i}", i >= 60, True, ("task=intent",)) for i in range(100)]
    outcomes += [Outcome(f"b{i}", True, True, ("task=other",)) for i in range(900)]
    reasons = judge(outcomes, 0.6, 0.5).reasons
    assert any(r.startswith("slice task=intent: 1.00 -> 0.40, n=100, lower bound -0.") for r in reasons)


def test_tangos_bound_without_any_difference_is_its_closed_form() -> None:
    z = 1.6448536269514722
    assert paired_lower_bound(0, 0, 100, 0.95) == pytest.approx(-(z**2) / (100 + z**2), abs=1e-6)


def test_the_bound_covers_the_true_difference_as_often_as_promised() -> None:
    rng = random.Random(1)
    covered = 0
    trials = 2000
    for _ in range(trials):
        won = lost = 0
        for _ in range(120):
            u = rng.random()
            won += u < 0.12
            lost += 0.12 <= u < 0.17
        covered += paired_lower_bound(won, lost, 120, 0.95) <= 0.07
    assert 0.935 <= covered / trials <= 0.97


def test_a_stricter_confidence_gives_a_lower_bound() -> None:
    assert paired_lower_bound(20, 10, 200, 0.99) < paired_lower_bound(20, 10, 200, 0.9) < 0.05


def test_the_verdict_is_plain_values_for_the_manifest() -> None:
    verdict = judge([Outcome(f"r{i}", True, True) for i in range(200)], 0.6, 0.5, GateConfig(margin=0.05))
    assert verdict.as_dict()["slices"][0]["margin"] == 0.05

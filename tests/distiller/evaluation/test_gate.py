"""The gate on synthetic per-row outcomes: a spoiled student never passes, an equal one is not worse."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from distiller.config import GateConfig
from distiller.evaluation.gate import PairedOutcome, judge, paired_lower_bound
from router.policy.policy import Policy


def rows(
    n: int, candidate: dict[str, float], incumbent: float, rng: random.Random, agreement: float = 0.8
) -> list[PairedOutcome]:
    """``n`` rows over ``candidate``'s slices (slice -> acceptable rate), correlated with the incumbent's."""
    made = []
    for i in range(n):
        name = rng.choice(list(candidate))
        luck = rng.random()
        own = luck if rng.random() < agreement else rng.random()
        made.append(PairedOutcome(f"r{i}", own < candidate[name], luck < incumbent, (f"task={name}",)))
    return made


def test_identical_students_are_not_inferior_but_neither_are_they_promoted() -> None:
    outcomes = [PairedOutcome(f"r{i}", i % 4 > 0, i % 4 > 0, (f"task={i % 3}",)) for i in range(300)]
    verdict = judge(outcomes, candidate_share=0.5, incumbent_share=0.5)
    assert all(v.passed for v in verdict.slices)
    assert not verdict.promoted
    assert verdict.reasons == (
        "neither better nor cheaper: student share at the target 50.0% -> 50.0%, acceptable 75.0% -> 75.0%",
    )


def test_an_identical_student_with_a_larger_share_is_promoted_as_cheaper() -> None:
    outcomes = [PairedOutcome(f"r{i}", i % 4 > 0, i % 4 > 0) for i in range(300)]
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
    outcomes = [PairedOutcome(f"r{i}", True, True, ("task=large",)) for i in range(600)]
    outcomes += [PairedOutcome(f"s{i}", False, True, ("task=small",)) for i in range(3)]
    verdict = judge(outcomes, candidate_share=0.6, incumbent_share=0.5)
    assert {v.name for v in verdict.slices} == {"overall", "task=large"}
    assert verdict.promoted


def test_without_an_incumbent_enough_rows_must_exist_and_some_answers_be_acceptable() -> None:
    few = [PairedOutcome(f"r{i}", True) for i in range(10)]
    assert not judge(few, 0.5, 0.0).promoted
    assert judge([PairedOutcome(f"r{i}", i % 2 == 0) for i in range(60)], 0.5, 0.0).promoted
    assert not judge([PairedOutcome(f"r{i}", False) for i in range(60)], 0.5, 0.0).promoted


def test_a_proven_gain_in_quality_is_promoted_though_its_estimated_share_is_a_little_lower() -> None:
    outcomes = [PairedOutcome(f"r{i}", i % 10 < 9, i % 10 < 6) for i in range(300)]
    assert judge(outcomes, candidate_share=0.49, incumbent_share=0.50).promoted
    assert not judge(outcomes, candidate_share=0.40, incumbent_share=0.50).promoted


def test_a_failed_slice_reads_as_a_sentence_with_its_figures() -> None:
    outcomes = [PairedOutcome(f"a{i}", i >= 60, True, ("task=intent",)) for i in range(100)]
    outcomes += [PairedOutcome(f"b{i}", True, True, ("task=other",)) for i in range(900)]
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
    verdict = judge([PairedOutcome(f"r{i}", True, True) for i in range(200)], 0.6, 0.5, GateConfig(margin=0.05))
    assert verdict.as_dict()["slices"][0]["margin"] == 0.05


def in_form(form: str, outcomes: list[PairedOutcome]) -> list[PairedOutcome]:
    return [replace(o, form=form) for o in outcomes]


def test_a_student_broken_only_when_quantised_is_rejected_and_the_form_is_named() -> None:
    own = [PairedOutcome(f"r{i}", i % 10 < 9, i % 10 < 8) for i in range(500)]
    broken = [replace(o, candidate=i % 10 < 6) for i, o in enumerate(own)]
    assert judge(own, 0.9, 0.1).promoted
    verdict = judge([*own, *in_form("int8", broken)], 0.9, 0.1)
    assert not verdict.promoted
    [reason] = verdict.reasons
    assert reason.startswith("form int8, overall: 0.80 -> 0.60, n=500, lower bound -0.2")
    assert reason.endswith("20.0 points worse on these rows")


def test_a_form_broken_on_one_slice_is_rejected_with_both_named() -> None:
    own = [PairedOutcome(f"r{i}", True, i % 10 < 8, (f"task={'rare' if i < 40 else 'usual'}",)) for i in range(400)]
    quantised = in_form("q4", [replace(o, candidate=i >= 40) for i, o in enumerate(own)])
    verdict = judge([*own, *quantised], 0.9, 0.1)
    assert [r.partition(":")[0] for r in verdict.reasons] == ["form q4, slice task=rare"]


def test_forms_as_good_as_each_other_pass_and_each_is_in_the_verdict() -> None:
    own = [PairedOutcome(f"r{i}", i % 10 < 9, i % 10 < 8) for i in range(300)]
    verdict = judge([*own, *in_form("int8", own)], 0.6, 0.5)
    assert verdict.promoted
    assert [(v.form, v.name) for v in verdict.slices] == [("", "overall"), ("int8", "overall")]


def test_a_form_without_any_row_to_compare_is_no_reason_to_promote() -> None:
    own = [PairedOutcome(f"r{i}", True, i % 10 < 8) for i in range(300)]
    verdict = judge([*own, PairedOutcome("x", True, None, (), "int8")], 0.6, 0.5)
    assert verdict.reasons == ("form int8: it has no row to compare",)


def test_without_an_incumbent_a_form_must_keep_what_the_first_one_can() -> None:
    own = [PairedOutcome(f"r{i}", i % 2 == 0) for i in range(300)]
    assert judge([*own, *in_form("int8", own)], 0.5, 0.0).promoted
    broken = judge([*own, *in_form("int8", [replace(o, candidate=False) for o in own])], 0.5, 0.0)
    assert not broken.promoted
    assert broken.reasons[0].startswith("form int8, overall: 0.50 -> 0.00")


def test_too_few_rows_to_tell_is_said_with_how_many_would() -> None:
    """A tenth differs: (1.645 + 0.842) squared over 0.02 squared times 0.1."""
    outcomes = [PairedOutcome(f"r{i}", i % 20 != 0, i % 20 != 1) for i in range(200)]
    [reason] = judge(outcomes, 0.6, 0.5).reasons
    assert reason.endswith("0.0 points better on these rows, too few to tell: about 1546 would")


def test_the_policy_sets_the_gate() -> None:
    file = {
        "name": "p",
        "student": {"model": "s", "engine": "embedded", "usd_per_million": {"input": 0, "output": 0}},
        "teacher": {"model": "t"},
        "objective": {"parity": {}},
        "distil": {"gate": {"margin": 0.05, "confidence": 0.9, "min_slice": 30}},
    }
    assert GateConfig.from_policy(Policy.model_validate(file)) == GateConfig(0.05, 0.9, 30)
    assert GateConfig.from_policy(Policy.model_validate(file | {"distil": {}})) == GateConfig()


def test_label_heads_under_a_floor_are_judged_overall_by_what_the_rows_resolve() -> None:
    """A tenth differs, and the certified share is larger: it would take 1,546 rows to show that as no loss of 0.02."""
    head = {
        "name": "p",
        "student": {"engine": "head"},
        "teacher": {"model": "t"},
        "objective": {"parity": {}},
    }
    of_heads = GateConfig.from_policy(Policy.model_validate(head))
    equal = [PairedOutcome(f"r{i}", i % 20 != 0, i % 20 != 1) for i in range(200)]
    assert judge(equal, 0.6, 0.5, of_heads).promoted and not judge(equal, 0.6, 0.5).promoted
    worse = [PairedOutcome(f"r{i}", i % 8 != 0, i % 20 != 1) for i in range(400)]
    assert not judge(worse, 0.6, 0.5, of_heads).promoted
    assert not judge(equal, 0.5, 0.5, of_heads).promoted, "a larger share is what speaks for it"
    shared = Policy.model_validate(head | {"objective": {"student_share": 0.5}})
    assert GateConfig.from_policy(shared) == GateConfig(), "no floor holds back what it answers wrong"


def drawn(n: int, loss: dict[str, float], rng: np.random.Generator, forms: int = 1) -> list[PairedOutcome]:
    """``n`` rows a slice in each of ``loss``, incumbent right on 80%; the candidate loses that much there, and as
    many again fall either way."""
    made: list[PairedOutcome] = []
    for name, lost in loss.items():
        luck = rng.random(n)
        incumbent = luck < 0.8
        shift = rng.random((forms, n))
        for form in range(forms):
            worse = incumbent & (shift[form] < (lost + 0.03) / 0.8)
            better = ~incumbent & (shift[form] < 0.03 / 0.2)
            said = ((incumbent & ~worse) | better).tolist()
            rows = enumerate(zip(said, incumbent.tolist(), strict=True))
            made += [PairedOutcome(f"{name}{i}", c, b, (name,), f"f{form}" if form else "") for i, (c, b) in rows]
    return made


@pytest.mark.parametrize("slices", [2, 12])
def test_an_equal_student_is_vetoed_by_any_slice_in_few_rounds_however_many_there_are(slices: int) -> None:
    rng, config = np.random.default_rng(slices), GateConfig()
    names = {f"task={i}": 0.0 for i in range(slices)}
    verdicts = [judge(drawn(60, names, rng, forms=2), 0.6, 0.5, config) for _ in range(300)]
    vetoed = sum(any(not v.passed for v in verdict.slices if v.name != "overall") for verdict in verdicts)
    assert vetoed / 300 <= 1 - config.power + 0.025


def test_a_loss_of_the_margin_overall_is_promoted_no_more_often_than_promised() -> None:
    rng, config = np.random.default_rng(7), GateConfig(margin=0.05)
    promoted = sum(judge(drawn(150, {"a": 0.05, "b": 0.05}, rng), 0.9, 0.1, config).promoted for _ in range(600))
    assert promoted / 600 <= 0.05 + 0.02


@pytest.mark.parametrize("loss", [0.15, 0.25, 0.5])
def test_a_slice_that_loses_its_stated_margin_or_more_passes_no_more_often_than_promised(loss: float) -> None:
    rng, names = np.random.default_rng(11), {f"task={i}": -0.02 for i in range(7)}
    wrong = 0
    for _ in range(300):
        verdict = judge(drawn(60, names | {"task=broken": loss}, rng), 0.9, 0.1)
        [broken] = [v for v in verdict.slices if v.name == "task=broken"]
        wrong += broken.passed and broken.margin <= loss
    assert wrong / 300 <= 0.05 + 0.025


def test_one_slice_of_eight_broken_outright_is_rejected_every_time() -> None:
    rng, names = np.random.default_rng(13), {f"task={i}": -0.03 for i in range(7)}
    for _ in range(200):
        verdict = judge(drawn(40, names | {"task=broken": 0.6}, rng), 0.9, 0.1)
        assert not verdict.promoted
        assert any("task=broken" in reason for reason in verdict.reasons)

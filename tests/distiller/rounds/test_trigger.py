"""When a round is due: new records train, grown audits tune, and nothing is tried twice on the same data."""

from __future__ import annotations

import pytest

from distiller.home import RoundKind
from distiller.rounds.trigger import Tally, due, enough_audits
from router.contracts.guard_report import GuardReport
from router.policy.policy import Policy


def policy(**objective: object) -> Policy:
    return Policy.model_validate(
        {
            "name": "p",
            "student": {"model": "s", "engine": "embedded", "usd_per_million": {"input": 0, "output": 0}},
            "teacher": {"model": "t"},
            "objective": objective or {"parity": {"at_least": 0.95, "confidence": 0.95}},
            "distil": {"min_new_records": 500},
        }
    )


def a_round(kind: RoundKind, trainable: int, audited: int) -> dict[str, object]:
    return {"kind": kind.value, "tally": {"seq": 1, "trainable": trainable, "audited": audited}}


def test_where_parity_broke_since_the_last_round_a_student_is_trained_on_half_as_many_records() -> None:
    guarded = GuardReport(bundle="b", changed_at=100.0, route=1.01, accept=1.01)
    before, after = ([{**a_round(RoundKind.TRAIN, 500, 100), "at": at}] for at in (99.0, 101.0))
    assert due(policy(), Tally(1, 749, 100), before, guarded)[0] is None
    assert due(policy(), Tally(1, 750, 100), before, guarded)[0] is RoundKind.TRAIN
    assert due(policy(), Tally(1, 750, 100), after, guarded)[0] is None


def test_a_student_is_trained_once_enough_new_records_are_there() -> None:
    assert due(policy(), Tally(1, 499, 100), [])[0] is None
    assert due(policy(), Tally(1, 500, 100), [])[0] is RoundKind.TRAIN


def test_records_of_a_rejected_round_do_not_start_another() -> None:
    rounds = [a_round(RoundKind.TRAIN, 500, 100)]
    assert due(policy(), Tally(1, 900, 100), rounds)[0] is None
    assert due(policy(), Tally(1, 1000, 100), rounds)[0] is RoundKind.TRAIN


def test_a_round_that_only_tuned_uses_no_records_up() -> None:
    rounds = [a_round(RoundKind.TRAIN, 500, 100), a_round(RoundKind.CALIBRATE, 900, 150)]
    assert due(policy(), Tally(1, 1000, 150), rounds)[0] is RoundKind.TRAIN


def test_no_student_is_trained_that_could_not_be_judged() -> None:
    wanted, why = due(policy(), Tally(1, 800, 20), [])
    assert wanted is None
    assert "20 of 50 audited" in why


def test_thresholds_are_tuned_when_audits_suffice_and_again_when_they_have_grown_by_half() -> None:
    assert due(policy(), Tally(1, 10, 117), [])[0] is None
    assert due(policy(), Tally(1, 10, 118, 50), [])[0] is RoundKind.CALIBRATE
    rounds = [a_round(RoundKind.CALIBRATE, 10, 118)]
    assert due(policy(), Tally(1, 10, 176, 50), rounds)[0] is None
    assert due(policy(), Tally(1, 10, 177, 50), rounds)[0] is RoundKind.CALIBRATE


def test_thresholds_are_tuned_again_once_many_audits_were_strange_to_the_scorer() -> None:
    before = {
        **a_round(RoundKind.CALIBRATE, 10, 400),
        "tally": {"seq": 1, "trainable": 10, "audited": 400, "strange": 5},
    }
    assert due(policy(), Tally(1, 10, 450, 50, 24), [before])[0] is None
    kind, why = due(policy(), Tally(1, 10, 450, 50, 25), [before])
    assert kind is RoundKind.CALIBRATE and "20 of the new ones strange" in why
    older = a_round(RoundKind.CALIBRATE, 10, 400)  # by a version that counted none
    assert due(policy(), Tally(1, 10, 450, 50, 20), [older])[0] is RoundKind.CALIBRATE
    assert due(policy(parity={"at_least": 0.99}), Tally(1, 10, 450, 50, 25), [before])[0] is None, "too few to certify"


def test_a_few_strange_ones_among_very_many_are_usual() -> None:
    rounds = [a_round(RoundKind.CALIBRATE, 10, 4000)]
    assert due(policy(), Tally(1, 10, 5001, 50, 20), rounds)[0] is None
    assert due(policy(), Tally(1, 10, 5000, 50, 20), rounds)[0] is RoundKind.CALIBRATE


def test_training_tunes_too() -> None:
    rounds = [a_round(RoundKind.TRAIN, 500, 200)]
    assert due(policy(), Tally(1, 600, 299, 50), rounds)[0] is None
    assert due(policy(), Tally(1, 600, 300, 50), rounds)[0] is RoundKind.CALIBRATE


@pytest.mark.parametrize(("target", "least"), [(0.95, 118), (0.9, 58), (0.99, 598), (0.5, 50)])
def test_a_stricter_floor_needs_more_audits(target: float, least: int) -> None:
    assert enough_audits(policy(parity={"at_least": target, "confidence": 0.95})) == least


def test_objectives_without_a_floor_need_few() -> None:
    assert enough_audits(policy(student_share=0.8)) == 50


def test_a_student_that_no_audit_speaks_for_is_not_tuned_for() -> None:
    kind, why = due(policy(), Tally(1, 10, 500, 9), [])
    assert kind is None
    assert "9 audits" in why
    assert due(policy(), Tally(1, 10, 500, 10), [])[0] is RoundKind.CALIBRATE

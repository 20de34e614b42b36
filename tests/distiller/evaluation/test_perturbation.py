"""Perturbed prompts: the same for the same question, changed in the last user turn alone, judged as the original."""

from __future__ import annotations

import random
from typing import Any

import pytest

from distiller.data.rows import DatasetRow
from distiller.evaluation.answers import StudentQuestion
from distiller.evaluation.grading import question
from distiller.evaluation.perturbation import ADVERSARIAL, NOISE, perturbed


def asked(n: int, text: str = "Which card was refunded, and when?") -> StudentQuestion:
    messages = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": text}]
    return question(DatasetRow(f"r{n}", f"c{n}", float(n), messages, f"answer {n}", "t", "allowed", task="cards"))


def bodies(questions: list[StudentQuestion], count: int) -> dict[str, Any]:
    return {q.request_id: q.body for _, q in perturbed(questions, count)}


def test_the_same_questions_are_changed_in_the_same_way_whatever_their_order_or_number() -> None:
    questions = [asked(i) for i in range(40)]
    first, again, few = bodies(questions, 40), bodies(questions[::-1], 40), bodies(questions, 7)
    assert first == again
    assert few.items() <= first.items() and len(few) < len(first)


def test_every_kind_comes_up_and_each_is_a_slice_of_its_own() -> None:
    found = perturbed([asked(i) for i in range(60)], 60)
    assert {q.slices for _, q in found} == {(f"adversarial={kind}",) for kind in ADVERSARIAL}


def test_only_the_last_user_turn_changes_and_the_teachers_answer_stays_that_to_the_original() -> None:
    questions = {f"r{i}": asked(i) for i in range(30)}
    for original, changed in perturbed(list(questions.values()), 30):
        before, after = questions[original].body["messages"], changed.body["messages"]
        assert before[0] == after[0] and before[1] != after[1]
        assert changed.teacher == questions[original].teacher
        assert changed.features.last_user == after[1]["content"]
        assert changed.request_id.startswith(f"{original}~")


def test_a_prompt_that_a_change_leaves_as_it_was_is_not_asked_again() -> None:
    assert all("~typos" not in q.request_id for _, q in perturbed([asked(i, "1 + 1") for i in range(60)], 60))


@pytest.mark.parametrize("kind", ["injection", "distractor", "paraphrase"])
def test_an_attack_keeps_the_whole_prompt(kind: str) -> None:
    text = "Route {this}: my card was declined."
    assert text in ADVERSARIAL[kind](text, random.Random(0))


@pytest.mark.parametrize("kind", NOISE)
def test_noise_keeps_the_prompt_readable(kind: str) -> None:
    text = "Which card was refunded, and when?"
    changed = NOISE[kind](text, random.Random(0)).lower()
    assert changed != text and ("refunded" in changed or kind == "typos")

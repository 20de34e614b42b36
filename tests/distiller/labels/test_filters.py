"""Which answers there are, as the traffic tells: what is outside of them, and how they are spelled."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distiller.data.rows import DatasetRow
from distiller.labels.filters import ClosedAnswers

ASKED = [{"role": "user", "content": "so?"}]


def row(answer: str, n: int = 0, system: str = "Name the team.", task: str | None = None) -> DatasetRow:
    messages = [{"role": "system", "content": system}, *ASKED]
    return DatasetRow(f"r{n}", f"c{n}", float(n), messages, answer, "big", "none", task=task)


def answers(*said: str, times: int = 30) -> list[DatasetRow]:
    return [row(one, n) for n, one in enumerate(said * times)]


@pytest.mark.parametrize("said", ["billing", "Billing.", " billing ", "**access**"])
def test_a_label_is_one_of_them_however_it_is_spelled_and_is_learnt_as_clients_know_it(said: str) -> None:
    known = ClosedAnswers.of(answers("billing", "access"))
    assert not known.outside(row(said))
    assert known.spelled(row(said)).strip() == said.strip(" .*").lower()


@pytest.mark.parametrize("said", ["delivery", "billing or access", "the team is billing", '{"team": "billing"}'])
def test_what_is_none_of_them_is_outside(said: str) -> None:
    assert ClosedAnswers.of(answers("billing", "access")).outside(row(said))


def test_labels_that_differ_in_case_alone_stay_two() -> None:
    known = ClosedAnswers.of(answers("a", "A", "A", "b"))
    assert [known.spelled(row(said)) for said in ("a", "A", "B")] == ["a", "A", "b"]


def test_of_open_answers_nothing_is_outside() -> None:
    known = ClosedAnswers.of([row(f"a story of its own, number {n}", n) for n in range(200)])
    assert not known.outside(row("another story"))
    assert known.spelled(row("Another Story.")) == "Another Story."


def test_a_few_odd_answers_of_the_served_teacher_open_nothing() -> None:
    odd = [row("I am not sure, it may be one of several teams, and here is why: " + "x" * 300)]
    known = ClosedAnswers.of([*answers("billing", "access"), *odd])
    assert known.outside(row("delivery")) and not known.outside(row("access"))


def test_fields_of_json_are_each_closed_or_open() -> None:
    made = [row(f'{{"team": "{team}", "why": "since {n}"}}', n) for n, team in enumerate(["ops", "web"] * 40)]
    known = ClosedAnswers.of(made)
    assert known.outside(row('{"team": "hr", "why": "so"}')) and known.outside(row('{"why": "so"}'))
    assert not known.outside(row('{"why": "never said before", "team": "web"}'))


def test_kinds_are_told_apart_by_task_and_system_prompt_whatever_the_day() -> None:
    days = [
        row(said, n, f"Name the team. Today is 2026-11-{n % 28 + 1}.") for n, said in enumerate(["ops", "web"] * 40)
    ]
    known = ClosedAnswers.of(days)
    assert known.outside(row("hr", 0, "Name the team. Today is 2027-01-09."))
    assert not known.outside(row("hr", 0, "Write a poem."))
    assert not known.outside(replace(days[0], answer="hr", task="poems"))

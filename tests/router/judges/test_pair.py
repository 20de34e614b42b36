"""What is compared is what was answered."""

from __future__ import annotations

from router.judges.pair import Pair, text


def said(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def test_a_teachers_thoughts_are_no_part_of_what_the_student_must_say() -> None:
    pair = Pair(said("4"), said("<think>2 and 2</think>\n\n4"))
    assert text(pair.teacher) == text(pair.student) == "4"
    both = Pair(said("<think>hm</think>4"), said("<think>2 and 2</think>\n\n4"))
    assert text(both.student) == "4"


def test_a_student_that_thinks_aloud_where_its_teacher_does_not_says_something_else() -> None:
    pair = Pair(said("<think>hm</think>4"), said("4"))
    assert text(pair.student) == "<think>hm</think>4"


def test_thoughts_that_the_client_asked_for_are_compared() -> None:
    asked = {"messages": [{"role": "user", "content": "First <think>, then answer."}]}
    assert text(Pair(said("4"), said("<think>hm</think>4"), asked).teacher) == "<think>hm</think>4"

"""The slices that a student is judged on."""

from __future__ import annotations

from distiller.data.rows import DatasetRow
from distiller.evaluation.answers import StudentQuestion
from distiller.evaluation.grading import question
from distiller.evaluation.slices import with_rarity
from router.scoring.model import Example
from router.scoring.scorer import Scorer


def asked(n: int, text: str, task: str | None = None) -> StudentQuestion:
    return question(
        DatasetRow(f"r{n}", f"c{n}", float(n), [{"role": "user", "content": text}], "yes", "t", "allowed", task)
    )


def test_a_request_is_in_the_slices_of_its_task_language_and_length() -> None:
    german = asked(1, "Wie ist die Lieferung für meine Karte zu ändern?", "cards")
    assert german.slices == ("task=cards", "language=de", "length=short")
    assert asked(2, "word " * 300).slices == ("length=medium",)


def rare(questions: list[StudentQuestion]) -> set[str]:
    return {q.request_id for q in questions if "rarity=rare" in q.slices}


def usual(n: int) -> str:
    return f"please route my ticket about a card {n % 7}"


def test_without_a_scorer_rare_is_what_shares_least_with_the_others() -> None:
    questions = [asked(i, usual(i)) for i in range(30)]
    odd = [asked(100 + i, f"{word} " * 6) for i, word in enumerate(("zebra", "quixotic", "fjord", "ümlaut"))]
    assert rare(with_rarity([*questions, *odd], None)) == {"r100", "r101", "r102", "r103"}


def test_with_a_scorer_rare_is_what_is_strange_to_it() -> None:
    known = [asked(i, usual(i)) for i in range(80)]
    scorer = Scorer.fit([Example(q.features, None, i % 2 == 0) for i, q in enumerate(known)], None)
    odd = [asked(100 + i, f"xylophone {chr(97 + i) * 9} kumquat") for i in range(10)]
    found = rare(with_rarity([*known, *odd], scorer))
    assert {q.request_id for q in odd} <= found


def test_where_nothing_is_stranger_than_the_rest_nothing_is_rare() -> None:
    assert rare(with_rarity([asked(i, "the same") for i in range(8)], None)) == set()
    assert with_rarity([], None) == []

"""A candidate's answers are judged by the policy's own judge, once, and what it said is kept."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from distiller.data.rows import DatasetRow
from distiller.evaluation.answers import StudentAnswer, StudentQuestion, keep_answers, read_answers
from distiller.evaluation.grading import grade, question
from distiller.evaluation.verdicts import judge_answers
from router.errors import JudgeError
from router.judges.judge import Judges
from router.policy.policy import Policy
from tests.fakes import FakeUpstream, Script, served

USD = Decimal("0.00013")


@pytest.fixture
def model() -> Iterator[FakeUpstream]:
    """Finds the answer better that says "good"; says nothing of one that says "odd"."""

    def answer(body: dict[str, Any]) -> Script:
        a, b = body["messages"][-1]["content"].split("<answer_b>")
        if "odd" in a or "odd" in b:
            return Script(text="hm")
        return Script(text=f"VERDICT: {'A' if 'good' in a else 'B'}")

    upstream = FakeUpstream("judge-1")
    upstream.answer = answer
    with served(upstream) as url:
        upstream.url = url
        yield upstream


def policy(upstream: FakeUpstream) -> Policy:
    price = {"input": 1, "output": 3}
    return Policy.model_validate(
        {
            "name": "p",
            "student": {"model": "s", "engine": "embedded", "usd_per_million": {"input": 0, "output": 0}},
            "teacher": {"model": "t"},
            "objective": {"parity": {}},
            "judge": {"name": "llm", "model": "judge-1", "url": f"{upstream.url}/v1", "usd_per_million": price},
        }
    )


def questions(n: int) -> list[StudentQuestion]:
    rows = [
        DatasetRow(f"r{i}", f"c{i}", float(i), [{"role": "user", "content": f"say {i}"}], "so-so", "t", "allowed")
        for i in range(n)
    ]
    return [question(row) for row in rows]


def answered(path: Path, *texts: str) -> None:
    keep_answers(path, [StudentAnswer(request_id=f"r{i}", message={"content": t}) for i, t in enumerate(texts)])


def judged(declared: Policy, asked: list[StudentQuestion], path: Path) -> dict[str, Any]:
    return judge_answers(declared, asked, path, encoder=lambda: None, on_verdict=lambda done, of: None)


def test_every_answer_is_judged_once_and_the_verdicts_are_graded(model: FakeUpstream, tmp_path: Path) -> None:
    declared, asked, path = policy(model), questions(4), tmp_path / "kept.jsonl"
    answered(path, "good", "bad", "So-so.", "odd")
    first = judged(declared, asked, path)
    assert first == {"asked": 4, "failed": 0, "usd": str(6 * USD)}  # the same words as the teacher's cost nothing
    assert grade(asked, read_answers(path), Judges(declared.judge)) == {"r0": True, "r1": False, "r2": True}
    again = judged(declared, asked, path)
    assert again == {"asked": 0, "failed": 0, "usd": "0"}
    assert len(model.seen) == 6


def test_a_judge_that_fails_on_few_leaves_those_without_a_verdict_and_on_many_stops_the_round(
    model: FakeUpstream, tmp_path: Path
) -> None:
    declared, asked, path = policy(model), questions(10), tmp_path / "kept.jsonl"
    answered(path, *["good"] * 9, "refuse")
    usual = model.answer
    model.answer = lambda body: Script(status=400) if "refuse" in str(body) else usual(body)
    assert judged(declared, asked, path)["failed"] == 1
    assert len(grade(asked, read_answers(path), Judges(declared.judge))) == 9
    model.always(status=400)
    answered(other := tmp_path / "other.jsonl", *["bad"] * 10)
    with pytest.raises(JudgeError, match="10 of 10"):
        judged(declared, asked, other)

"""Has a student's answers judged where that takes a model, a user's own code or money, and keeps what was said."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from distiller.evaluation.answers import StudentAnswer, StudentQuestion, keep_answers, read_answers
from distiller.evaluation.grading import is_judged, pair
from router.errors import JudgeError
from router.judges.judge import Judges
from router.judges.models import judges_alone
from router.policy.policy import Policy
from router.scoring.text.encoder import Encoder

IN_FLIGHT = 8
MAX_FAILED = 0.2
"""Share of answers on which a judge may fail; those have no verdict. Beyond, it is the judge that is broken."""


def judge_answers(
    policy: Policy,
    questions: Sequence[StudentQuestion],
    kept: Path,
    *,
    encoder: Callable[[], Encoder | None],
    on_verdict: Callable[[int, int], None],
) -> dict[str, Any]:
    """Adds to the answers in file ``kept`` what the policy's judges say of them. What one said before is not
    asked again, so that a killed round pays once.

    Returns:
        how many were ``asked`` about, on how many the judge ``failed``, and what it cost (``usd``).

    Raises:
        JudgeError: the judge fails on too many.
        PolicyError: nobody knows what it costs, or it cannot be imported.
    """

    async def judge() -> dict[str, Any]:
        async with judges_alone(policy, os.environ, encoder) as judges:
            answers = read_answers(kept)
            open_ones = [q for q in questions if _is_open(q, answers, judges)]
            for question in questions if open_ones else ():
                judges.learn(question.task, question.teacher)
            return await _Judging(judges, answers, kept, on_verdict).all(open_ones, MAX_FAILED * len(questions))

    return asyncio.run(judge())


def _is_open(question: StudentQuestion, answers: Mapping[str, StudentAnswer], judges: Judges) -> bool:
    answer = answers.get(question.request_id)
    return answer is not None and not judges.immediate(question.task) and not is_judged(question, answer, judges)


class _Judging:
    """Some at once; every verdict is kept as it comes."""

    def __init__(
        self,
        judges: Judges,
        answers: Mapping[str, StudentAnswer],
        kept: Path,
        on_verdict: Callable[[int, int], None],
    ) -> None:
        self._judges, self._answers, self._kept, self._on_verdict = judges, answers, kept, on_verdict
        self._usd, self._done, self._failed = Decimal(0), 0, 0
        self._last_error = ""

    async def all(self, questions: Sequence[StudentQuestion], most_failed: float) -> dict[str, Any]:
        queue = iter(questions)

        async def worker() -> None:
            for question in queue:
                await self._one(question)
                self._done += 1
                self._on_verdict(self._done, len(questions))

        await asyncio.gather(*(worker() for _ in range(min(IN_FLIGHT, len(questions)))))
        if self._failed > most_failed:
            raise JudgeError(
                f"the judge failed on {self._failed} of {len(questions)} answers: {self._last_error}", usd=self._usd
            )
        return {"asked": len(questions), "failed": self._failed, "usd": str(self._usd)}

    async def _one(self, question: StudentQuestion) -> None:
        answer = self._answers[question.request_id]
        try:
            verdict = await self._judges.verdict(pair(question, answer))
        except JudgeError as e:
            self._usd += e.usd
            self._failed += 1
            self._last_error = str(e)
            return
        self._usd += verdict.usd
        judged = {
            "verdict": verdict.acceptable,
            "judged_by": self._judges.label(question.task),
            "right": verdict.student_acceptable,
            "teacher_right": verdict.teacher_acceptable,
        }
        keep_answers(self._kept, [answer.model_copy(update=judged)])

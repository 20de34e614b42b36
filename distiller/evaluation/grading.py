"""How good is a student's answer to each question, and to all of them: the judge's word, by slice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from distiller.data.rows import DatasetRow
from distiller.evaluation.answers import StudentAnswer, StudentQuestion
from distiller.evaluation.gate import PairedOutcome
from distiller.evaluation.slices import slices_of
from router.contracts.decision import Deferral, Tier
from router.contracts.records import Record
from router.judges.judge import Judges
from router.judges.pair import Pair
from router.policy.judges import by_judge
from router.scoring.model import Example
from router.scoring.text.features import extract


def question(row: DatasetRow, weight: float = 1.0) -> StudentQuestion:
    """A dataset's row as a question, asked as its client did. ``weight`` is how many requests like it it stands for."""
    body = {**row.options, "messages": row.messages}
    features = extract(body)
    return StudentQuestion(
        request_id=row.request_id,
        body=body,
        teacher=row.said,
        features=features,
        slices=slices_of(features, row.task),
        task=row.task,
        weight=weight,
        streamed=row.streamed,
        teacher_right=row.teacher_right,
        teacher_tokens=row.teacher_tokens,
    )


def newest(rows: Sequence[DatasetRow], limit: int) -> list[DatasetRow]:
    """The newest ``limit`` rows, the oldest of them first."""
    return sorted(rows, key=lambda r: (r.created_at, r.request_id))[-limit:] if limit else []


def live_answer(record: Record, versions: frozenset[str], temperature: float) -> StudentAnswer | None:
    """What a student answered to an audited request in live traffic; None where it gave no whole answer, or was asked
    otherwise than it is now.

    ``versions`` names the student versions that are this student, ``temperature`` is the policy's.
    """
    counts = record.decision.audited and record.is_traffic and record.as_said(Tier.STUDENT)
    answer, audit = record.answer_of(Tier.STUDENT) if counts else None, record.audit
    if answer is None or answer.message is None or answer.finish_reason is None:
        return None
    as_asked = (record.request or {}).get("temperature") is not None or answer.temperature == temperature
    if answer.student_version not in versions or not as_asked:
        return None
    return StudentAnswer(
        request_id=record.request_id,
        message=answer.message,
        finish_reason=answer.finish_reason,
        signals=answer.signals,
        output_tokens=answer.usage.output_tokens,
        seconds=answer.seconds,
        verdict=audit.acceptable if audit else None,
        judged_by=audit.judge if audit and by_judge(audit.judge) else None,
        right=record.right(Tier.STUDENT),
        teacher_right=record.right(Tier.TEACHER),
        default_temperature=temperature,
        kept_back=record.deferral not in (None, Deferral.CONFIDENCE),
    )


def grade(
    questions: Sequence[StudentQuestion], answers: Mapping[str, StudentAnswer], judges: Judges
) -> dict[str, bool]:
    """Is each answer as good as the teacher's? By request id; what has no answer or no verdict is left out.

    Judges that answer at once are asked; what others said is kept with the answers (``distiller.evaluation.verdicts``).
    """
    for question in questions:
        judges.learn(question.task, question.teacher)
    found = ((q.request_id, _verdict(q, answers[q.request_id], judges)) for q in questions if q.request_id in answers)
    return {request_id: verdict for request_id, verdict in found if verdict is not None}


def _verdict(question: StudentQuestion, answer: StudentAnswer, judges: Judges) -> bool | None:
    if is_judged(question, answer, judges):
        return answer.verdict
    found = judges.now(pair(question, answer)) if judges.immediate(question.task) else None
    return found.acceptable if found else None


def is_judged(question: StudentQuestion, answer: StudentAnswer, judges: Judges) -> bool:
    """Whether the kept verdict holds: a person's, or that of today's judge where asking it again takes something."""
    if answer.judged_by is None:
        return answer.verdict is not None
    return answer.judged_by == judges.label(question.task) and not judges.immediate(question.task)


def pair(question: StudentQuestion, answer: StudentAnswer) -> Pair:
    return Pair(answer.message, question.teacher, question.body, question.task, question.request_id)


def examples(
    questions: Sequence[StudentQuestion], answers: Mapping[str, StudentAnswer], grades: Mapping[str, bool]
) -> list[Example]:
    """What the scorer learns from and is tested on, in the questions' order."""
    return [_example(q, answers[q.request_id], grades[q.request_id]) for q in questions if q.request_id in grades]


def _example(question: StudentQuestion, answer: StudentAnswer, acceptable: bool) -> Example:
    """A student as good as a teacher that is right is right itself, and only that one."""
    teacher = question.teacher_right if answer.teacher_right is None else answer.teacher_right
    student = acceptable if answer.right is None and teacher else answer.right
    return Example(
        question.features,
        answer.signals,
        acceptable,
        question.weight,
        question.streamed,
        student=student,
        teacher=teacher,
        request_id=question.request_id,
        teacher_tokens=question.teacher_tokens,
        kept_back=answer.kept_back,
    )


def outcomes(
    questions: Sequence[StudentQuestion], candidate: Mapping[str, bool], incumbent: Mapping[str, bool], form: str = ""
) -> list[PairedOutcome]:
    """The gate's rows: both students' grades side by side, the candidate's in this ``form``."""
    graded = (q for q in questions if q.request_id in candidate)
    return [
        PairedOutcome(q.request_id, candidate[q.request_id], incumbent.get(q.request_id), q.slices, form)
        for q in graded
    ]


def report(
    questions: Sequence[StudentQuestion], answers: Mapping[str, StudentAnswer], grades: Mapping[str, bool]
) -> dict[str, Any]:
    """Plain figures for the manifest: acceptable rate, overall and by slice, and speed.

    ``acceptable_rate`` is the retention too: the judge compares with the teacher's own answers, so the
    teacher's rate is 1. Times are seconds with many questions in flight at once.
    """
    graded = [q for q in questions if q.request_id in grades]
    slices: dict[str, list[bool]] = defaultdict(list)
    for q in graded:
        for name in q.slices:
            slices[name].append(grades[q.request_id])
    times = [answers[q.request_id].seconds for q in graded]
    return {
        "n": len(graded),
        "acceptable_rate": _mean([grades[q.request_id] for q in graded]),
        "slices": {name: {"n": len(v), "acceptable_rate": _mean(v)} for name, v in sorted(slices.items())},
        "output_tokens_mean": _mean([answers[q.request_id].output_tokens for q in graded]),
        "seconds_p50": percentile(times, 0.5),
        "seconds_p95": percentile(times, 0.95),
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of them lies; 0 without any."""
    return sorted(values)[int(len(values) * share)] if values else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0

"""A student's evaluation as plain values: what the report's JSON holds, and what the page draws.

Every share is of questions, with a 95% interval by the paired bootstrap (``distiller.evaluation.intervals``), except
where another is named. Everything is judged against the teacher's own answers, whose rate is 1 by definition: so the
acceptable rate is the retention. Where a judge or a user could tell who is right without comparing, the ratio of both
tiers' rates stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from statistics import fmean
from typing import Any

import numpy as np

from distiller.evaluation.answers import StudentAnswer, StudentQuestion
from distiller.evaluation.calibration import brier, calibration_error, reliability
from distiller.evaluation.grading import percentile
from distiller.evaluation.intervals import Resamples
from router.contracts.prices import Price
from router.contracts.records import Signals, Usage
from router.pricing import cost_usd
from router.scoring.scorer import Scorer
from router.scoring.statistics.estimates import Interval

SCHEMA = 1
LEAST = 10
"""Questions below which a slice is not told apart, and nothing is ranked or calibrated."""
CURVE = 40
"""Points of a curve, at most."""
NAMED = 50
"""Forgotten questions that are named, at most."""
OVERALL = "overall"

_SIGNALS: Mapping[str, Callable[[Signals], float]] = {
    "mean log-probability": lambda s: s.mean_logprob,
    "lowest log-probability": lambda s: s.min_logprob,
    "tenth percentile": lambda s: s.q10_logprob,
    "first token": lambda s: s.first_logprob,
    "whole answer": lambda s: s.sum_logprob,
}
"""What the answer's own token probabilities say, each high where the student is sure."""


@dataclass(frozen=True, slots=True)
class EvaluatedStudent:
    """Who is evaluated. ``form``: what its engine read; ``parent``: the bundle it is held against, None: none."""

    name: str
    model: str
    form: str
    engine: str
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Examination:
    """Questions with a student's answers and the judge's grades, both by request id, and the same students' grades of
    before where there is a parent.

    ``perturbed``: (id of the original, changed question), answered and graded as the rest. ``scorer`` is the
    student's own, None where it has none; ``learnt``: requests that it was fitted on, which say nothing of it.
    """

    questions: Sequence[StudentQuestion]
    answers: Mapping[str, StudentAnswer]
    grades: Mapping[str, bool]
    parent_grades: Mapping[str, bool] = field(default_factory=dict)
    perturbed: Sequence[tuple[str, StudentQuestion]] = ()
    scorer: Scorer | None = None
    learnt: frozenset[str] = frozenset()

    @property
    def graded(self) -> list[StudentQuestion]:
        return [q for q in self.questions if q.request_id in self.grades]


def study(
    student: EvaluatedStudent,
    asked: Examination,
    *,
    student_price: Price,
    teacher_price: Price | None,
    in_flight: int,
    seed: int = 0,
) -> dict[str, Any]:
    """All figures. ``in_flight``: how many questions were under way at once, which is what the latencies are of."""
    graded = asked.graded
    return {
        "schema_version": SCHEMA,
        "student": asdict(student),
        "questions": {"asked": len(asked.questions), "graded": len(graded), "perturbed": len(asked.perturbed)},
        "retention": _by_slice(graded, lambda rows: _retention(rows, asked, seed)),
        "adversarial": _adversarial(asked, seed),
        "forgetting": _forgetting(asked, seed),
        "calibration": _calibration(asked),
        "deferral": _deferral(asked, seed),
        "serving": _serving(graded, asked.answers, student_price, teacher_price, in_flight),
    }


def _by_slice(
    questions: Sequence[StudentQuestion], tell: Callable[[Sequence[StudentQuestion]], dict[str, Any]]
) -> list[dict[str, Any]]:
    """What ``tell`` says of all, and of each slice that is large enough, by name."""
    names = sorted({s for q in questions for s in q.slices})
    groups = [(OVERALL, list(questions)), *((name, [q for q in questions if name in q.slices]) for name in names)]
    return [{"name": n, "n": len(g), **tell(g)} for n, g in groups if n == OVERALL or LEAST <= len(g) < len(questions)]


def _retention(questions: Sequence[StudentQuestion], asked: Examination, seed: int) -> dict[str, Any]:
    told: dict[str, Any] = {
        "acceptable": limits(Resamples(len(questions), seed).rate([asked.grades[q.request_id] for q in questions]))
    }
    pairs = [p for p in (_rights(q, asked.answers[q.request_id]) for q in questions) if p is not None]
    if len(pairs) >= LEAST:
        student, teacher = [s for s, _ in pairs], [t for _, t in pairs]
        draws = Resamples(len(pairs), seed)
        told |= {
            "right_known": len(pairs),
            "student_right": limits(draws.rate(student)),
            "teacher_right": limits(draws.rate(teacher)),
            "right_ratio": limits(draws.ratio(student, teacher)),
        }
    return told


def _rights(question: StudentQuestion, answer: StudentAnswer) -> tuple[bool, bool] | None:
    """Whether each tier is right, where both are known."""
    teacher = question.teacher_right if answer.teacher_right is None else answer.teacher_right
    return None if answer.right is None or teacher is None else (answer.right, teacher)


def _adversarial(asked: Examination, seed: int) -> list[dict[str, Any]]:
    """By kind of change: how many of the same questions are answered acceptably before and after it."""
    pairs = [(old, q) for old, q in asked.perturbed if q.request_id in asked.grades and old in asked.grades]
    names = sorted({s for _, q in pairs for s in q.slices})
    groups = [(OVERALL, pairs), *((name, [p for p in pairs if name in p[1].slices]) for name in names)]
    return [_changed(name, group, asked, seed) for name, group in groups if group]


def _changed(name: str, pairs: Sequence[tuple[str, StudentQuestion]], asked: Examination, seed: int) -> dict[str, Any]:
    before, after = [asked.grades[old] for old, _ in pairs], [asked.grades[q.request_id] for _, q in pairs]
    draws = Resamples(len(pairs), seed)
    return {
        "name": name,
        "n": len(pairs),
        "original": limits(draws.rate(before)),
        "perturbed": limits(draws.rate(after)),
        "difference": limits(draws.difference(after, before)),
    }


def _forgetting(asked: Examination, seed: int) -> dict[str, Any] | None:
    """What the parent could and this one cannot, and the other way round; None without a parent's answers."""
    both = [q for q in asked.graded if q.request_id in asked.parent_grades]
    if not both:
        return None

    def tell(questions: Sequence[StudentQuestion]) -> dict[str, Any]:
        before = [asked.parent_grades[q.request_id] for q in questions]
        after = [asked.grades[q.request_id] for q in questions]
        return {
            "forgotten": sum(b and not a for b, a in zip(before, after, strict=True)),
            "gained": sum(a and not b for b, a in zip(before, after, strict=True)),
            "before": fmean(before),
            "after": fmean(after),
            "difference": limits(Resamples(len(questions), seed).difference(after, before)),
        }

    lost = [q.request_id for q in both if asked.parent_grades[q.request_id] and not asked.grades[q.request_id]]
    return {"slices": _by_slice(both, tell), "forgotten": lost[:NAMED]}


def _calibration(asked: Examination) -> list[dict[str, Any]]:
    """Of the scorer before the answer, and of the second look that has seen it; nothing that it learnt from counts."""
    questions = [q for q in asked.graded if q.request_id not in asked.learnt]
    if asked.scorer is None or len(questions) < LEAST:
        return []
    labels = np.array([asked.grades[q.request_id] for q in questions], np.bool_)
    found = []
    for name, values in _probabilities(asked.scorer, questions, asked.answers).items():
        p = np.array(values, np.float64)
        bins = [asdict(b) for b in reliability(p, labels)]
        row = {"n": len(p), "ece": calibration_error(p, labels), "brier": brier(p, labels), "bins": bins}
        found.append({"name": name, **row})
    return found


def _probabilities(
    scorer: Scorer, questions: Sequence[StudentQuestion], answers: Mapping[str, StudentAnswer]
) -> dict[str, list[float]]:
    scores = [scorer.score(q.features) for q in questions]
    if scorer.learned.head is None:
        return {"score": scores}
    signals = (answers[q.request_id].signals for q in questions)
    return {"score": scores, "accept": [scorer.accept(p, s) for p, s in zip(scores, signals, strict=True)]}


def _deferral(asked: Examination, seed: int) -> list[dict[str, Any]]:
    """How well each signal tells acceptable answers from others, and what quality it keeps at what share."""
    questions = [q for q in asked.graded if q.request_id not in asked.learnt]
    known = [q for q in questions if asked.answers[q.request_id].signals is not None]
    if len(known) < LEAST:
        return []
    labels = [asked.grades[q.request_id] for q in known]
    draws = Resamples(len(known), seed, draws=500)
    ranked = {
        name: [read(s) for q in known if (s := asked.answers[q.request_id].signals)] for name, read in _SIGNALS.items()
    }
    if asked.scorer is not None:
        ranked |= _probabilities(asked.scorer, known, asked.answers)
    rows = [
        {"name": name, "n": len(known), "auroc": limits(draws.auroc(values, labels)), "curve": curve(values, labels)}
        for name, values in ranked.items()
    ]
    return sorted(rows, key=lambda r: -(r["auroc"][0] or 0.0))


def curve(scores: Sequence[float], labels: Sequence[bool]) -> list[tuple[float, float]]:
    """(share kept, share of it that is acceptable), surest first; equal scores are kept together."""
    order = np.argsort(-np.asarray(scores), kind="stable")
    values, good = np.asarray(scores)[order], np.cumsum(np.asarray(labels, np.float64)[order])
    ends = np.flatnonzero(np.append(np.diff(values), 1) != 0)
    some = ends[np.unique(np.linspace(0, len(ends) - 1, min(CURVE, len(ends))).round().astype(int))]
    return [(round((i + 1) / len(values), 4), round(float(good[i] / (i + 1)), 4)) for i in some.tolist()]


def _serving(
    questions: Sequence[StudentQuestion],
    answers: Mapping[str, StudentAnswer],
    student: Price,
    teacher: Price | None,
    in_flight: int,
) -> dict[str, Any]:
    """Cost by the policy's prices; input tokens are the scorer's estimate, output tokens as the engine counted them."""
    said = [answers[q.request_id] for q in questions]
    known = [q for q in questions if q.teacher_tokens]
    return {
        "in_flight": in_flight,
        "seconds_p50": percentile([a.seconds for a in said], 0.5),
        "seconds_p95": percentile([a.seconds for a in said], 0.95),
        "output_tokens_mean": fmean([a.output_tokens for a in said]) if said else None,
        "usd_per_request": _usd(questions, [a.output_tokens for a in said], student),
        "teacher_usd_per_request": _usd(known, [q.teacher_tokens for q in known], teacher) if teacher else None,
    }


def _usd(questions: Sequence[StudentQuestion], output_tokens: Sequence[int], price: Price) -> float | None:
    if not questions:
        return None
    lengths = zip((q.features.input_tokens for q in questions), output_tokens, strict=True)
    spent = sum((cost_usd(Usage(input_tokens=read, output_tokens=said), price) for read, said in lengths), Decimal(0))
    return float(spent / len(questions))


def limits(interval: Interval) -> list[float | None]:
    """[estimate, low, high], as JSON holds it."""
    return [
        None if x is None or not np.isfinite(x) else round(float(x), 6)
        for x in (interval.estimate, interval.low, interval.high)
    ]

"""How good a ranking of requests is: what is gained for what is escalated, and at what cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Outcomes:
    """Each request's outcome at both tiers: right or not, and US dollars, all (n,)."""

    student: Bools
    teacher: Bools
    student_usd: Floats
    teacher_usd: Floats


def recovered(rank: Floats, o: Outcomes) -> Floats:
    """The share of the tiers' gap in accuracy recovered with the first k escalated, k = 0..n, (n + 1,): PGR as in
    RouteLLM (arXiv 2406.18665). ``rank``: (n,), high goes to the teacher first."""
    order = np.argsort(-rank, kind="stable")
    gains = np.cumsum(o.teacher[order].astype(float) - o.student[order])
    found: Floats = np.append(0.0, gains) / gains[-1]
    return found


def apgr(rank: Floats, o: Outcomes) -> float:
    """The mean of the recovered gap over all shares escalated: random gives 0.5."""
    pgr = recovered(rank, o)
    return float(np.trapezoid(pgr, np.linspace(0, 1, len(pgr))))


def cpt(rank: Floats, o: Outcomes, wanted: float) -> float:
    """The share escalated from which on the wanted part of the gap is recovered, first time."""
    pgr = recovered(rank, o)
    return float(np.argmax(pgr >= wanted)) / (len(pgr) - 1)


def at_share(rank: Floats, o: Outcomes, escalated: float) -> tuple[float, float, float]:
    """PGR, accuracy and US dollars per 1,000 requests with this share escalated."""
    k = round(escalated * len(rank))
    first = np.argsort(-rank, kind="stable")[:k]
    up = np.zeros(len(rank), np.bool_)
    up[first] = True
    accuracy = np.where(up, o.teacher, o.student).mean()
    cost = np.where(up, o.teacher_usd, o.student_usd).mean()
    return float(recovered(rank, o)[k]), float(accuracy), 1000 * float(cost)


def aiq(rank: Floats, o: Outcomes) -> float:
    """Average improvement in quality: the mean accuracy on the upper convex hull of the cost-quality curve, over
    the costs between the tiers (RouterBench, arXiv 2403.12031)."""
    order = np.argsort(-rank, kind="stable")
    extra = np.append(0.0, np.cumsum((o.teacher_usd - o.student_usd)[order]))
    right = np.append(0.0, np.cumsum(o.teacher[order].astype(float) - o.student[order])) + o.student.sum()
    hull: list[tuple[float, float]] = []
    for x, y in zip(extra.tolist(), right.tolist(), strict=True):
        while len(hull) > 1 and (hull[-1][1] - hull[-2][1]) * (x - hull[-2][0]) <= (y - hull[-2][1]) * (
            hull[-1][0] - hull[-2][0]
        ):
            hull.pop()
        hull.append((x, y))
    xs, ys = np.array(hull).T
    return float(np.trapezoid(np.maximum.accumulate(ys), xs) / (xs[-1] - xs[0]) / len(rank))

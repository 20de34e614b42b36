"""Samples in a replay: what drawing more answers beside one that fell short would cost, and which it would lift.

Where the log has samples, it is known how many agreed. Elsewhere the bundle's own learning tells how likely each
number is; of an audited request whose verdict is known by Bayes' rule, since agreement goes with being right.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from router.contracts.records import Signals
from router.scoring.agreement import Agreement
from router.scoring.answer_head import AnswerHead

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Costs = tuple[float, float]
"""US dollars: the student's answer, and what the teacher's would have been by the same tokens."""


@dataclass(frozen=True, slots=True)
class ThirdLook:
    """Columns over requests, NaN where no whole answer of the student is known.

    ``alone``: (n,), what the second look says; ``said``: (n,), what the third says by the log's own samples, NaN where
    it has none; ``often``: (n, k + 1), how likely j of k samples agree; ``right``: (n, k + 1), P(acceptable) once they
    do; ``costs``: (n, 2), see ``Costs``.
    """

    alone: Floats
    said: Floats
    often: Floats
    right: Floats
    costs: Floats

    @classmethod
    def of(cls, head: AnswerHead, agreement: Agreement, answers: Sequence[tuple[float, Signals | None, Costs]]) -> Self:
        """From each request's score, the student's signals and the costs."""
        alone, said, often, right, costs = zip(*(_row(head, agreement, *answer) for answer in answers), strict=True)
        return cls(*map(np.array, (alone, said, often, right, costs)))

    @property
    def samples(self) -> int:
        return int(self.often.shape[1]) - 1

    def drawn(self, least: float) -> Bools:
        """Which answers samples would be drawn of, (n,): those that fall short of ``least``, where the chance that
        they are lifted saves more than they cost, as ``router.cascade.samples`` has it."""
        student, teacher = self.costs.T
        pays = self._chance(least) * teacher > self.samples * student
        return np.asarray((self.alone < least) & pays)  # of what is not known, nothing

    def lifted(self, least: float, acceptable: Bools | None = None) -> Floats:
        """P(samples lift the answer | they are drawn), (n,): 1 or 0 where the log tells. ``acceptable``, (n,), are the
        verdicts, where these are known."""
        likely = self.often
        if acceptable is not None:
            likely = self.often * np.where(acceptable[:, None], self.right, 1 - self.right)
            total = likely.sum(axis=1, keepdims=True)
            likely = np.divide(likely, total, out=self.often.copy(), where=total > 0)
        chance = (likely * (self.right >= least)).sum(axis=1)
        return np.where(np.isnan(self.said), chance, self.said >= least)

    def _chance(self, least: float) -> Floats:
        return np.asarray((self.often * (self.right >= least)).sum(axis=1))


def _row(
    head: AnswerHead, agreement: Agreement, score: float, signals: Signals | None, costs: Costs
) -> tuple[float, float, list[float], list[float], Costs]:
    k, unknown = agreement.samples, float("nan")
    if signals is None or not signals.complete:
        return unknown, unknown, [0.0] * (k + 1), [0.0] * (k + 1), costs
    p, share = head.alone(score, signals), signals.agreement
    said = unknown if share is None or signals.samples != k else agreement(p, share)
    often = agreement.shares[bisect_right(agreement.edges, p)]
    return p, said, list(often), [agreement(p, j / k) for j in range(k + 1)], costs

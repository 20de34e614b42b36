"""What escalating gains for its cost, as one number that is high for the student.

A day's money buys most where gain per dollar is highest first (the greedy rule for the fractional knapsack; Dantzig
1957). A share of the requests buys most by the gain alone: each takes up one place, whatever it costs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from router.contracts.prices import Price
from router.contracts.records import Usage
from router.pricing import Prices, cost_usd

LEAST = 0.05
"""Of a usual request's extra cost: no request counts as cheaper, since a length is only expected."""


@dataclass(frozen=True, slots=True)
class Extra:
    """What the teacher costs more than the student, by the prices of both."""

    teacher: Price
    student: Price

    @classmethod
    def of(cls, prices: Prices) -> Self:
        return cls(prices.teacher(), prices.student)

    def dearness(self, usual: tuple[float, float], input_tokens: float, output_tokens: float) -> float:
        """The expected extra cost of a request, as a multiple of a ``usual`` one's (input and output tokens); 1 where
        the teacher costs no more. Both tiers are taken to answer at the same length."""
        usd = self._usd(*usual)
        return max(LEAST, self._usd(input_tokens, output_tokens) / usd) if usd > 0 else 1.0

    def _usd(self, input_tokens: float, output_tokens: float) -> float:
        usage = Usage(input_tokens=round(input_tokens), output_tokens=round(output_tokens))
        return float(cost_usd(usage, self.teacher) - cost_usd(usage, self.student))


def worth(gain: float, dearness: float = 1.0) -> float:
    """From 0, where escalating gains most for its cost, to 1; 0.5 where it gains nothing.

    ``gain``: P(the teacher is right) less P(the student is), -1 to 1. It falls strictly with ``gain / dearness``.
    """
    return 1 / (1 + math.exp(2 * gain / dearness))

"""What may be spent in one UTC day, and what of it is left."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Protocol

from router.shared import NANO, SharedState

DAY_SECONDS = 86_400


class Counted(Protocol):
    """Where a budget's money is counted, in whole nano-dollars, by all who spend from it together. Days are
    UTC, counted since 1970."""

    def spend(self, day: int, nano: int) -> None: ...

    def spent_before(self, day: int, nano: int) -> None:
        """Sets what was spent before counting began."""
        ...

    def reserve(self, nano: int) -> None:
        """Negative gives back."""
        ...

    def spent(self, day: int) -> int: ...

    def reserved(self) -> int: ...

    def committed(self, day: int) -> int:
        """Spent or reserved, in one look: every request that the teacher might serve asks for it."""
        ...


class DailyBudget:
    """Counts US dollars spent since midnight UTC against a daily cap.

    What is reserved is held for answers under way, so that many at once cannot all pass a check that
    only one should. Fractions of a nano-dollar are rounded up.

    Args:
        counted: where; by default this process counts alone.
    """

    def __init__(
        self, usd_per_day: Decimal, counted: Counted | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.cap(usd_per_day)
        self._counted: Counted = counted or SharedState().account("budget")
        self._clock = clock

    def cap(self, usd_per_day: Decimal) -> None:
        """Changes the cap; what was spent stays spent."""
        self._cap = _nano(usd_per_day)

    @property
    def spent_usd(self) -> Decimal:
        return Decimal(self._counted.spent(self._today())) / NANO

    @property
    def reserved_usd(self) -> Decimal:
        return Decimal(self._counted.reserved()) / NANO

    @property
    def exhausted(self) -> bool:
        return self._counted.committed(self._today()) >= self._cap

    def left_today(self) -> tuple[float, float]:
        """What is neither spent nor held, in US dollars, and how many seconds of the day it has to last."""
        day, second = divmod(self._clock(), DAY_SECONDS)
        return max(0, self._cap - self._counted.committed(int(day))) / NANO, DAY_SECONDS - second

    def reserve(self, usd: Decimal) -> None:
        self._counted.reserve(_nano(usd))

    def settle(self, reserved_usd: Decimal, spent_usd: Decimal) -> None:
        """Gives back what was reserved and books what was spent; unreserved spending passes zero."""
        if reserved_usd:
            self._counted.reserve(-_nano(reserved_usd))
        if spent_usd:
            self._counted.spend(self._today(), _nano(spent_usd))

    def spent_before(self, at: float, usd: Decimal) -> None:
        """Seeds the count: what was spent on the UTC day of ``at`` (unix time) before then. Idempotent."""
        self._counted.spent_before(int(at // DAY_SECONDS), _nano(usd))

    def _today(self) -> int:
        return int(self._clock() // DAY_SECONDS)


def _nano(usd: Decimal) -> int:
    return math.ceil(usd * NANO)

"""What may be spent in one UTC day: a cap, and a pace that keeps some of it for the evening."""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal

DAY_SECONDS = 86_400


class DailyBudget:
    """Counts US dollars spent since midnight UTC against a daily cap.

    ``reserved_usd`` is held for answers under way, so that many at once cannot all pass a check that
    only one should. ``spent_usd`` seeds the count with what was spent before a restart.
    """

    def __init__(
        self, usd_per_day: Decimal, *, spent_usd: Decimal = Decimal(0), clock: Callable[[], float] = time.time
    ) -> None:
        self.usd_per_day = usd_per_day
        self.reserved_usd = Decimal(0)
        self._clock = clock
        self._day = self._today()
        self._spent = spent_usd

    @property
    def spent_usd(self) -> Decimal:
        if (today := self._today()) != self._day:
            self._day, self._spent = today, Decimal(0)
        return self._spent

    @property
    def exhausted(self) -> bool:
        return self.spent_usd + self.reserved_usd >= self.usd_per_day

    def affordable_now(self, burst: float = 0.02) -> bool:
        """Whether spending keeps pace with the day: at most the cap times (the share of the day that
        has passed + ``burst``), never more than the cap."""
        passed = self._clock() % DAY_SECONDS / DAY_SECONDS
        return self.spent_usd + self.reserved_usd < self.usd_per_day * Decimal(min(1.0, passed + burst))

    def reserve(self, usd: Decimal) -> None:
        self.reserved_usd += usd

    def settle(self, reserved_usd: Decimal, spent_usd: Decimal) -> None:
        """Gives back what was reserved and books what was spent; unreserved spending passes zero."""
        self.reserved_usd -= reserved_usd
        self._spent = self.spent_usd + spent_usd

    def _today(self) -> int:
        return int(self._clock() // DAY_SECONDS)

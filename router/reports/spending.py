"""Who spent what: one stretch of traffic by task, by user and by key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from router.contracts.records import Record

NOBODY, OTHERS = "(none)", "(others)"
"""What a request is counted under that names nobody, and all who are not named themselves."""
AXES = ("task", "user", "key")
MOST_NAMES = 10_000
"""Of one kind are told apart at most: clients choose tasks and users."""
SHOWN = 10


@dataclass(slots=True)
class SpendLine:
    """Requests of one name, and US dollars that all about them cost; of these some are ``estimated_usd``."""

    requests: int = 0
    usd: Decimal = Decimal(0)
    estimated_usd: Decimal = Decimal(0)

    def add(self, other: SpendLine) -> None:
        self.requests += other.requests
        self.usd += other.usd
        self.estimated_usd += other.estimated_usd


@dataclass(slots=True)
class Spending:
    """By each of ``AXES``, the dearest first. A key is shown by its fingerprint, as records have it."""

    lines: dict[str, dict[str, SpendLine]] = field(default_factory=lambda: {axis: {} for axis in AXES})

    def add(self, record: Record) -> None:
        line = SpendLine(1, record.cost_usd, record.estimated_usd)
        for axis, name in zip(AXES, (record.task, record.user, record.owner), strict=True):
            self._line(axis, name or NOBODY).add(line)

    def _line(self, axis: str, name: str) -> SpendLine:
        known = self.lines[axis]
        if name not in known and len(known) >= MOST_NAMES:
            name = OTHERS
        return known.setdefault(name, SpendLine())

    def dearest(self, axis: str, most: int = SHOWN) -> Iterator[tuple[str, SpendLine]]:
        """The names that cost most, and all others together."""
        named = sorted(self.lines[axis].items(), key=lambda item: (item[0] == OTHERS, -item[1].usd, item[0]))
        yield from named[:most]
        if rest := named[most:]:
            yield OTHERS, _together(line for _, line in rest)

    def as_dict(self) -> dict[str, list[dict[str, Any]]]:
        """Plain values: amounts as text, so that none loses a digit."""
        return {
            axis: [
                {
                    "name": name,
                    "requests": line.requests,
                    "usd": str(line.usd),
                    "estimated_usd": str(line.estimated_usd),
                }
                for name, line in self.dearest(axis, 100)
            ]
            for axis in AXES
        }


def _together(lines: Iterable[SpendLine]) -> SpendLine:
    total = SpendLine()
    for line in lines:
        total.add(line)
    return total

"""What requests count, summed up in plain Python until the metrics library takes it all at once."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from decimal import Decimal

from prometheus_client import Histogram

OVERHEAD_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)
LATENCY_BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120)


class Distribution:
    """What a histogram observed, to be told it all at once."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds, self._counts, self._total = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, amount: float) -> None:
        self._total += amount
        self._counts[bisect_left(self._bounds, amount)] += 1

    def pour(self, histogram: Histogram, *labels: str) -> None:
        """Into the histogram of the same bounds. The library has no call for many at once, but its children
        keep a sum and how many fell into each bucket alone (cumulated at the scrape)."""
        if not any(self._counts):
            return
        child = histogram.labels(*labels)
        child._sum.inc(self._total)
        for bucket, count in zip(child._buckets, self._counts, strict=True):
            if count:
                bucket.inc(count)


@dataclass(slots=True)
class FinishedRequests:
    """Requests that ended the same way."""

    count: int = 0
    counterfactual_usd: Decimal = Decimal(0)
    seconds: Distribution = field(default_factory=lambda: Distribution(LATENCY_BUCKETS))
    first_token_seconds: Distribution = field(default_factory=lambda: Distribution(LATENCY_BUCKETS))
    overhead_seconds: Distribution = field(default_factory=lambda: Distribution(OVERHEAD_BUCKETS))


@dataclass(slots=True)
class TierSpend:
    """Answers of one tier, for one purpose."""

    usd: Decimal = Decimal(0)
    estimated_usd: Decimal = Decimal(0)
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0

"""When what happens in a run: the learning rate's course, when the dev loss is measured, when to stop early."""

from __future__ import annotations

import math
from collections.abc import Sequence


def schedule(step: int, steps: int, warmup_share: float) -> float:
    """The learning rate's factor: up linearly over the warm-up, then a half cosine down to a tenth."""
    warmup = math.ceil(warmup_share * steps)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * done))


def measured_after(steps: int, evaluations: int) -> frozenset[int]:
    """The steps after which the dev loss is measured: ``evaluations`` of them, evenly spread, the last among them."""
    return frozenset(math.ceil(steps * (i + 1) / evaluations) for i in range(min(evaluations, steps)))


def no_better_for(losses: Sequence[float]) -> int:
    """How many measurements there were since the best one."""
    return len(losses) - 1 - min(range(len(losses)), key=losses.__getitem__) if losses else 0

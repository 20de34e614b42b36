"""A black-box search for words that, appended, send any prompt to the teacher (after Shafran et al. 2025, "Rerouting
LLM Routers", arXiv 2501.01818): it can cost money, never quality."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from statistics import fmean


def teacher_suffix(
    prompts: Sequence[str], rank: Callable[[str], float], words: Sequence[str], r: random.Random, tries: int = 300
) -> str:
    """Ten of ``words`` that, appended, raise the mean ``rank`` (high: to the teacher) of the prompts most, by
    changing one word at a time as long as that helps."""

    def raised(suffix: Sequence[str]) -> float:
        return fmean(rank(f"{p} {' '.join(suffix)}") for p in prompts)

    best = [r.choice(words) for _ in range(10)]
    at = raised(best)
    for _ in range(tries):
        other = best.copy()
        other[r.randrange(len(other))] = r.choice(words)
        if (reached := raised(other)) > at:
            best, at = other, reached
    return " ".join(best)

"""Recorded requests for streams whose traffic changes: by category, with each teacher's verdict on one student."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from harness import multiple_choice, read_jsonl

from router.contracts.bundles import NEVER
from router.scoring.text.features import Features, extract

NEW = 0.25

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Item:
    """One recorded prompt; ``acceptable`` by teacher: the student is right, or that teacher is not."""

    features: Features
    category: str
    acceptable: Mapping[str, bool]


@dataclass(frozen=True)
class Pool:
    """What a stretch of the stream draws from: scores, and each request's chance that the student fails it, (n,)."""

    scores: Floats
    failing: Floats

    def __post_init__(self) -> None:
        order = np.argsort(-self.scores)
        object.__setattr__(self, "_sorted", -self.scores[order])
        object.__setattr__(self, "_lost", np.append(0.0, np.cumsum(self.failing[order])) / len(order))

    def served(self, threshold: float) -> float:
        return self._count(threshold) / len(self.scores)

    def risk(self, threshold: float) -> float:
        """Share of all requests that the student serves and fails at this threshold."""
        return float(self._lost[self._count(threshold)])  # type: ignore[attr-defined]

    def loosest(self, limit: float) -> float:
        """The loosest threshold that keeps the risk within the limit: what no one can know."""
        fits = np.flatnonzero(self._lost <= limit + 1e-12)  # type: ignore[attr-defined]
        values = -self._sorted  # type: ignore[attr-defined]
        for count in fits[::-1]:
            if count == 0 or count == len(values) or values[count] < values[count - 1]:
                return float(values[count - 1]) if count else NEVER
        return NEVER

    def _count(self, threshold: float) -> int:
        return int(np.searchsorted(self._sorted, -threshold, side="right"))  # type: ignore[attr-defined]


def mmlu(data: Path) -> list[Item]:
    rows = read_jsonl(data / "mmlu.jsonl.gz")
    return [
        Item(features(r["prompt"]), r["domain"], {"gpt-4": r["student_correct"] or not r["teacher_correct"]})
        for r in rows
    ]


def mmlu_pro(data: Path) -> list[Item]:
    """Gemini 1.5 Flash as the student, under a small teacher and under the large one that replaces it."""
    found = []
    for r in read_jsonl(data / "mmlu_pro.jsonl.gz"):
        right = {name: answer["correct"] for name, answer in r["outputs"].items()}
        verdicts = {t: right["gemini-1.5-flash"] or not right[t] for t in ("phi-3-mini", "gemini-1.5-pro")}
        found.append(Item(features(multiple_choice(r)), r["category"], verdicts))
    return found


SETS: dict[str, tuple[Callable[[Path], list[Item]], str, str | None]] = {
    "mmlu": (mmlu, "gpt-4", None),
    "mmlu_pro": (mmlu_pro, "phi-3-mini", "gemini-1.5-pro"),
}
"""(rows, teacher, the one that replaces it)."""


def features(prompt: str) -> Features:
    return extract({"messages": [{"role": "user", "content": prompt}]})


def new_names(items: Sequence[Item], teacher: str, *, hardest: bool) -> set[str]:
    """A quarter of the categories: by a hash of the name, or where the student fails most."""
    by_name: dict[str, list[bool]] = defaultdict(list)
    for item in items:
        by_name[item.category].append(item.acceptable[teacher])
    if hardest:
        order = sorted(by_name, key=lambda n: sum(by_name[n]) / len(by_name[n]))
    else:
        order = sorted(by_name, key=lambda n: hashlib.sha256(n.encode()).digest())
    return set(order[: round(NEW * len(order))])

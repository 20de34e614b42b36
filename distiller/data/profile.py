"""What a dataset holds, in numbers: rows by slice, and how long they are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from distiller.data.dataset import SPLITS, Dataset, scan

QUANTILES = (0.1, 0.5, 0.9, 0.99, 1.0)
NONE = "–"


@dataclass(slots=True)
class Profile:
    """``slices``: by what they are of (task, language, failing kind), rows by split and name. ``lengths``: quantiles
    (``QUANTILES``) in characters of prompts and answers, by split and part; of answers also the teacher's tokens."""

    slices: dict[str, dict[str, Counter[str]]] = field(default_factory=dict)
    lengths: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)


def profile(dataset: Dataset) -> Profile:
    """Reads the dataset once, a few rows at a time."""
    found = Profile({what: {s: Counter() for s in SPLITS} for what in ("task", "language", "failing kind")})
    for split in SPLITS:
        prompts, answers, tokens = [], [], []
        for row in scan(getattr(dataset, split)):
            for what, name in (("task", row.task), ("language", row.language), ("failing kind", row.cluster)):
                found.slices[what][split][name or NONE] += 1
            prompts.append(sum(len(m["content"]) for m in row.messages))
            answers.append(len(row.answer))
            if row.teacher_tokens:
                tokens.append(row.teacher_tokens)
        parts = {"prompt, characters": prompts, "answer, characters": answers, "answer, tokens": tokens}
        for part, sizes in parts.items():
            if sizes:
                at = np.quantile(np.array(sizes), QUANTILES, method="inverted_cdf")
                found.lengths[split, part] = tuple(int(size) for size in at)
    return found

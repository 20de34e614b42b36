"""The groups of requests that a student is judged on apart from the whole: task, language, length, tools, rarity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from distiller.evaluation.answers import StudentQuestion
from router.scoring.scorer import Scorer
from router.scoring.text.features import Features
from router.scoring.text.ngrams import hashed_ngrams

LENGTHS = ((64, "short"), (512, "medium"))
"""Tokens of a prompt, by estimate, up to which it is called so."""
RARE = 0.75
"""The quarter that is strangest is called rare."""

Floats = npt.NDArray[np.float64]


def slices_of(features: Features, task: str | None) -> tuple[str, ...]:
    """A request's own slices; where its language is not told by its words, there is none of that."""
    length = next((name for limit, name in LENGTHS if features.input_tokens <= limit), "long")
    task_slice = (f"task={task}",) if task else ()
    language = (f"language={features.language}",) if features.language else ()
    tools = ("tools=offered",) if features.has_tools else ()
    return (*task_slice, *language, f"length={length}", *tools)


def with_rarity(questions: Sequence[StudentQuestion], scorer: Scorer | None) -> list[StudentQuestion]:
    """The questions, each also in ``rarity=rare`` or ``rarity=usual``.

    Rare is what is strangest to the scorer, so furthest from the traffic that the student's bundle was made of;
    without one, what has most words and spellings that stand in no other question. Where none is stranger than
    most, none is rare.
    """
    strange = _novelty(questions, scorer) if scorer else _alone(questions)
    if not len(questions):
        return []
    edge = float(np.quantile(strange, RARE))
    named = (("rare" if value > edge else "usual") for value in strange.tolist())
    pairs = zip(questions, named, strict=True)
    return [replace(q, slices=(*q.slices, f"rarity={name}")) for q, name in pairs]


def _novelty(questions: Sequence[StudentQuestion], scorer: Scorer) -> Floats:
    return np.array([scorer.look(q.features).novelty for q in questions], np.float64)


def _alone(questions: Sequence[StudentQuestion]) -> Floats:
    """The share of each question's n-grams that no other has: (n,)."""
    grams = [np.unique(hashed_ngrams(q.features.user_window, "")).tolist() for q in questions]
    seen = Counter(gram for found in grams for gram in found)
    return np.array([sum(seen[g] == 1 for g in found) / max(1, len(found)) for found in grams], np.float64)

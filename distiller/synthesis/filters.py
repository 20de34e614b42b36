"""What the teacher wrote is kept only where it is new, whole, in the asked form and steady."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from distiller.data.rows import DatasetRow
from distiller.data.shingles import NearCopies, fingerprint
from router.judges.pair import text
from router.judges.soundness import AnswerSoFar, structural, wanted

LONGER = 3
"""How many times as long as the longest example a request may be."""
LIKE_TRAINING, LIKE_EVALUATION = 0.7, 0.6
"""Similarity from which on a request is a copy: of one to train on, which teaches nothing new, and of one to measure
by. There the limit is lower than the dataset's own: what a teacher writes on purpose comes closer than chance does."""


class RejectReason(StrEnum):
    """Why something that was paid for is not kept. A closed set: runs count them."""

    UNREADABLE = "no request in the reply"
    TOO_LONG = "too long"
    COPY = "copy of a training request"
    EVALUATION = "copy of an evaluation request"
    BROKEN = "empty, refused, cut off or not in the asked form"
    UNSTEADY = "answered otherwise when asked again"
    UNJUDGED = "the judge failed"
    FAILED = "the teacher failed"
    LOST = "under way when an earlier run was killed"


class Novelty:
    """Whether a request is new: near no training request and no evaluation request, nor to one taken before."""

    def __init__(self, train: Iterable[DatasetRow], measured: Iterable[DatasetRow]) -> None:
        train, measured = list(train), list(measured)
        self._known, self._held = NearCopies(LIKE_TRAINING), NearCopies(LIKE_EVALUATION)
        for row in (*train, *measured):
            self._known.count(row.prompt)
            self._held.count(row.prompt)
        for row in train:
            self._known.keep(row.prompt)
        for row in measured:
            self._held.keep(row.prompt)
        self._same, self._same_held = ({fingerprint(r.prompt) for r in rows} for rows in (train, measured))

    def copies(self, row: DatasetRow) -> RejectReason | None:
        """What the row's request copies; None for a new one, which is taken."""
        if fingerprint(row.prompt) in self._same_held or self._held.has(row.prompt):
            return RejectReason.EVALUATION
        if fingerprint(row.prompt) in self._same or self._known.has(row.prompt):
            return RejectReason.COPY
        self._same.add(fingerprint(row.prompt))
        self._known.keep(row.prompt)
        return None


def is_whole(message: Mapping[str, Any], finish_reason: str | None, options: Mapping[str, Any]) -> bool:
    """Whether an answer is one that a client would have been given, and that may be trained on: text alone, ended
    by itself, in the form that ``options`` ask for, no refusal."""
    if finish_reason != "stop" or message.get("tool_calls") or not text(message).strip():
        return False
    return structural(AnswerSoFar(message, finish_reason), wanted(options)) is None


def said(out: Counter[RejectReason]) -> dict[str, int]:
    """Plain values, most frequent first."""
    return {reason.value: n for reason, n in out.most_common()}

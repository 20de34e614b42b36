"""Kinds of requests that the student fails at, by name, and how much more each of their rows counts in training.

Kinds are found among the requests with a verdict on the student, within each of the client's task tags
(``router.scoring.statistics.clusters``); what is of no named kind is one with the rest of its tag. Audited rows count
here too, since without them most traffic has no verdict: from them come a few weights, no text, and what the candidate
is judged by are still rows that it has never seen.

A row of a kind counts as many times as the student fails there for each time that it fails on average, at least once
and at most ``most``. The rate of a kind with few verdicts is drawn to the average by ``PRIOR`` verdicts of that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from distiller.data.rows import DatasetRow
from router.scoring.statistics.clusters import NEAR, StrangeRequest, kinds, vectors
from router.scoring.text.encoder import Encoder

PRIOR = 10
LEAST_FAILED = 10
"""Verdicts against the student below which nothing is said of kinds."""
MOST_JUDGED = 5_000
"""Newest requests with a verdict that are looked at."""

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FailingKind:
    """One kind that the student fails at more than on average: verdicts, those against it, what a row of it counts."""

    name: str
    judged: int
    failed: int
    weight: float

    @property
    def rate(self) -> float:
        return self.failed / self.judged


@dataclass(slots=True)
class _Task:
    """Of one task tag the direction that its requests share, and each named kind's own. float32, (d,), (kinds, d)."""

    mean: F32
    centres: F32
    names: list[str]
    rest: str


@dataclass(slots=True)
class Failures:
    """``failing`` kinds, worst first."""

    failing: tuple[FailingKind, ...] = ()
    _tasks: dict[str | None, _Task] = field(default_factory=dict)
    _encoder: Encoder | None = None

    @classmethod
    def of(cls, judged: Sequence[DatasetRow], most: float, encoder: Callable[[], Encoder | None]) -> Failures:
        """Learns from rows whose ``student_ok`` is known; none fail where too few do."""
        newest = sorted(judged, key=lambda r: (r.created_at, r.request_id))[-MOST_JUDGED:]
        failed = sum(r.student_ok is False for r in newest)
        if failed < LEAST_FAILED or most <= 1:
            return cls()
        reads, overall = encoder(), failed / len(newest)
        tasks, counts = {}, defaultdict[str, list[int]](lambda: [0, 0])
        for task, rows in _by_task(newest).items():
            tasks[task] = _parted(task, rows, reads)
        for task, rows in _by_task(newest).items():
            for row, name in zip(rows, _names(tasks[task], rows, reads), strict=True):
                counts[name][0] += 1
                counts[name][1] += row.student_ok is False
        found = [_failing(name, n, wrong, overall, most) for name, (n, wrong) in counts.items() if name]
        failing = sorted((f for f in found if f.weight > 1), key=lambda f: (-f.weight, -f.failed, f.name))
        return cls(tuple(failing), tasks, reads)

    def place(self, rows: Sequence[DatasetRow]) -> list[FailingKind | None]:
        """The failing kind that each row is one of."""
        if not self.failing:
            return [None] * len(rows)
        by_name = {f.name: f for f in self.failing}
        found: list[FailingKind | None] = [None] * len(rows)
        for task, places in _places(rows).items():
            if task in self._tasks:
                names = _names(self._tasks[task], [rows[i] for i in places], self._encoder)
                for i, name in zip(places, names, strict=True):
                    found[i] = by_name.get(name)
        return found


def _failing(name: str, judged: int, failed: int, overall: float, most: float) -> FailingKind:
    rate = (failed + PRIOR * overall) / (judged + PRIOR)
    return FailingKind(name, judged, failed, round(min(most, max(1.0, rate / overall)), 3))


def _places(rows: Sequence[DatasetRow]) -> dict[str | None, list[int]]:
    found: defaultdict[str | None, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        found[row.task].append(i)
    return found


def _by_task(rows: Sequence[DatasetRow]) -> dict[str | None, list[DatasetRow]]:
    return {task: [rows[i] for i in places] for task, places in _places(rows).items()}


def _parted(task: str | None, rows: Sequence[DatasetRow], encoder: Encoder | None) -> _Task:
    directions = vectors([asked(r) for r in rows], encoder)
    mean = directions.mean(axis=0)
    apart = _unit(directions - mean)
    seen = [
        StrangeRequest(r.request_id, r.created_at, asked(r), r.user or r.conversation_id, i, None)
        for i, r in enumerate(rows)
    ]
    named = sorted(kinds(seen, encoder).items())
    centres = [apart[[s.place for s in members]].mean(axis=0) for _, members in named]
    return _Task(
        mean=mean,
        centres=_unit(np.array(centres, np.float32).reshape(-1, directions.shape[1])),
        names=[f"{task}: {name}" if task else name for name, _ in named],
        rest=task or "",
    )


def _names(task: _Task, rows: Sequence[DatasetRow], encoder: Encoder | None) -> list[str]:
    """Each row's kind; "" for those of none."""
    if not task.names:
        return [task.rest] * len(rows)
    near = _unit(vectors([asked(r) for r in rows], encoder) - task.mean) @ task.centres.T  # (rows, kinds)
    best = near.argmax(axis=1)
    return [task.names[b] if n[b] >= NEAR else task.rest for n, b in zip(near, best, strict=True)]


def _unit(rows: F32) -> F32:
    unit: F32 = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit


def asked(row: DatasetRow) -> str:
    """The last user turn's text."""
    return next((m["content"] for m in reversed(row.messages) if m["role"] == "user"), "")

"""What a scorer learns from, and what it has learnt: plain values, as they are kept and served."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from router.contracts.records import Signals
from router.scoring.answer_head import AnswerHead
from router.scoring.blend import Blend
from router.scoring.lengths import Lengths
from router.scoring.neighbours import Neighbours
from router.scoring.text.features import Features
from router.scoring.text.reader import F32, Familiarity, HeadWeights
from router.scoring.text.templates import Templates

OnStep = Callable[[int, int, str], None]
"""Told how far a long fit is: so many done, of how many, of what."""


def untold(done: int, of: int, what: str) -> None:
    """Tells nobody."""


@dataclass(frozen=True, slots=True)
class Example:
    """One judged request. ``signals`` where the student's token probabilities are known.

    ``acceptable``: the student's answer is as good as the teacher's. ``student`` and ``teacher``: whether each is
    right, by a judge that can tell without comparing; None by one that cannot. ``teacher_tokens``: how long the
    teacher's answer was, 0 where that is not known. ``kept_back``: the student's never leaves, whatever its score.
    """

    features: Features
    signals: Signals | None
    acceptable: bool
    weight: float = 1.0
    streamed: bool = False
    student: bool | None = None
    teacher: bool | None = None
    request_id: str = ""
    teacher_tokens: int = 0
    kept_back: bool = False

    @property
    def judged(self) -> Signals | None:
        """What acceptance goes by where the student is asked: of a longer stream its first tokens."""
        return self.signals.held or self.signals if self.streamed and self.signals else self.signals


@dataclass(frozen=True, slots=True)
class ScorerModel:
    """All that is fitted. Of ``h`` heads (one: acceptable; two: student right, teacher right), calibrated:

    ``dense``: float32, (h, d). ``grams``: float32, (BUCKETS, 4), so that one look-up and one sum serve all: each
    head's weight times inverse document frequency (the second 0 where there is one head), that frequency squared,
    and 1 where the n-gram is known. ``tasks``: each known tag's weights; ``bias``: the heads' own; ``usual``:
    the structure's usual range, see ``Reader``.
    """

    templates: Templates
    usual: F32
    dense: F32
    grams: F32
    tasks: Mapping[str, tuple[float, ...]]
    bias: tuple[float, ...]
    familiarity: Familiarity
    neighbours: Neighbours | None = None
    blend: Blend = field(default_factory=Blend)
    head: AnswerHead | None = None
    lengths: Lengths | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def gram_table(hashed: Sequence[F32], squared_idf: F32, known: npt.NDArray[np.bool_]) -> F32:
    """``ScorerModel.grams`` from each head's ``hashed``, the squared inverse document frequencies, and which n-grams
    are known, all (BUCKETS,)."""
    table = np.zeros((len(squared_idf), 4), np.float32)
    for column, weights in enumerate(hashed):
        table[:, column] = weights
    table[:, 2] = squared_idf
    table[:, 3] = known
    return table


def side_by_side(
    heads: Sequence[HeadWeights],
) -> tuple[F32, dict[str, tuple[float, ...]], tuple[float, ...]]:
    """The heads' dense weights (h, d), tasks and biases."""
    tasks = {task: tuple(w.tasks[task] for w in heads) for task in heads[0].tasks}
    dense: npt.NDArray[np.float32] = np.stack([w.dense for w in heads])
    return dense, tasks, tuple(w.bias for w in heads)

"""A label head: features to one calibrated linear layer a field, for one kind of requests with a closed set of answers.

It answers with what it has seen answered, in its own words, and says how likely that is as good as the teacher's. An
answer that it never saw it never gives: what asks for one is for whoever comes after it, and its score has to say so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from router.heads import softmax
from router.heads.answers import Fields
from router.heads.inputs import HeadInputs
from router.scoring import linear
from router.scoring.text.encoder import Encoder
from router.scoring.text.features import Features
from router.scoring.text.reader import Reader

MOST_LABELS = 256
"""Values of one field that a head tells apart: the most frequent."""
LEAST_TIMES = 2
"""How often a value must have been there to be one."""
CALIBRATED_SHARE = 0.25
"""Of the examples, the newest, on which the layers of the older ones are calibrated."""
LEAST = 8
"""Examples below which nothing is learnt."""
AT_ONCE = 512
"""Requests that are answered together: their rows take 10 MB."""
BOUND = 1e-6
"""Probabilities are kept so far from 0 and 1."""

F32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HeadAnswer:
    """What a head would answer, the calibrated probability that it is the teacher's answer, and how familiar the
    request is, from 0 to 1."""

    fields: Fields
    score: float
    familiar: float


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One field: its values, and weights (width + 1, values), the biases last."""

    name: str
    values: tuple[str, ...]
    weights: F32


@dataclass(frozen=True, slots=True)
class Calibration:
    """P(right) from how sure the layers are: the log odds of the answer, how far it is before the next one, and how
    familiar the request is; none of them ever speaks against an answer by being larger."""

    weights: tuple[float, float, float] = (1.0, 0.0, 0.0)
    bias: float = 0.0

    def __call__(self, sureness: Floats) -> Floats:
        """(n, 3) to (n,)."""
        found: Floats = 1 / (1 + np.exp(-np.clip(sureness @ np.array(self.weights) + self.bias, -30, 30)))
        return found


@dataclass(frozen=True, slots=True, eq=False)
class LabelHead:
    """A fitted head. ``examples`` is what it learnt from."""

    inputs: HeadInputs
    layers: tuple[Layer, ...]
    calibration: Calibration = field(default_factory=Calibration)
    examples: int = 0

    @classmethod
    def fit(
        cls, requests: Sequence[Features], answers: Sequence[Fields | None], encoder: Encoder | None
    ) -> LabelHead | None:
        """Learns from requests with the teacher's answers (None: one that no closed set has), oldest first. Of answers
        with different fields the most frequent kind is learnt; None where there is none, or no value comes twice."""
        names = _shape(answers)
        if not names or len(answers) < LEAST:
            return None
        inputs, rows, _ = HeadInputs.fit(requests, encoder)
        older = len(answers) - max(1, int(CALIBRATED_SHARE * len(answers)))
        layers = [_layer(rows[:older], answers[:older], name) for name in names]
        trial = cls(inputs, tuple(layers))
        guesses, sureness = trial._guess(rows[older:], inputs.rows(requests[older:], inputs.reader(encoder))[1])
        right = np.array([g == a for g, a in zip(guesses, answers[older:], strict=True)], np.bool_)
        weights, bias = linear.nonnegative(sureness, right, np.ones(len(right)))
        calibration = Calibration((weights[0], weights[1], weights[2]), bias)
        whole = [_layer(rows, answers, layer.name, layer) for layer in layers]
        if not all(layer.values for layer in whole):
            return None
        return cls(inputs, tuple(whole), calibration, len(answers))

    def answers(self, requests: Sequence[Features], reader: Reader) -> list[HeadAnswer]:
        """What it would answer to each, as ``inputs.reader`` reads them."""
        found: list[HeadAnswer] = []
        for start in range(0, len(requests), AT_ONCE):
            guesses, sureness = self._guess(*self.inputs.rows(requests[start : start + AT_ONCE], reader))
            scores = self.calibration(sureness).tolist()
            familiar = sureness[:, 2].tolist()
            found += [HeadAnswer(*one) for one in zip(guesses, scores, familiar, strict=True)]
        return found

    def _guess(self, rows: F32, familiar: F32) -> tuple[list[Fields], Floats]:
        """The likeliest answers, and how sure of each: (n, 3), see ``Calibration``."""
        sure, gaps = np.zeros(len(rows)), np.full(len(rows), np.inf)
        columns: list[list[str]] = []
        for layer in self.layers:
            if not layer.values:
                columns.append([""] * len(rows))
                continue
            logs = softmax.log_probabilities(rows, layer.weights)
            best = logs.argmax(axis=1)
            sure += logs.max(axis=1)
            if len(layer.values) > 1:
                first_two = np.partition(logs, -2, axis=1)[:, -2:]
                gaps = np.minimum(gaps, first_two[:, 1] - first_two[:, 0])
            columns.append([layer.values[k] for k in best])
        p = np.clip(np.exp(sure), BOUND, 1 - BOUND)
        gaps = np.minimum(gaps, -np.log(BOUND))
        names = [layer.name for layer in self.layers]
        guesses = [tuple(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
        return guesses, np.column_stack([np.log(p / (1 - p)), gaps, familiar.astype(np.float64)])


def _shape(answers: Sequence[Fields | None]) -> tuple[str, ...]:
    """The fields that most answers have."""
    shapes = Counter(tuple(name for name, _ in answer) for answer in answers if answer is not None)
    return shapes.most_common(1)[0][0] if shapes else ()


def _layer(rows: F32, answers: Sequence[Fields | None], name: str, before: Layer | None = None) -> Layer:
    """Fitted on those rows whose value comes often enough; from where ``before`` stands, as far as it knows them."""
    told = [dict(answer or ()).get(name) for answer in answers]
    times = Counter(value for value in told if value is not None)
    values = tuple(value for value, n in times.most_common(MOST_LABELS) if n >= LEAST_TIMES)
    number = {value: i for i, value in enumerate(values)}
    known = np.array([value in number for value in told], np.bool_)
    labels = np.array([number[value] for value in told if value is not None and value in number], np.int64)
    start = np.zeros((rows.shape[1] + 1, len(values)), np.float32)
    for place, value in enumerate(before.values if before is not None else ()):
        if before is not None and value in number:
            start[:, number[value]] = before.weights[:, place]
    fitted = rows if known.all() else rows[known]  # no copy of a hundred megabytes where all are known
    return Layer(name, values, softmax.fit(fitted, labels, len(values), start))

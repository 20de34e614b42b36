"""The second look: P(acceptable | request, answer) from the score and what the answer says about itself.

A learned head on quantiles of the token probabilities, not the mean alone (Gupta et al. 2024,
arXiv 2404.10136), each taken as the logarithm of the doubt it leaves, log(1 - p): a trained student is
sure of nearly every token, and between 0.99 and 0.9999 lies what tells its errors. A short answer also
has a record: how often the same words were right before.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter, mul
from typing import Any, Self

import numpy as np

from router.contracts.records import Signals
from router.scoring import linear
from router.scoring.agreement import Agreement
from router.scoring.linear import Bools, Floats, Ints
from router.scoring.rows import Rows

STRENGTHS = (0.03, 0.3, 3.0)
LEAST = 30
"""Examples with signals below which no head is fitted."""
PRIOR_ANSWERS = 4.0
"""How many answers of the usual quality an answer's record starts from."""
KNOWN_ANSWERS = 4096
"""Answers whose record is kept, at most: the most frequent ones."""
_FOLDS = 5
_QUANTILES = ("mean_logprob", "min_logprob", "first_logprob", "q10_logprob", "q25_logprob", "q50_logprob")
_quantiles = attrgetter(*_QUANTILES)
_INPUTS = 10 + len(_QUANTILES)
_LOWEST, _HIGHEST, _LOWEST_SUM = -10.0, -1e-6, -50.0


@dataclass(frozen=True, slots=True)
class AnswerWeights:
    """A calibrated logistic regression on ``inputs``; plain floats, so that one decision costs little.

    Raises ValueError where the weights are not one for each input.
    """

    weights: tuple[float, ...]
    bias: float

    def __post_init__(self) -> None:
        if len(self.weights) != _INPUTS:
            raise ValueError(f"an answer head has {_INPUTS} weights, not {len(self.weights)}")

    def __call__(self, x: list[float]) -> float:
        return linear.sigmoid(sum(map(mul, self.weights, x)) + self.bias)


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """``whole`` judges whole answers, ``held`` their first tokens (None: it never saw any such); ``records`` are
    short answers' log odds of being right beyond the usual, by their number; ``agreement`` looks at samples."""

    whole: AnswerWeights
    held: AnswerWeights | None
    records: Mapping[int, float]
    agreement: Agreement | None = None

    def __call__(self, score: float, signals: Signals) -> float:
        """P(acceptable | request, answer); where samples were drawn the better of the looks with and without
        them, since they are drawn only to lift it.

        The first tokens of an answer hesitate less than the whole does: a head that never saw such may
        lower the request's score then, but not raise it.
        """
        if not signals.complete:
            x = inputs(score, signals)
            return self.held(x) if self.held is not None else min(self.whole(x), score)
        p = self.alone(score, signals)
        if self.agreement is None or signals.agreement is None:
            return p
        return max(p, self.agreement(p, signals.agreement))

    def alone(self, score: float, signals: Signals) -> float:
        """P(acceptable | request, whole answer), whatever the samples say."""
        return self.whole(inputs(score, signals, self.records))

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**asdict(self), "records": {str(k): v for k, v in self.records.items()}}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """What ``plain`` gave. Raises KeyError, TypeError or ValueError where it is something else."""
        if "whole" not in plain:
            raise ValueError("its second look is an older version's, and a new bundle is needed")
        held, agreement = plain["held"], plain["agreement"]
        return cls(
            _weights(plain["whole"]),
            _weights(held) if held else None,
            {int(k): float(v) for k, v in plain["records"].items()},
            Agreement.of(agreement) if agreement else None,
        )


def _weights(plain: Mapping[str, Any]) -> AnswerWeights:
    return AnswerWeights(tuple(plain["weights"]), plain["bias"])


def inputs(score: float, signals: Signals, records: Mapping[int, float] | None = None) -> list[float]:
    """What the head sees: the score's log odds; the doubt in the tokens, by quantiles and in all; length; words;
    the answer's record. What was not looked at counts as nothing unusual."""
    total = signals.sum_logprob if signals.sum_logprob > _LOWEST_SUM else _LOWEST_SUM
    parses = signals.parses
    return [
        linear.logit(score),
        *map(_doubt, _quantiles(signals)),
        _doubt(total),
        total,
        math.log1p(signals.tokens),
        1.0 if signals.distinct is None else signals.distinct,
        math.log1p(signals.hedges or 0),
        math.log1p(signals.sentences or 0),
        float(parses is not None),
        float(parses is False),
        records.get(signals.answer, 0.0) if records and signals.answer is not None else 0.0,
    ]


def _doubt(logprob: float) -> float:
    """log(1 - p) of a log-probability kept within bounds."""
    return math.log(-math.expm1(min(max(logprob, _LOWEST), _HIGHEST)))


def fit(
    scores: Sequence[float], signals: Sequence[Signals], labels: Bools, weights: Floats, seed: int
) -> tuple[AnswerHead, Floats] | None:
    """A head, and each example's probability when held out (n,); None where there is too little to learn.

    ``scores`` must be held out themselves, or the head would trust them too much. An example whose signals
    have ``held`` ones teaches both looks.
    """
    if not _enough(labels):
        return None
    x = np.array([inputs(p, s) for p, s in zip(scores, signals, strict=True)])  # (n, d)
    answers = np.array([-1 if s.answer is None else s.answer for s in signals])
    x[:, -1] = _records_held_out(answers, labels, weights, seed)
    whole, accepts = _regress(x, labels, weights, seed)
    longer = np.array([s.held is not None for s in signals], np.bool_)
    held = None
    if _enough(labels[longer]):
        begun = np.array([inputs(p, s.held) for p, s in zip(scores, signals, strict=True) if s.held is not None])
        held, _ = _regress(begun, labels[longer], weights[longer], seed)
    agreement = Agreement.fit(accepts, signals, labels, weights, seed)
    head = AnswerHead(whole, held, _records(answers, labels, weights), agreement)
    for i, s in enumerate(signals):
        if agreement is not None and s.agreement is not None:
            accepts[i] = max(accepts[i], agreement(accepts[i], s.agreement))
    return head, accepts


def _enough(labels: Bools) -> bool:
    return len(labels) >= LEAST and min(int(labels.sum()), int((~labels).sum())) >= 2


def _regress(x: Floats, labels: Bools, weights: Floats, seed: int) -> tuple[AnswerWeights, Floats]:
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale < 1e-9] = math.inf  # what never varies teaches nothing
    fitted = linear.fit(Rows((x - mean) / scale), labels, weights, STRENGTHS, seed)
    plain, platt = fitted.linear.weights / scale, fitted.platt
    bias = platt.slope * (fitted.linear.bias - float(plain @ mean)) + platt.intercept
    return AnswerWeights(tuple((platt.slope * plain).tolist()), bias), fitted.held_out


def _records(answers: Ints, labels: Bools, weights: Floats) -> dict[int, float]:
    """Each answer's log odds of being right less the usual, shrunk towards it; -1 is no answer."""
    usual = (weights[labels].sum() + 1) / (weights.sum() + 2)
    right, wrong, times = defaultdict[int, float](float), defaultdict[int, float](float), defaultdict[int, int](int)
    for answer, label, weight in zip(answers.tolist(), labels.tolist(), weights.tolist(), strict=True):
        (right if label else wrong)[answer] += weight
        times[answer] += 1
    known = sorted((a for a in times if a >= 0 and times[a] > 1), key=lambda a: (-times[a], a))[:KNOWN_ANSWERS]
    prior = PRIOR_ANSWERS * usual, PRIOR_ANSWERS * (1 - usual)
    return {a: math.log((right[a] + prior[0]) / (wrong[a] + prior[1]) / usual * (1 - usual)) for a in known}


def _records_held_out(answers: Ints, labels: Bools, weights: Floats, seed: int) -> Floats:
    """Each example's answer's record by the examples of the other folds: (n,)."""
    fold = np.random.default_rng(seed).permutation(len(labels)) % _FOLDS
    found = np.zeros(len(labels))
    for k in range(_FOLDS):
        records = _records(answers[fold != k], labels[fold != k], weights[fold != k])
        found[fold == k] = [records.get(a, 0.0) for a in answers[fold == k].tolist()]
    return found

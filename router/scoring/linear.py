"""Logistic regression and its calibration: fitted with scipy, used with plain arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from router.scoring.rows import Rows

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

FOLDS = 5
MANY = 20_000
"""Examples from which on two folds do: each of them has plenty to learn from."""
SEARCHED = 2000
"""Examples on which the strength of regularisation is chosen, at most."""
STEPS, TOLERANCE = 200, 1e-3
"""A regression's steps, at most, and the gradient of the mean loss at which it is done."""
INDIFFERENT = 0.001
"""A difference in log loss, in nats, that is taken for chance."""


@dataclass(frozen=True, slots=True)
class LinearModel:
    """``logit = weights @ x + bias``; ``weights``: float64, (d,)."""

    weights: Floats
    bias: float


@dataclass(frozen=True, slots=True)
class Platt:
    """Calibration of a logit z: P = sigmoid(slope * z + intercept)."""

    slope: float
    intercept: float

    def __call__(self, logit: float) -> float:
        return sigmoid(self.slope * logit + self.intercept)

    def many(self, logits: Floats) -> Floats:
        """The probabilities of many logits: (n,) to (n,)."""
        return np.array([self(z) for z in logits.tolist()])

    @classmethod
    def fit(cls, logits: Floats, labels: Bools, weights: Floats) -> Platt:
        """Newton's method on Platt's smoothed targets (Platt 1999; Lin, Lin and Weng 2007).

        All arguments (n,). Where the logits rank the labels the wrong way round, the slope is 0: the
        probability is then the share of acceptable ones, whatever the logit.
        """
        positive, negative = weights[labels].sum(), weights[~labels].sum()
        even = math.log((positive + 1) / (negative + 1))
        slope, intercept = _newton(logits[:, None], _smoothed(labels, weights), weights, np.array([0.0, even])).tolist()
        return cls(slope, intercept) if slope > 0 else cls(0.0, even)


def nonnegative(x: Floats, labels: Bools, weights: Floats) -> tuple[list[float], float]:
    """Weights for a few inputs (n, k), none below 0, and a bias: logistic regression on Platt's smoothed targets.

    What comes out negative is left out, the most negative first, and the rest is fitted again.
    """
    found, used = [0.0] * x.shape[1], list(range(x.shape[1]))
    while True:
        *coefficients, bias = _newton(x[:, used], _smoothed(labels, weights), weights, np.zeros(len(used) + 1)).tolist()
        if not coefficients or min(coefficients) >= 0:
            break
        del used[int(np.argmin(coefficients))]
    for place, coefficient in zip(used, coefficients, strict=True):
        found[place] = coefficient
    return found, bias


def recalibration(logits: Floats, labels: Bools, weights: Floats, trust: float) -> tuple[float, float]:
    """A slope, not below 0, and a shift that fit logits (n,) to labels, drawn to 1 and 0 as by ``trust`` examples."""
    start = np.array([1.0, 0.0])
    slope, shift = _newton(logits[:, None], labels.astype(np.float64), weights, start, trust / 4).tolist()
    return max(0.0, slope), shift


def _smoothed(labels: Bools, weights: Floats) -> Floats:
    """Platt's targets: (n,)."""
    positive, negative = weights[labels].sum(), weights[~labels].sum()
    targets: Floats = np.where(labels, (positive + 1) / (positive + 2), 1 / (negative + 2))
    return targets


def _newton(x: Floats, targets: Floats, weights: Floats, start: Floats, pull: float = 0.0) -> Floats:
    """Logistic regression of few inputs (n, k) on targets in [0, 1] by Newton's method: (k + 1,), the bias last.

    ``pull`` is the strength of a quadratic penalty on the distance from ``start``.
    """
    x, at, eye = np.column_stack([x, np.ones(len(x))]), start.copy(), np.eye(len(start))
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(x @ at, -30, 30)))
        gradient = x.T @ (weights * (p - targets)) + pull * (at - start)
        hessian = (x * (weights * np.maximum(p * (1 - p), 1e-6))[:, None]).T @ x + (1e-6 + pull) * eye
        step = np.linalg.solve(hessian, gradient)
        at = at - step * min(1.0, 5.0 / float(np.abs(step).max() + 1e-12))
        if np.abs(step).max() < 1e-9:
            break
    return at


@dataclass(frozen=True, slots=True)
class LinearFit:
    """A regression on all examples, its calibration, and each example's probability when held out (n,)."""

    linear: LinearModel
    platt: Platt
    held_out: Floats
    strength: float


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-min(max(logit, -700.0), 700.0)))


def logit(probability: float, bound: float = 1e-4) -> float:
    """The log odds, of a probability kept at least ``bound`` away from 0 and 1."""
    p = min(max(probability, bound), 1 - bound)
    return math.log(p / (1 - p))


def fit(
    x: Rows,
    labels: Bools,
    weights: Floats,
    strengths: tuple[float, ...],
    seed: int,
    *,
    on_step: Callable[[int, int], None] = lambda done, of: None,
) -> LinearFit:
    """Fits on ``x`` (n, d). Needs both classes at least twice.

    Of ``strengths`` (the inverse of the penalty on squared weights, ascending) the most regularised is taken whose
    held-out loss is within ``INDIFFERENT`` of the best. ``on_step`` is told how far it is, once for every strength,
    and once for what is held out and for all together.
    """
    folds, few, of = _folds(labels, seed), _few(labels, seed), len(strengths) + 2
    turned = x[few].turned() if len(few) < x.width else None
    sample = turned.rows if turned else x[few]
    losses = []
    for done, strength in enumerate(strengths, 1):
        losses.append(_loss(sample, labels[few], weights[few], strength, folds[few]))
        on_step(done, of)
    best = next(c for c, loss in zip(strengths, losses, strict=True) if loss <= min(losses) + INDIFFERENT)
    whole = turned is not None and len(few) == len(x)
    rows = turned.rows if turned and whole else x
    logits = _held_out(rows, labels, weights, best, folds)
    on_step(of - 1, of)
    found = _regress(rows, labels, weights, best)
    if turned and whole:
        found = LinearModel(turned.back(found.weights), found.bias)
    on_step(of, of)
    platt = Platt.fit(logits, labels, weights)
    return LinearFit(found, platt, platt.many(logits), best)


def _few(labels: Bools, seed: int) -> Ints:
    """Which examples strengths are chosen on, ascending: at random, some of either class among them: (m,)."""
    order = np.random.default_rng(seed).permutation(len(labels))
    rare = [order[labels[order] == c][:FOLDS] for c in (False, True)]
    return np.unique(np.concatenate([order[:SEARCHED], *rare]))


def _loss(x: Rows, labels: Bools, weights: Floats, strength: float, folds: Ints) -> float:
    """The held-out log loss after calibration."""
    logits = _held_out(x, labels, weights, strength, folds)
    p = np.clip(Platt.fit(logits, labels, weights).many(logits), 1e-6, 1 - 1e-6)
    return float(-np.average(np.where(labels, np.log(p), np.log(1 - p)), weights=weights))


def _folds(labels: Bools, seed: int) -> Ints:
    """A fold for each example, each class dealt out evenly: (n,)."""
    rng, folds = np.random.default_rng(seed), np.zeros(len(labels), np.int64)
    folds_wanted = FOLDS if len(labels) < MANY else 2
    count = max(2, min(folds_wanted, *(int((labels == c).sum()) for c in (False, True))))
    for value in (False, True):
        members = rng.permutation(np.flatnonzero(labels == value))
        folds[members] = np.arange(len(members)) % count
    return folds


def _held_out(x: Rows, labels: Bools, weights: Floats, strength: float, folds: Ints) -> Floats:
    """Each example's logit by a regression that has not seen its fold: (n,)."""
    logits = np.zeros(len(labels))
    for fold in np.unique(folds):
        out = folds == fold
        fitted = _regress(x[~out], labels[~out], weights[~out], strength)
        logits[out] = x.times(fitted.weights)[out] + fitted.bias  # costs less than copying rows
    return logits


def _regress(x: Rows, labels: Bools, weights: Floats, strength: float) -> LinearModel:
    """As scikit-learn's LogisticRegression(C=strength, solver="lbfgs") does it, step by step; which takes no dense
    block beside a sparse one, and copies 32-bit rows to 64 bits for each of its products."""
    from scipy.optimize import minimize

    if labels.all() or not labels.any():
        return LinearModel(np.zeros(x.width), logit(float(labels[0]), 0.01))
    shares, penalty = weights / weights.sum(), 1 / (strength * weights.sum())

    def loss(at: Floats) -> tuple[float, Floats]:
        z, plain = x.times(at[:-1]) + at[-1], at[:-1]
        residuals = shares * (1 / (1 + np.exp(-np.clip(z, -500, 500))) - labels)
        gradient = np.append(x.summed(residuals) + penalty * plain, residuals.sum())
        return float(shares @ (np.logaddexp(0, z) - labels * z) + penalty / 2 * (plain @ plain)), gradient

    steps = {"maxiter": STEPS, "maxls": 50, "gtol": TOLERANCE, "ftol": 64 * np.finfo(float).eps}
    found = minimize(loss, np.zeros(x.width + 1), jac=True, method="L-BFGS-B", options=steps).x
    return LinearModel(found[:-1], float(found[-1]))

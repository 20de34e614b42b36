"""How well probabilities rank and how well they are calibrated: AUROC, Brier score, calibration error, reliability."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from router.scoring.statistics.estimates import exact_interval

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """Questions of like probability: the mean of it, the share that came true with its exact 95% limits, how many."""

    probability: float
    rate: float
    low: float
    high: float
    n: int


def auroc(scores: Floats, labels: Bools) -> float | None:
    """The chance that an acceptable one scores higher than an unacceptable one; None with one class only. Both (n,)."""
    from sklearn.metrics import roc_auc_score

    return None if labels.all() or not labels.any() else float(roc_auc_score(labels, scores))


def brier(p: Floats, labels: Bools) -> float:
    """Mean squared distance of probability and outcome (Brier 1950, Monthly Weather Review 78). Both (n,)."""
    return float(((p - labels) ** 2).mean())


def calibration_error(p: Floats, labels: Bools, bins: int = BINS) -> float:
    """Expected calibration error over bins of equal size: mean of |share acceptable - mean probability|. Both (n,).

    Naeini et al. 2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", with equal-mass bins.
    """
    return sum(b.n * abs(b.rate - b.probability) for b in reliability(p, labels, bins)) / len(p)


def reliability(p: Floats, labels: Bools, bins: int = BINS) -> list[Bin]:
    """Bins of equal size, lowest probability first; both (n,)."""
    parts = [part for part in np.array_split(np.argsort(p, kind="stable"), bins) if len(part)]
    made = []
    for part in parts:
        rate = float(labels[part].mean())
        made.append(Bin(float(p[part].mean()), rate, *exact_interval(rate, len(part)), len(part)))
    return made

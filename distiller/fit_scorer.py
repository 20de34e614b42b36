"""Fits the scorer and its thresholds for one student: dev examples fit, the holdout certifies.

Never both with the same example: a scorer is surer of what it was fitted on than it should be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from router.contracts.bundles import Thresholds
from router.policy import Policy
from router.pricing import litellm_price
from router.scoring.encoder import Encoder
from router.scoring.estimator import Example, Scorer
from router.scoring.thresholds import NEVER, for_parity, grid_of, with_evidence

LEAST_DEV = 60
"""Dev examples below which a third of the holdout is taken for fitting as well."""
LEAST_WORTH = 0.10
"""Where fewer than one in ten of the student's answers would leave, asking it only costs time."""
CONFIDENCE = 0.95
"""Of the bound that is shown where the objective names none."""

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def fit_bundle_scorer(
    dev: Sequence[Example], holdout: Sequence[Example], policy: Policy, encoder: Encoder | None, seed: int = 0
) -> tuple[Scorer, Thresholds, dict[str, Any]]:
    """A scorer fitted on ``dev``, thresholds certified on ``holdout``, and a report of both for the manifest.

    ``holdout`` must be a uniform sample of the traffic that the student did not train on. Where ``dev``
    is short of ``LEAST_DEV``, a third of the holdout, fixed by a hash of the text, helps to fit and no
    longer certifies; the report says so. Where the holdout's weights differ it is thinned accordingly.
    """
    fitting, certifying = list(dev), list(holdout)
    if borrowed := len(dev) < LEAST_DEV:
        fitting += [e for e in holdout if _lent(e)]
        certifying = [e for e in holdout if not _lent(e)]
    scorer = Scorer.fit(fitting, encoder, seed)
    certifying = _uniform(certifying)
    labels = np.array([e.acceptable for e in certifying], np.bool_)
    scores = np.array([scorer.score(e.features) for e in certifying], np.float64)
    accepts = None
    if policy.accept.cascade and scorer.learned.head is not None:
        pairs = zip(scores.tolist(), certifying, strict=True)
        accepts = np.array([scorer.accept(p, e.signals) for p, e in pairs], np.float64)
    known = np.array([e.acceptable for e in fitting], np.bool_)
    thresholds = _thresholds(policy, scorer, known, scores=scores, accepts=accepts, labels=labels)
    report = {
        "fitted_on": len(fitting),
        "certified_on": len(certifying),
        "borrowed_from_holdout": len(fitting) - len(dev) if borrowed else 0,
        "seed": seed,
        "scorer": scorer.learned.facts,
        "dev": quality(scorer.held_out_, scorer.held_out_accept_, known),
        "holdout": quality(scores, scores if accepts is None else accepts, labels),
        "student_share": thresholds.evidence.served / max(1, len(labels)) if thresholds.evidence else 0.0,
        "thresholds": thresholds.model_dump(),
    }
    return scorer, thresholds, report


def quality(scores: Floats, accepts: Floats, labels: Bools) -> dict[str, float | None]:
    """How well both looks rank and how well the first is calibrated; all arguments (n,)."""
    if len(labels) == 0:
        return dict.fromkeys(("acceptable", "auroc_route", "auroc_accept", "brier", "ece"))
    return {
        "acceptable": float(labels.mean()),
        "auroc_route": _auroc(scores, labels),
        "auroc_accept": _auroc(accepts, labels),
        "brier": float(((accepts - labels) ** 2).mean()),
        "ece": _calibration_error(accepts, labels),
    }


def _thresholds(
    policy: Policy, scorer: Scorer, known: Bools, *, scores: Floats, accepts: Floats | None, labels: Bools
) -> Thresholds:
    """By the policy's objective; ``known`` are the labels of what fitted, the rest is the holdout's.

    A share is tracked online and a budget spent online, so for them the route threshold is where the
    proxy starts from, and every answer that passes the other checks leaves.
    """
    aim = policy.objective
    if aim.parity is not None:
        target, confidence = aim.parity.at_least, aim.parity.confidence
        route, seen = 0.0, scorer.held_out_
        if accepts is not None:
            route, seen = _route_floor(policy, scorer, known, target), scorer.held_out_accept_
        return for_parity(scores, accepts, labels, target, confidence, route=route, grid=grid_of(seen))
    if aim.student_share is not None:
        found = Thresholds(route=_share_start(scorer.held_out_, aim.student_share), accept=0.0)
    elif aim.threshold is not None:
        found = Thresholds(route=aim.threshold, accept=0.0 if accepts is None else aim.threshold)
    else:
        found = Thresholds(route=0.5, accept=0.0)
    method = "declared objective, measured on the holdout"
    return with_evidence(found, scores, accepts, labels, target=0.0, confidence=CONFIDENCE, method=method)


def _share_start(scores: Floats, share: float) -> float:
    if share <= 0:
        return NEVER
    return float(np.quantile(scores, 1 - share)) if len(scores) else 0.0


def _route_floor(policy: Policy, scorer: Scorer, known: Bools, target: float) -> float:
    """The score below which asking the student is not worth it, from the fitting examples alone.

    The largest score below which the share of answers that would leave falls short of what asking costs:
    the student's price over the teacher's, and ``LEAST_WORTH`` at least. Which answers would leave is
    estimated with the threshold that meets the target on the fitting examples' held-out scores.
    """
    scores, accepts = scorer.held_out_, scorer.held_out_accept_
    tentative = for_parity(scores, accepts, known, target, 0.5, grid=grid_of(accepts))
    if tentative.accept == NEVER:
        return 0.0
    order = np.argsort(scores, kind="stable")
    leaving = np.cumsum(accepts[order] >= tentative.accept) / np.arange(1, len(order) + 1)
    wasteful = np.flatnonzero(leaving < _worth(policy))
    return float(scores[order][wasteful[-1]]) if len(wasteful) else 0.0


def _worth(policy: Policy) -> float:
    student = policy.student.usd_per_million
    teacher = policy.teacher.usd_per_million or litellm_price(policy.teacher.model)
    dear = teacher.input + teacher.output if teacher else 0
    ratio = float((student.input + student.output) / dear) if dear else 0.0
    return min(0.9, max(LEAST_WORTH, ratio))


def _lent(example: Example) -> bool:
    return _draw(example, "lent") < 1 / 3


def _uniform(examples: Sequence[Example]) -> list[Example]:
    """The examples thinned in proportion to their weights: an exact bound counts equal ones only."""
    most = max((e.weight for e in examples), default=1.0)
    return [e for e in examples if _draw(e, "kept") * most < e.weight]


def _draw(example: Example, purpose: str) -> float:
    """A number in [0, 1) fixed by the request's text, so that no chance and no order decides."""
    text = f"{purpose} {example.features.text}".encode("utf-8", "replace")
    return int.from_bytes(hashlib.sha256(text).digest()[:6]) / 2**48


def _auroc(scores: Floats, labels: Bools) -> float | None:
    """The chance that an acceptable one scores higher than an unacceptable one; None with one class only."""
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415

    return None if labels.all() or not labels.any() else float(roc_auc_score(labels, scores))


def _calibration_error(p: Floats, labels: Bools, bins: int = 10) -> float:
    """Expected calibration error over bins of equal size: mean of |share acceptable - mean probability|."""
    parts = [part for part in np.array_split(np.argsort(p, kind="stable"), bins) if len(part)]
    return float(sum(len(i) * abs(labels[i].mean() - p[i].mean()) for i in parts) / len(p))

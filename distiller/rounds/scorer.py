"""Fits the scorer and its thresholds for one student: dev examples fit, the holdout certifies.

Never both with the same example: a scorer is surer of what it was fitted on than it should be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from distiller.evaluation.calibration import auroc, brier, calibration_error
from distiller.rounds.tuning import ScoredSample, tuned
from router.contracts.bundles import Thresholds
from router.heads.heads import LabelHeads
from router.policy.policy import Policy
from router.scoring.model import Example, OnStep, untold
from router.scoring.scorer import Scorer
from router.scoring.text.encoder import Encoder

LEAST_DEV = 60
"""Dev examples below which a third of the holdout is taken for fitting as well."""

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def fit_bundle_scorer(
    dev: Sequence[Example],
    holdout: Sequence[Example],
    policy: Policy,
    encoder: Encoder | None,
    seed: int = 0,
    *,
    on_step: OnStep = untold,
) -> tuple[Scorer, Thresholds, dict[str, Any]]:
    """A scorer fitted on ``dev``, thresholds certified on ``holdout``, and a report of both for the manifest.

    ``holdout`` must be a sample of the traffic that the student did not train on, uniform or weighted. Where ``dev``
    is short of ``LEAST_DEV``, a third of the holdout, fixed by a hash of the text, helps to fit and no
    longer certifies; the report says so. ``on_step`` is told how far the fit is.
    """
    fitting, certifying = parted(dev, holdout)
    scorer = Scorer.fit(fitting, encoder, seed, on_step=on_step)
    sample = ScoredSample.seen_by(scorer, certifying, policy)
    known = np.array([e.acceptable for e in fitting], np.bool_)
    thresholds = tuned(scorer, known, sample, policy)
    report = {
        "fitted_on": len(fitting),
        "certified_on": len(certifying),
        "borrowed_from_holdout": len(fitting) - len(dev),
        "seed": seed,
        "scorer": scorer.learned.facts,
        "dev": quality(scorer.held_out_, scorer.held_out_accept_, known),
        "holdout": quality(sample.scores, sample.shown, sample.acceptable),
        "student_share": thresholds.evidence.share if thresholds.evidence else 0.0,
        "thresholds": thresholds.model_dump(),
    }
    return scorer, thresholds, report


def certified_heads(
    heads: LabelHeads, holdout: Sequence[Example], policy: Policy
) -> tuple[Scorer, Thresholds, dict[str, Any]]:
    """The same for label heads, which score themselves: nothing is fitted, and all of the holdout certifies."""
    scorer = Scorer.of_heads(heads)
    sample = ScoredSample.seen_by(scorer, holdout, policy)
    thresholds = tuned(scorer, np.zeros(0, np.bool_), sample, policy)
    report = {
        "fitted_on": 0,
        "certified_on": len(holdout),
        "holdout": quality(sample.scores, sample.shown, sample.acceptable),
        "student_share": thresholds.evidence.share if thresholds.evidence else 0.0,
        "thresholds": thresholds.model_dump(),
    }
    return scorer, thresholds, report


def parted(dev: Sequence[Example], holdout: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """(what fits, what certifies): see ``fit_bundle_scorer``."""
    if len(dev) >= LEAST_DEV:
        return list(dev), list(holdout)
    return [*dev, *(e for e in holdout if lent(e))], [e for e in holdout if not lent(e)]


def quality(scores: Floats, accepts: Floats, labels: Bools) -> dict[str, float | None]:
    """How well both looks rank and how well the first is calibrated; all arguments (n,)."""
    if len(labels) == 0:
        return dict.fromkeys(("acceptable", "auroc_route", "auroc_accept", "brier", "ece"))
    return {
        "acceptable": float(labels.mean()),
        "auroc_route": auroc(scores, labels),
        "auroc_accept": auroc(accepts, labels),
        "brier": brier(accepts, labels),
        "ece": calibration_error(accepts, labels),
    }


def lent(example: Example) -> bool:
    """Whether an example of the holdout is of the third that may be lent for fitting."""
    return _draw(example, "lent") < 1 / 3


def _draw(example: Example, purpose: str) -> float:
    """A number in [0, 1) fixed by the request's text, so that no chance and no order decides."""
    text = f"{purpose} {example.features.text}".encode("utf-8", "replace")
    return int.from_bytes(hashlib.sha256(text).digest()[:6]) / 2**48

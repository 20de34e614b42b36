"""Fits the scorer and its thresholds for one student: dev data fits, the holdout certifies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from router.contracts.bundles import Thresholds
from router.policy import Policy
from router.scoring.encoder import Encoder
from router.scoring.estimator import Example, Scorer


def fit_bundle_scorer(
    dev: Sequence[Example], holdout: Sequence[Example], policy: Policy, encoder: Encoder | None, seed: int = 0
) -> tuple[Scorer, Thresholds, dict[str, Any]]:
    """A scorer fitted on ``dev``, thresholds certified on ``holdout``, and a report of both."""
    raise NotImplementedError

"""The scorer: P(the student's answer is acceptable), before and after seeing the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from router.contracts.records import Signals
from router.scoring.encoder import Encoder
from router.scoring.features import Features


@dataclass(frozen=True, slots=True)
class Example:
    """One judged request. ``signals`` where the student's token probabilities are known."""

    features: Features
    signals: Signals | None
    acceptable: bool
    weight: float = 1.0


class Scorer:
    @classmethod
    def fit(cls, examples: Sequence[Example], encoder: Encoder | None, seed: int = 0) -> Scorer:
        """Learns from judged requests; without an encoder from structure and n-grams alone."""
        raise NotImplementedError

    def score(self, features: Features) -> float:
        """P(acceptable | request), calibrated."""
        raise NotImplementedError

    def accept(self, score: float, signals: Signals | None) -> float:
        """P(acceptable | request, answer); the score itself where there are no signals."""
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path, encoder: Encoder | None) -> Scorer:
        """Raises BundleError: files missing or damaged, or made for other features or another encoder."""
        raise NotImplementedError


def prior_score(features: Features) -> float:
    """P(acceptable | request) by a declared, hand-set rule on structure: before any label is there."""
    raise NotImplementedError

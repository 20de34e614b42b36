"""From scores to thresholds: certified for a parity floor, tracked online for a share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from router.contracts.bundles import Thresholds


def for_parity(
    route_scores: npt.ArrayLike,
    accept_scores: npt.ArrayLike | None,
    acceptable: npt.ArrayLike,
    target: float,
    confidence: float,
    *,
    route: float = 0.0,
    grid: npt.NDArray[np.float64] | None = None,
) -> Thresholds:
    """The loosest threshold certified for ``parity >= target``.

    With ``accept_scores`` the accept threshold is certified given ``route`` (fixed beforehand, on
    other data); without, the route threshold is, and accept is 0.
    """
    raise NotImplementedError


class ShareThreshold:
    """The score from which on to serve from the student so that a declared share of requests is."""

    def observe(self, score: float) -> None:
        raise NotImplementedError

    def threshold(self, share: float) -> float:
        raise NotImplementedError

"""The first look at a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from router.scoring.estimator import Look, Scorer
from router.scoring.features import Features, extract


class Seen(NamedTuple):
    """A request, read once. ``look`` is None without a scorer."""

    features: Features
    look: Look | None


def look_at(body: Mapping[str, Any], scorer: Scorer | None) -> Seen:
    """Reads a parsed chat-completions request, and scores it."""
    features = extract(body)
    return Seen(features, scorer.look(features) if scorer else None)

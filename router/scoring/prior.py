"""The declared prior: a score before any label is there."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np

from router.scoring import linear
from router.scoring.text.features import F32, STRUCTURE, Features

BIAS = 2.0
PRIOR: Mapping[str, float] = {
    "log_user_chars": -0.25, "log_context_chars": -0.05, "log_turns": -0.3,
    "asks_extract": 0.5, "asks_rewrite": 0.3, "asks_yes_no": 0.2,
    "asks_reason": -0.5, "asks_count": -0.5, "asks_create": -0.4, "asks_code": -0.7,
    "share_digit": -3.0, "share_maths": -8.0, "share_code": -5.0,
    "log_code_fences": -1.0, "log_tools": -0.5, "schema": -0.3, "images": -2.0, "audio": -2.0,
}  # fmt: skip
"""Log odds for each unit of structure."""


def prior_score(features: Features) -> float:
    """P(acceptable | request) by a declared, hand-set rule on structure: before any label is there.

    Short, single questions that want extraction or rewriting stand high; length, reasoning, arithmetic,
    code, tools and long conversations lower it. It only ranks; no label has calibrated it.
    """
    return linear.sigmoid(BIAS + float(_prior().dot(features.structure)))


@cache
def _prior() -> F32:
    return np.array([PRIOR.get(name, 0.0) for name in STRUCTURE], np.float32)

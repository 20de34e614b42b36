"""How many rows are trained on, and whose: a cap per user, a budget, and a part of it that stays with old rows."""

from __future__ import annotations

from collections import Counter
from math import ceil

import numpy as np
from numpy.typing import NDArray

from distiller.config import DatasetConfig
from distiller.data.copies import Ints
from distiller.data.rows import Skip
from distiller.data.spool import Slips


def choose(train: Ints, slips: Slips, known: NDArray[np.uint64], config: DatasetConfig, skipped: Counter[str]) -> Ints:
    """Those of the places in ``train`` that are trained on, in their order. ``known``: digests of the requests that
    the live student was trained on. Who is drawn is told by a hash of the request's id: the same ones each time."""
    capped = _cap_users(train, slips, config.user_cap)
    chosen = _fit_budget(capped, slips, known, config)
    for reason, left_out in ((Skip.USER_CAP, len(train) - len(capped)), (Skip.BUDGET, len(capped) - len(chosen))):
        if left_out:
            skipped[reason] += left_out
    return chosen


def _cap_users(train: Ints, slips: Slips, cap: float) -> Ints:
    """Holds each user to ``cap`` of the rows, or an equal share where users are too few for that."""
    users = slips["user"][train]
    different = len(np.unique(users))
    if different < 2:
        return train
    most = ceil(max(cap, 1 / different) * len(train))
    order = np.lexsort((slips["request"][train], users))
    _, starts, sizes = np.unique(users[order], return_index=True, return_counts=True)
    rank = np.arange(len(train)) - np.repeat(starts, sizes)
    return train[np.sort(order[rank < most])]


def _fit_budget(train: Ints, slips: Slips, known: NDArray[np.uint64], config: DatasetConfig) -> Ints:
    """At most ``max_rows``: new rows first, but ``replay`` of the budget stays with old ones."""
    budget = config.max_rows
    if budget is None or len(train) <= budget:
        return train
    requests = slips["request"][train]
    is_old = np.isin(requests, known)
    old, new = np.flatnonzero(is_old), np.flatnonzero(~is_old)
    old_rows = min(len(old), max(budget - len(new), ceil(config.replay * budget)))
    kept = [_sample(part, requests, n) for part, n in ((old, old_rows), (new, budget - old_rows))]
    return train[np.sort(np.concatenate(kept))]


def _sample(places: Ints, requests: NDArray[np.uint64], n: int) -> Ints:
    return places[np.argsort(requests[places], kind="stable")[:n]]

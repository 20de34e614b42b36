"""What a head would have carried: learnt from the log's older part, certified on its newer, none of which it saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from distiller.scan.kinds import OTHERS, RequestTemplate
from distiller.scan.rows import ScanRow
from router.heads.answers import AnswerSet
from router.heads.fit import LEAST_LEARNT, MOST_LEARNT, OPEN, is_open
from router.heads.head import LabelHead
from router.scoring.statistics.estimates import Interval
from router.scoring.statistics.thresholds import for_parity
from router.scoring.text.encoder import Encoder

FLOORS = (0.90, 0.95, 0.98)
CONFIDENCE = 0.95
AHEAD = 1000
"""Requests that a promise, and a share's interval, are for."""
LEARNT_SHARE = 2 / 3
LEAST_ROWS = 60
"""Requests of a kind below which no head is tried."""
CURVE_POINTS = 200

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Carried:
    """A floor, and the share of requests that a head would have carried under it: of those that were looked at, and
    within which limits the share of the next ``AHEAD`` will be (95%, if they are like these). ``wrong`` of
    ``looked_at`` were carried and not as the teacher. ``threshold`` is None where nothing is carried."""

    floor: float
    share: Interval
    wrong: int
    looked_at: int
    threshold: float | None
    usd_share: float = 0.0


@dataclass(slots=True)
class KindOutlook:
    """One kind. ``answers`` are all there were. ``head`` is None where none was tried, and ``why`` says so; ``scores``
    and ``right`` are its own on the kind's newer requests, (n,), at the places ``newer`` among the sample's rows."""

    kind: RequestTemplate
    answers: AnswerSet
    why: str = ""
    head: LabelHead | None = None
    newer: list[int] = field(default_factory=list)
    scores: Floats = field(default_factory=lambda: np.zeros(0))
    right: Bools = field(default_factory=lambda: np.zeros(0, np.bool_))
    carried: tuple[Carried, ...] = ()


@dataclass(frozen=True, slots=True)
class HeadOutlook:
    """All kinds, and what their heads would have carried together, by one threshold for all and of all requests.
    ``curve``: for every threshold the share that is carried, and the parity of all requests."""

    kinds: tuple[KindOutlook, ...]
    carried: tuple[Carried, ...]
    learnt: int
    looked_at: int
    curve: tuple[tuple[float, float], ...]


def outlook_of(rows: Sequence[ScanRow], kinds: Sequence[RequestTemplate], encoder: Encoder | None) -> HeadOutlook:
    """``rows`` are oldest first; one moment parts all kinds."""
    cut = int(LEARNT_SHARE * len(rows))
    found = [_kind(kind, rows, cut, encoder) for kind in kinds]
    newer = len(rows) - cut
    scores, right = np.full(newer, -1.0), np.zeros(newer, np.bool_)
    for one in found:
        places = np.array(one.newer, np.int64) - cut
        scores[places], right[places] = one.scores, one.right
    usd = np.array([float(row.usd or 0) for row in rows[cut:]])
    return HeadOutlook(tuple(found), carried_at(scores, right, usd), cut, newer, _curve(scores, right))


def _curve(scores: Floats, right: Bools) -> tuple[tuple[float, float], ...]:
    order = np.argsort(-scores, kind="stable")[: int((scores >= 0).sum())]
    wrong = np.cumsum(~right[order])
    step = max(1, len(order) // CURVE_POINTS)
    places = [*range(step - 1, len(order), step)]
    return ((0.0, 1.0), *(((i + 1) / len(scores), 1 - float(wrong[i]) / len(scores)) for i in places))


def _kind(kind: RequestTemplate, rows: Sequence[ScanRow], cut: int, encoder: Encoder | None) -> KindOutlook:
    answers = AnswerSet.of(rows[place].fields for place in kind.rows)
    older = [place for place in kind.rows if place < cut][-MOST_LEARNT:]
    newer = [place for place in kind.rows if place >= cut]
    found = KindOutlook(kind, answers)
    if kind.name == OTHERS or len(kind.rows) < LEAST_ROWS or len(older) < LEAST_LEARNT or not newer:
        found.why = "too few requests"
    elif is_open([rows[place].fields for place in older]):
        found.why = OPEN
    else:
        learnt = [rows[place] for place in older]
        found.head = LabelHead.fit([r.features for r in learnt], [r.fields for r in learnt], encoder)
        found.why = "" if found.head else "no answer comes twice"
    if found.head is not None:
        said = found.head.answers([rows[place].features for place in newer], found.head.inputs.reader(encoder))
        found.newer, found.scores = newer, np.array([one.score for one in said])
        found.right = np.array([one.fields == rows[place].fields for one, place in zip(said, newer, strict=True)])
        usd = np.array([float(rows[place].usd or 0) for place in newer])
        found.carried = carried_at(found.scores, found.right, usd)
    return found


def carried_at(scores: Floats, right: Bools, usd: Floats) -> tuple[Carried, ...]:
    """What is carried under each floor by the exact bound: all arrays (n,), a score below 0 where no head is."""
    found = []
    for floor in FLOORS:
        certified = for_parity(scores, None, right, floor, CONFIDENCE, over=AHEAD)
        served = scores >= certified.route
        threshold = certified.route if served.any() else None
        money = float(usd[served].sum() / usd.sum()) if usd.sum() else float(served.mean()) if len(served) else 0.0
        share = share_ahead(int(served.sum()), len(scores))
        found.append(Carried(floor, share, int((served & ~right).sum()), len(scores), threshold, money))
    return tuple(found)


def share_ahead(served: int, looked_at: int, ahead: int = AHEAD) -> Interval:
    """The share of the next ``ahead`` requests above a threshold that lies just below the ``served``-th highest score.

    What lies above an order statistic is Beta-distributed whatever the scores are (Wilks 1941), so the count among the
    next requests is beta-binomial, if they come as these did."""
    if not served:
        return Interval(0.0, 0.0, 0.0)
    from scipy.stats import betabinom

    estimate = served / looked_at
    if served == looked_at:
        return Interval(1.0, 1.0, 1.0)
    spread = betabinom(ahead, served + 1, looked_at - served)
    low, high = (float(spread.ppf(q)) / ahead for q in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return Interval(estimate, min(low, estimate), max(high, estimate))

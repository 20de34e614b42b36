"""Refreshes a live scorer with what it was not fitted on, so that it knows today's traffic without a refit.

Fresh are audited requests too old for the holdout. Where some of the holdout itself is strange to the scorer, a
third of it, fixed by a hash of the text, is lent as well, so that a new kind of traffic stops being strange once it
was judged. What the scorer has learnt from never certifies a threshold for it, neither now nor later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

from distiller.rounds.scorer import lent
from router.contracts.decision import NOVEL
from router.scoring.model import Example
from router.scoring.scorer import Scorer

LEAST_STRANGE = 0.02
"""Share of the holdout that must be strange before some of it is lent."""


@dataclass(frozen=True, slots=True)
class Refresh:
    """``learnt``: the requests that the scorer knows now and may not be certified on, by id. ``report`` is for the
    manifest."""

    scorer: Scorer
    certifying: list[Example]
    learnt: frozenset[str]
    report: dict[str, Any]


def refreshed(scorer: Scorer, older: Sequence[Example], holdout: Sequence[Example], learnt: frozenset[str]) -> Refresh:
    """The scorer with what may be lent to it, and what is left to certify by.

    Args:
        older: judged requests that do not certify, oldest first.
        holdout: judged requests after those, a sample of the traffic, oldest first.
        learnt: what ``scorer`` was fitted on or refreshed with already, by request id.
    """
    unseen = [e for e in holdout if e.request_id not in learnt]
    raws = scorer.raws([e.features for e in unseen])
    strange = sum(scorer.look_at(raw).novelty >= NOVEL for raw in raws)
    lends = strange >= max(1, LEAST_STRANGE * len(unseen))
    fresh = [e for e in older if e.request_id not in learnt]
    lending = [lends and lent(e) for e in unseen]
    staying = [not lend for lend in lending]
    given, certifying = list(compress(unseen, lending)), list(compress(unseen, staying))
    now = scorer.refreshed([*fresh, *given], [*scorer.raws([e.features for e in fresh]), *compress(raws, lending)])
    strange_after = sum(now.look_at(raw).novelty >= NOVEL for raw in compress(raws, staying))
    report = {
        "refreshed_on": len(fresh) + len(given),
        "lent_by_holdout": len(given),
        "learnt_before": len(holdout) - len(unseen),
        "certified_on": len(certifying),
        "strange": _share(strange, len(unseen)),
        "strange_after": _share(strange_after, len(certifying)),
    }
    return Refresh(now, certifying, learnt | {e.request_id for e in (*fresh, *given)}, report)


def _share(count: int, of: int) -> float:
    return count / of if of else 0.0

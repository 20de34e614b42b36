"""The two tiers, why a request went to one of them, and the decision that says so."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Tier(StrEnum):
    """Who answers: the small model served here, or the frontier model behind the proxy."""

    STUDENT = "student"
    TEACHER = "teacher"

    @property
    def other(self) -> Tier:
        return Tier.TEACHER if self is Tier.STUDENT else Tier.STUDENT


class Reason(StrEnum):
    """Why the answering tier answered. A closed set: it is a metric label and a header.

    The first seven are decided before any token, in this order. ``cold_start`` stands where
    ``score`` would, while no scorer has been fitted. ``deferral`` (the student's answer was not
    accepted) and ``fallback`` (a failure, never a judgement) happen after the decision.
    """

    OVERRIDE = "override"
    CAPABILITY = "capability"
    RULE = "rule"
    AFFINITY = "affinity"
    EXPLORATION = "exploration"
    BUDGET = "budget"
    SCORE = "score"
    COLD_START = "cold_start"
    DEFERRAL = "deferral"
    FALLBACK = "fallback"


class Deferral(StrEnum):
    """Why a student's answer was not let out. A closed set. ``outside``: it is none of the answers that there are;
    ``personal``: it holds what the log redacts, so that nothing like it was ever measured."""

    CONFIDENCE = "confidence"
    EMPTY = "empty"
    REFUSAL = "refusal"
    SCHEMA = "schema"
    REPETITION = "repetition"
    TRUNCATED = "truncated"
    OUTSIDE = "outside"
    PERSONAL = "personal"


class Fallback(StrEnum):
    """Which failure moved a request away from the tier it was decided for. A closed set."""

    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    SERVER_ERROR = "server_error"
    RATE_LIMITED = "rate_limited"
    CIRCUIT_OPEN = "circuit_open"
    UNUSABLE = "unusable"
    UNABLE = "unable"
    BUDGET = "budget"


ASIDE = frozenset({Reason.OVERRIDE, Reason.FALLBACK})
"""Reasons that tell of a client's wish or of a failure, not of the traffic."""


def is_moved(fallback: str | None) -> bool:
    """Whether a failure moved a request to who answered it. A budget that is spent is none."""
    return fallback not in (None, Fallback.BUDGET)


def is_traffic(decided: str, answered: str, fallback: str | None) -> bool:
    """Whether a request tells of the traffic and of how well it is served: by the reason of its decision, the reason
    that it was answered for, and what failed on the way. What a client forced to a tier, and what a failure moved,
    count in money and nowhere else."""
    return decided not in ASIDE and answered not in ASIDE and not is_moved(fallback)


NOVEL = 0.15
"""Novelty from which on a request counts as strange: it is 0 for 99 of 100 requests like those of training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was decided for one request before any token, and on what ground.

    ``score`` is the calibrated probability that the student's answer is acceptable; ``threshold``
    the score from which on the student serves. Where the objective is a share or money, what escalating gains for
    its cost is held against the threshold instead: ``worth``, 0 to 1, high for the student; None where it is the
    score. ``gain`` is P(the teacher is right) less P(the student is), None where labels tell of no such thing, and
    ``teacher_tokens`` how long the teacher's answer was expected to be. ``novelty`` is how strange the request was
    to the live scorer, 0 (as what it was fitted on) to 1; None where none was fitted. ``propensity`` is the
    probability with which this request was drawn for audit, whether or not it was (``audited``): the
    draw never looks at the content, so the drawn requests are a uniform sample of the traffic.
    ``exploration`` is the probability with which a request bound for the student was sent to the teacher
    instead: one that was (reason ``exploration``) stands for 1/``exploration`` requests like it in
    training data.
    """

    tier: Tier
    reason: Reason
    detail: str = ""
    score: float | None = None
    threshold: float | None = None
    gain: float | None = None
    worth: float | None = None
    teacher_tokens: float | None = None
    novelty: float | None = None
    propensity: float = 0.0
    audited: bool = False
    exploration: float = 0.0

"""The closed sets that metrics are labelled with, and which counts a policy can have: all of them are there from 0 on,
since a counter born at its first increment is one whose first increment Prometheus' increase() never sees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

from router.contracts.decision import Deferral, Fallback, Reason, Tier
from router.contracts.records import AnswerKind

MISSED = frozenset(
    (
        "queue_full",
        "budget",
        "capability",
        "student_unready",
        "unanswered",
        "upstream_error",
        "judge_failed",
        "internal_error",
        "shutdown",
    )
)
TOO_HARD = frozenset({Reason.SCORE, Reason.DEFERRAL, Reason.AFFINITY, Reason.CAPABILITY})
Rejection = Literal[
    "unauthorized",
    "body_too_large",
    "body_too_slow",
    "headers_too_large",
    "unknown_encoding",
    "too_many_streams",
    "shutting_down",
    "bad_request",
    "not_found",
]
FeedbackWord = Literal["good", "bad", "neutral"]
NO_TIER = "none"
NO_BUNDLE = "base"
SERVED_BY = (*(tier.value for tier in Tier), NO_TIER)
STATUS_CLASSES = ("2xx", "4xx", "5xx")
JUDGED = ("acceptable", "unacceptable")
RESULTS = (*JUDGED, "unjudged", *(f"missed_{cause}" for cause in sorted(MISSED)), "missed_other")

Born = Iterator[tuple[str, tuple[str, ...]]]
"""Counters' names, as ``Metrics`` has them, and labels."""


def of_policy(policy: str) -> Born:
    """What a policy can count, whatever its bundle."""
    yield "counterfactual", (policy,)
    yield "embeddings_usd", (policy,)
    for served in SERVED_BY:
        yield "broken_streams", (policy, served)
        yield from (("requests", (policy, served, reason, s)) for reason in Reason for s in STATUS_CLASSES)
    yield from (("embeddings", (policy, status)) for status in STATUS_CLASSES)
    yield from (("feedback", (policy, word)) for word in get_args(FeedbackWord))
    yield from (("deferrals", (policy, cause)) for cause in Deferral)
    yield from (("fallbacks", (policy, cause)) for cause in Fallback)
    yield from (("teacher_failures", (policy, cause)) for cause in Fallback)
    yield from (("escalations", (policy, reason)) for reason in TOO_HARD)
    for tier in Tier:
        yield "estimated", (policy, tier)
        yield from (("tokens", (policy, tier, way)) for way in ("input", "cached_input", "output"))
        kinds = (AnswerKind.SERVED, AnswerKind.AUDITED, AnswerKind.DISCARDED)
        yield from (("spend", (policy, tier, kind)) for kind in kinds)
    yield "spend", (policy, Tier.TEACHER, AnswerKind.JUDGED)


def of_bundle(policy: str, bundle: str) -> Born:
    """What the traffic of a bundle and its audits can count."""
    yield from (("audits", (policy, bundle, tier, result)) for tier in Tier for result in RESULTS)
    yield "audits", (policy, bundle, NO_TIER, "missed_unanswered")
    yield from (("risk", (policy, bundle, tier, result)) for tier in Tier for result in JUDGED)
    for tier in Tier:
        yield "traffic", (policy, bundle, tier)
        yield "squares", (policy, bundle, tier)

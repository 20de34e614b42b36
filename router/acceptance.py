"""May this student answer leave? Asked once, at the commit point, before any of it left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from router.contracts.bundles import Thresholds
from router.contracts.decision import Decision, Deferral
from router.contracts.records import Signals
from router.policy import Policy
from router.scoring.estimator import Scorer


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the client asked of the answer's form.

    ``json``: it must be JSON; ``schema``: and valid against this; ``limited``: the client set the
    length itself, so an answer cut there is what was asked for.
    """

    json: bool = False
    schema: Mapping[str, Any] | None = None
    limited: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """The part of a student's answer that was held back so far.

    ``message``: OpenAI's assistant message (of a stream: its deltas joined). ``complete``: nothing
    more will come; ``finish_reason`` is None until then.
    """

    message: Mapping[str, Any]
    finish_reason: str | None = None
    signals: Signals | None = None
    complete: bool = True


def wanted(body: Mapping[str, Any]) -> Wanted:
    """Reads what the request asks of the answer's form. Malformed parts count as not asked."""
    raise NotImplementedError


def structural(seen: Seen, want: Wanted) -> Deferral | None:
    """What is wrong with an answer whatever the question was; None where nothing is."""
    raise NotImplementedError


def judge_answer(
    seen: Seen,
    want: Wanted,
    policy: Policy,
    decision: Decision,
    scorer: Scorer | None,
    thresholds: Thresholds | None,
) -> tuple[Deferral | None, float | None]:
    """Whether the student's answer must be deferred to the teacher, and P(acceptable | request, answer)."""
    raise NotImplementedError

"""Why one request went where it went: from its record, the bundle that was live for it, and the audits."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from pydantic import ValidationError

from router.contracts.bundles import Manifest, read_manifest
from router.contracts.decision import Tier
from router.contracts.records import Record
from router.errors import BundleError, EngineError, StoreError
from router.heads.shelf import load_scorer
from router.policy.policy import Policy
from router.routing.steps import Step, afterwards, walk
from router.scoring.occlusion import Effect, effects
from router.scoring.parts import Parts, message_of, parts, usual
from router.scoring.scorer import Scorer
from router.scoring.text.encoder import load_encoder
from router.scoring.text.features import FEATURES_VERSION, STRUCTURE, Features, extract
from router.settings import Settings
from router.store.base import Records

CLOSE = 1e-6
"""Scores nearer than this are the same: other processors add up in another order."""
NEIGHBOURS = 5
COMPARED = 300
"""Of the last audits so many are what is usual."""
GONE = "(its record is no longer kept)"
EXCERPT_CHARS = 200
_REDACTED = re.compile(r"\[(?:SECRET|EMAIL|IBAN|CARD|PHONE|IP)\]")


@dataclass(frozen=True, slots=True)
class Read:
    """What was read of the request; ``structure`` has the values that are not zero."""

    language: str
    script: str
    input_tokens: int
    turns: int
    structure: Mapping[str, float]
    excerpt: str


@dataclass(frozen=True, slots=True)
class Scoring:
    """The score, and what moved it. ``recomputed`` is None where it could not be, and ``why_not`` says why;
    ``same``: it is what was recorded. ``usual`` are the parts of the average audited request, for comparison."""

    recorded: float | None
    novelty: float | None
    recomputed: float | None = None
    same: bool = False
    why_not: str | None = None
    parts: Parts | None = None
    usual: Parts | None = None
    effects: Sequence[Effect] = ()


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A judged request like this one, as the scorer remembers it. ``similarity``: the cosine of their messages'
    embeddings, in the directions that tell requests apart."""

    request_id: str
    similarity: float
    acceptable: bool
    excerpt: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """``missing`` says, part by part, what cannot be shown and why. ``acceptance`` is the head's probability,
    computed anew where the record has none."""

    record: Record
    steps: Sequence[Step]
    afterwards: Sequence[str]
    read: Read | None
    scoring: Scoring
    neighbours: Sequence[Neighbour]
    manifest: Manifest | None
    acceptance: float | None
    missing: Sequence[str]

    def as_json(self) -> bytes:
        """For tools. Amounts of money are strings, as in records."""
        record = self.record
        found: dict[str, Any] = {
            "request_id": record.request_id,
            "record": record,
            "cost_usd": record.cost_usd,
            "saved_usd": record.saved_usd,
            "walk": self.steps,
            "afterwards": self.afterwards,
            "features": self.read,
            "score": self.scoring,
            "neighbours": self.neighbours,
            "thresholds": self.manifest.thresholds.model_dump() if self.manifest else None,
            "acceptance": self.acceptance,
            "missing": self.missing,
        }
        return orjson.dumps(found, default=str, option=orjson.OPT_INDENT_2)


def explain(request_id: str, records: Records, settings: Settings, policies: Sequence[Policy]) -> Explanation:
    """Gathers what there is to say. ``policies`` as they are now: one is used where it is still what decided.

    Raises:
        StoreError: there is no such request, or the records cannot be read.
    """
    record = records.get(request_id)
    if record is None and (unread := next((u for u in records.unread if u.request_id == request_id), None)):
        raise StoreError(f"the record of request {request_id!r} cannot be read: {unread.why}")
    if record is None:
        raise StoreError(f"no request {request_id!r} in {settings.records_db}: its id is in x-locum-request-id")
    policy = next((p for p in policies if (p.name, p.version) == (record.policy, record.policy_version)), None)
    missing = []
    if policy is None:
        missing.append("the policy that decided: its file has changed since, or was not given (--policy)")
    manifest = _manifest(record, settings)
    features = extract(record.request) if record.request is not None else None
    if features is None:
        missing.append("features, the score's parts and neighbours: the policy keeps no text (log.text)")
    scorer, why_not = _scorer(record, settings, manifest)
    audited = list(deque(_audited(record, records), maxlen=COMPARED)) if features else []
    neighbours = _neighbours(record, features, scorer, records) if features and scorer else ()
    if features and scorer and not neighbours and scorer.heads is None:
        missing.append("requests like it: the scorer remembers none, too few were judged or it has no encoder")
    return Explanation(
        record=record,
        steps=walk(record, policy),
        afterwards=afterwards(record),
        read=_read(features, scorer) if features else None,
        scoring=_scoring(record, features, scorer, why_not, audited),
        neighbours=neighbours,
        manifest=manifest,
        acceptance=_acceptance(record, scorer),
        missing=tuple(missing),
    )


def _manifest(record: Record, settings: Settings) -> Manifest | None:
    try:
        return read_manifest(settings.bundles(record.policy), record.bundle) if record.bundle else None
    except (OSError, ValidationError):
        return None


def _scorer(record: Record, settings: Settings, manifest: Manifest | None) -> tuple[Scorer | None, str | None]:
    """The scorer that was live for the record, or why there is none."""
    if record.bundle is None:
        return None, "no bundle was live: there was no scorer"
    if manifest is None:
        return None, f"the bundle {record.bundle} is gone: old ones are pruned"
    if not record.features_version == manifest.features_version == FEATURES_VERSION:
        return None, f"it was read by version {record.features_version} of the features, this is {FEATURES_VERSION}"
    folder = settings.bundles(record.policy) / record.bundle
    try:
        return load_scorer(folder, manifest, partial(load_encoder, settings.cache)), None
    except (BundleError, EngineError) as e:
        return None, str(e)


def _read(features: Features, scorer: Scorer | None) -> Read:
    structure = {name: round(float(x), 4) for name, x in zip(STRUCTURE, features.structure, strict=True) if x}
    return Read(
        language=features.language,
        script=features.script,
        input_tokens=features.input_tokens,
        turns=features.turns,
        structure=structure,
        excerpt=_excerpt(_message(features, scorer)),
    )


def _message(features: Features, scorer: Scorer | None) -> str:
    return message_of(scorer, features) if scorer else features.last_user


def _excerpt(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= EXCERPT_CHARS else f"{text[: EXCERPT_CHARS - 1]}…"


def _scoring(
    record: Record, features: Features | None, scorer: Scorer | None, why_not: str | None, audited: Sequence[Features]
) -> Scoring:
    decision = record.decision
    if record.request is None or features is None:
        why_not = why_not or "the policy keeps no text (log.text)"
    if scorer is None or features is None or record.request is None:
        return Scoring(decision.score, decision.novelty, why_not=why_not)
    score = scorer.score(features)
    same = decision.score is not None and abs(score - decision.score) < CLOSE
    if not same:
        redacted = _REDACTED.search(features.text) is not None
        why_not = "the kept text is redacted" if redacted else "the kept text is not what was scored"
    return Scoring(
        recorded=decision.score,
        novelty=decision.novelty,
        recomputed=score,
        same=same,
        why_not=None if same else why_not,
        parts=None if scorer.heads else parts(scorer, features),
        usual=usual([parts(scorer, other) for other in audited]) if audited and not scorer.heads else None,
        effects=effects(record.request, message_of(scorer, features), scorer.score),
    )


def _neighbours(record: Record, features: Features, scorer: Scorer, records: Records) -> tuple[Neighbour, ...]:
    """The nearest of those that gave the score its second opinion."""
    near = [found for found in scorer.neighbours(features, NEIGHBOURS + 1) if found[0] != record.request_id]
    return tuple(
        Neighbour(request_id, round(similarity, 4), acceptable, _excerpt_of(records.get(request_id), scorer))
        for request_id, similarity, acceptable in near[:NEIGHBOURS]
    )


def _excerpt_of(record: Record | None, scorer: Scorer) -> str:
    return GONE if record is None or record.request is None else _excerpt(_message(extract(record.request), scorer))


def _audited(record: Record, records: Records) -> Iterator[Features]:
    """Of all others whose audit has a verdict on the student."""
    for _, other in records.audits(record.policy):
        verdict = other.audit.acceptable if other.audit else None
        known = verdict is not None and other.request is not None and other.is_traffic
        if known and other.request is not None and other.request_id != record.request_id:
            yield extract(other.request)


def _acceptance(record: Record, scorer: Scorer | None) -> float | None:
    if record.acceptance is not None:
        return record.acceptance
    student = record.answer_of(Tier.STUDENT)
    if scorer is None or student is None or student.signals is None or record.decision.score is None:
        return None
    return scorer.accept(record.decision.score, student.signals)

"""Records, read once, as what replaying needs of them: no text is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from router.contracts.bundles import Thresholds
from router.contracts.decision import Reason, Tier
from router.contracts.records import Answer, Record, Signals, Usage, read_record
from router.errors import StoreError
from router.policy.policy import Policy
from router.routing.decision import Facts, RequestView, decide
from router.routing.lengths import audited_pair
from router.scoring.text.features import Features, extract

BEFORE_THE_SCORE = frozenset({Reason.CAPABILITY, Reason.RULE})
_WOULD_SERVE = Facts(score=1.0, thresholds=Thresholds(route=0.0, accept=0.0), share_threshold=0.0)


@dataclass(frozen=True, slots=True)
class LoggedReply:
    """One tier's answer, as far as it matters here. ``signals``: what acceptance went by, or would have."""

    usage: Usage
    signals: Signals | None = None


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One answered request.

    ``settled``: for each policy the tier it goes to before any score is asked for, None where the score
    decides. ``replies`` are what serving left, by tier; ``paired`` what an audit added. ``features`` only
    where no score was recorded; else ``gain`` and ``teacher_tokens`` are as it was decided by, too. ``follow_up``: the
    conversation had an answer before. ``lengths``: output tokens of the student's answer, which served, and of the
    teacher's, by an audit, where both are known. ``judge``: whose word the audit's verdict is, and ``judge_usd`` what
    that cost.
    """

    bundle: str | None
    conversation_id: str
    created_at: float
    follow_up: bool
    settled: tuple[Tier | None, ...]
    score: float | None
    gain: float | None
    teacher_tokens: float | None
    features: Features | None
    replies: dict[Tier, LoggedReply]
    paired: dict[Tier, LoggedReply]
    propensity: float
    acceptable: bool | None
    task: str | None
    judge: str | None
    judge_usd: float
    lengths: tuple[int, int] | None


def read_jsonl(path: Path) -> Iterator[Record]:
    """Records from a file, one a line.

    Raises:
        StoreError: the file cannot be read, or a line is no record; the message names the line.
    """
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _record(line, path, number)
    except OSError as e:
        raise StoreError(f"cannot read {path}: {e.strerror}") from e


def _record(line: bytes, path: Path, number: int) -> Record:
    try:
        return read_record(line)
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(map(str, first["loc"])) or "line"
        raise StoreError(f"{path}, line {number} is no record: {where}: {first['msg']}") from e


def read_log(records: Iterable[Record], policies: Sequence[Policy]) -> tuple[list[LoggedRequest], Counter[str]]:
    """The answered requests of the first policy, in order, and how many records each policy's name has. What tells
    nothing of the traffic is left out.

    What each of ``policies`` settles before the score (capability, its rules) is decided anew where the
    request's text was kept; elsewhere it stays as it was recorded.
    """
    rows: list[LoggedRequest] = []
    names: Counter[str] = Counter()
    for record in records:
        names[record.policy] += 1
        if record.policy == policies[0].name and record.tier is not None and record.answers and record.is_traffic:
            rows.append(_logged(record, policies))
    return rows, names


def _logged(record: Record, policies: Sequence[Policy]) -> LoggedRequest:
    body, decision, audit = record.request, record.decision, record.audit
    messages = body.get("messages") if body else None
    readable = isinstance(messages, list)
    features = extract(body) if body and readable else None
    replies = {a.tier: _reply(a, record.streamed) for a in reversed(record.answers)}
    paired = {a.tier: _reply(a, record.streamed) for a in ([audit.answer] if audit and audit.answer else [])}
    return LoggedRequest(
        bundle=record.bundle,
        conversation_id=record.conversation_id,
        created_at=record.created_at,
        follow_up=_follow_up(messages) if isinstance(messages, list) else decision.reason is Reason.AFFINITY,
        settled=tuple(_settled(record, features, policy) for policy in policies),
        score=decision.score,
        gain=decision.gain,
        teacher_tokens=decision.teacher_tokens,
        features=features if decision.score is None else None,
        replies=replies,
        paired=paired,
        propensity=decision.propensity,
        acceptable=audit.acceptable if audit else None,
        task=record.task,
        judge=audit.judge if audit else None,
        judge_usd=float(audit.judge_usd) if audit else 0.0,
        lengths=audited_pair(record),
    )


def _reply(answer: Answer, streamed: bool) -> LoggedReply:
    """Of a longer stream its first tokens are judged."""
    signals = answer.signals
    return LoggedReply(answer.usage, signals.held or signals if signals and streamed else signals)


def _follow_up(messages: list[object]) -> bool:
    return any(isinstance(m, dict) and m.get("role") == "assistant" for m in messages)


def _settled(record: Record, features: Features | None, policy: Policy) -> Tier | None:
    decision = record.decision
    if record.reason is Reason.CAPABILITY:  # the student's own server may have found it so
        return Tier.TEACHER
    if features is None or record.request is None:
        return decision.tier if decision.reason in BEFORE_THE_SCORE else None
    found = decide(policy, RequestView(features, record.request), _WOULD_SERVE)
    return found.tier if found.reason in BEFORE_THE_SCORE else None

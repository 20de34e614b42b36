"""One bundle's logged requests as columns, priced by one policy: what plans are tried on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt

from distiller.replay.log import LoggedReply, LoggedRequest
from distiller.replay.third_look import ThirdLook
from router.contracts.decision import Tier
from router.contracts.prices import Price
from router.contracts.records import USERS_WORD, Usage
from router.errors import StoreError
from router.policy.policy import Policy
from router.pricing import Prices, cost_usd, counterfactual_usd, reckoned_usd
from router.routing.lengths import AuditedLengths
from router.scoring.scorer import Look, Scorer
from router.scoring.worth import Extra, worth

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """Columns, all (n,), one entry for each answered request of one bundle, in the order of time.

    What ends in ``_seen`` is known of every request whether or not it was audited, or guessed from what
    is; the rest is meaningful only where ``audited``. ``accept`` is the probability that the answer would
    have been let out by, NaN where the student's answer is unknown. Costs are US dollars.

    Attributes:
        to_student, to_teacher: settled before the score: by the student's abilities or a rule.
        score: what routing compares with its threshold, the request's score or, for a share and for money, what
            escalating it gains for its cost (``router.scoring.worth``): with affinity the conversation's lowest so far.
        guess: P(acceptable), the request's own score.
        days: time from first to last request.
        verdict: what judging the pair costs by the policy's judges.
        unpriced: those of them that cost money, but gave no verdict in this log, so that nobody knows how much.
        output_ratio: the student's output tokens over the teacher's, in audited pairs: how long its answers to what
            the teacher served are taken to be. The other way round ``router.routing.lengths`` tells, as everywhere.
        scored_answers: ``accept`` looks at answers; otherwise no plan can hold one back.
        third: what samples would do, None where the policy or the bundle draws none; ``accept`` knows of those that
            the log has, as certifying does.
    """

    bundle: str | None
    to_student: Bools
    to_teacher: Bools
    score: Floats
    guess: Floats
    accept_seen: Floats
    accept: Floats
    student_seen: Floats
    student: Floats
    teacher_seen: Floats
    teacher: Floats
    verdict_seen: Floats
    verdict: Floats
    unpriced: tuple[str, ...]
    audited: Bools
    acceptable: Bools
    propensity: Floats
    days: float
    output_ratio: float
    pairs: int
    scored_answers: bool
    third: ThirdLook | None
    left_out: dict[str, int]

    def __len__(self) -> int:
        return len(self.score)

    @property
    def requests_per_day(self) -> float:
        return len(self) / self.days if self.days > 0 else 0.0


def bundle_of(rows: Sequence[LoggedRequest], live: str | None, wanted: str | None = None) -> str | None:
    """Which bundle's requests to replay: the one asked for, else the live one, else the newest in the log.

    Raises:
        StoreError: the log has no request of the one asked for.
    """
    counts = Counter(row.bundle for row in rows)
    if wanted is not None:
        asked = None if wanted == "base" else wanted
        if asked not in counts:
            has = ", ".join(f"{name or 'base'} ({n})" for name, n in counts.most_common())
            raise StoreError(f"the log has no answered request of bundle {wanted}; it has {has or 'none at all'}")
        return asked
    return live if live in counts else rows[-1].bundle


def traffic_of(
    rows: Sequence[LoggedRequest],
    which: int,
    policy: Policy,
    scorer: Scorer | None,
    bundle: str | None,
    *,
    by_score: bool = False,
) -> Traffic:
    """The columns of ``bundle``'s requests for policy number ``which`` of those the log was read for.

    ``by_score``: whatever its objective, it is the score that is compared with a threshold.

    Raises:
        StoreError: no request of the bundle was scored; PolicyError: a price is unknown.
    """
    mine = [row for row in rows if row.bundle == bundle]
    scored = [(row, look) for row in mine if (look := _look(row, scorer)) is not None]
    if not scored:
        raise StoreError(
            f"none of the {len(mine)} answered requests of bundle {bundle or 'base'} has a score: "
            "thresholds can be replayed once a scorer is live (`locum distill run`)"
        )
    kept, looks = [row for row, _ in scored], [look for _, look in scored]
    scores = [look.score for look in looks]
    prices, cached, lengths, (ratio, pairs) = Prices.of(policy), _cached_share(kept), _lengths(rows), _ratio(kept)
    student_seen, student = _columns([_student_costs(row, ratio, prices.student) for row in kept])
    teacher_seen, teacher = _columns([_teacher_costs(row, lengths, cached, prices.teacher()) for row in kept])
    third = _third(policy, scored, scorer, prices)
    accept_seen, accept = _columns([_accepts(row, look.score, scorer, third is not None) for row, look in scored])
    compared = scores if by_score else _compared(policy, kept, looks, Extra.of(prices))
    verdicts, unpriced = _verdicts(kept, policy)
    verdict_seen, verdict = _columns(verdicts)
    upward = policy.conversation.affinity == "upward"
    times = [row.created_at for row in kept]
    return Traffic(
        bundle=bundle,
        to_student=np.array([row.settled[which] is Tier.STUDENT for row in kept]),
        to_teacher=np.array([row.settled[which] is Tier.TEACHER for row in kept]),
        score=np.array(_lowest(kept, compared, which, policy.conversation.idle_seconds) if upward else compared),
        guess=np.array(scores),
        accept_seen=accept_seen,
        accept=accept,
        student_seen=student_seen,
        student=student,
        teacher_seen=teacher_seen,
        teacher=teacher,
        verdict_seen=verdict_seen,
        verdict=verdict,
        unpriced=unpriced,
        audited=np.array([_has_verdict(row) for row in kept]),
        acceptable=np.array([row.acceptable is True for row in kept]),
        propensity=np.array([row.propensity for row in kept]),
        days=(max(times) - min(times)) / DAY_SECONDS,
        output_ratio=ratio,
        pairs=pairs,
        scored_answers=scorer is not None,
        third=third,
        left_out={"of other bundles": len(rows) - len(mine), "without a score": len(mine) - len(kept)},
    )


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[Floats, Floats]:
    """What is seen of every request, and what is known with the audit's help, (n,) each."""
    seen, known = np.array(pairs, np.float64).T
    return seen, known


def _has_verdict(row: LoggedRequest) -> bool:
    """An audit that judged the pair, both of which are known."""
    whole = {*row.replies, *row.paired} == {*Tier}
    return row.acceptable is not None and row.propensity > 0 and whole


def _verdicts(rows: Sequence[LoggedRequest], policy: Policy) -> tuple[list[tuple[float, float]], tuple[str, ...]]:
    """USD of a verdict on each request by the judge whom the policy gives it to: (guessed from that judge's others,
    known where it gave one), and the judges of whom nothing is known."""
    spent: defaultdict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.judge is not None and row.acceptable is not None:
            spent[row.judge].append(row.judge_usd)

    @cache
    def usual(label: str) -> float | None:
        known = [usd for name in _said_by(label) for usd in spent[name]]
        return sum(known) / len(known) if known else None

    judges = [policy.judge.for_task(row.task) for row in rows]
    paid = [judge.label if judge.paid else None for judge in judges]
    found = []
    for row, label in zip(rows, paid, strict=True):
        seen = (usual(label) or 0.0) if label else 0.0
        found.append((seen, row.judge_usd if label and row.judge in _said_by(label) else seen))
    return found, tuple(sorted(label for label in {*filter(None, paid)} if usual(label) is None))


def _said_by(label: str) -> tuple[str, ...]:
    """Under which names a judge's verdicts stand: a user may have spoken since, in another's place."""
    return (label, USERS_WORD) if label.startswith(USERS_WORD) else (label,)


def _look(row: LoggedRequest, scorer: Scorer | None) -> Look | None:
    """As it was decided by, which saw the text before it was redacted; else the scorer's on the kept text."""
    if row.score is not None:
        return Look(row.score, row.gain, 0.0, row.teacher_tokens)
    return scorer.look(row.features) if scorer and row.features else None


def _compared(policy: Policy, rows: Sequence[LoggedRequest], looks: Sequence[Look], extra: Extra) -> list[float]:
    """What routing compares, as serving does: see ``router.routing.policy_state``."""
    aim, scores = policy.objective, [look.score for look in looks]
    gains = [1 - look.score if look.gain is None else look.gain for look in looks]
    if aim.cap is not None and all(look.tokens is not None for look in looks):
        inputs, outputs = [_input_tokens(row) for row in rows], [look.tokens or 0.0 for look in looks]
        usual = sum(inputs) / len(inputs), sum(outputs) / len(outputs)
        dear = (extra.dearness(usual, *tokens) for tokens in zip(inputs, outputs, strict=True))
        return [worth(gain, times) for gain, times in zip(gains, dear, strict=True)]
    declared = aim.starts_from_prior
    return [worth(gain) for gain in gains] if declared and any(look.gain is not None for look in looks) else scores


def _input_tokens(row: LoggedRequest) -> int:
    """By the backend that served, since the request's own estimate is not recorded."""
    return next((reply.usage.input_tokens for reply in row.replies.values()), 0)


def _third(
    policy: Policy, scored: Sequence[tuple[LoggedRequest, Look]], scorer: Scorer | None, prices: Prices
) -> ThirdLook | None:
    head = scorer.learned.head if scorer else None
    agreement = head.agreement if head else None
    if head is None or agreement is None or agreement.samples > policy.accept.samples:
        return None
    answers = []
    for row, look in scored:
        reply = row.replies.get(Tier.STUDENT) or row.paired.get(Tier.STUDENT)
        usage = reply.usage if reply else Usage()
        costs = (
            float(cost_usd(usage, prices.student)),
            float(counterfactual_usd(usage, prices.teacher(), cached_share=0.0)),
        )
        answers.append((look.score, reply.signals if reply else None, costs))
    return ThirdLook.of(head, agreement, answers)


def _accepts(row: LoggedRequest, score: float, scorer: Scorer | None, sampled: bool) -> tuple[float, float]:
    seen, paired = row.replies.get(Tier.STUDENT), row.paired.get(Tier.STUDENT)
    known = _accept(seen, score, scorer, sampled)
    return known, _accept(paired, score, scorer, sampled) if seen is None else known


def _accept(reply: LoggedReply | None, score: float, scorer: Scorer | None, sampled: bool) -> float:
    """``sampled``: the log's samples count, as they do for a policy that draws some."""
    if reply is None or scorer is None:
        return float("nan")
    signals = reply.signals
    return scorer.accept(score, signals if sampled or signals is None else replace(signals, agreement=None))


def _lowest(rows: Sequence[LoggedRequest], scores: Sequence[float], which: int, idle_seconds: float) -> list[float]:
    """Each request's score or the lowest before it in its conversation, which keeps what once escalated up until it
    was idle for so long."""
    lowest: dict[str, tuple[float, float]] = {}
    found = []
    for row, score in zip(rows, scores, strict=True):
        before, at = lowest.get(row.conversation_id, (1.0, 0.0))
        if not row.follow_up or row.created_at - at > idle_seconds:
            before = 1.0
        found.append(min(score, before))
        own = -1.0 if row.settled[which] is Tier.TEACHER else score
        lowest[row.conversation_id] = min(own, before), row.created_at
    return found


def _ratio(rows: Sequence[LoggedRequest]) -> tuple[float, int]:
    """(student's output tokens over the teacher's, pairs it is the mean of); 1 where nothing was paired."""
    pairs = [{**row.paired, **row.replies} for row in rows if _has_verdict(row)]
    student = sum(b[Tier.STUDENT].usage.output_tokens for b in pairs)
    teacher = sum(b[Tier.TEACHER].usage.output_tokens for b in pairs)
    return (student / teacher if student and teacher else 1.0), len(pairs)


def _cached_share(rows: Sequence[LoggedRequest]) -> float:
    """The share of the teacher's input that its prompt cache served."""
    usages = [row.replies[Tier.TEACHER].usage for row in rows if Tier.TEACHER in row.replies]
    return sum(u.cached_input_tokens for u in usages) / max(1, sum(u.input_tokens for u in usages))


def _lengths(rows: Sequence[LoggedRequest]) -> AuditedLengths:
    found = AuditedLengths()
    for row in rows:
        if row.lengths is not None:
            found.add(row.task, *row.lengths)
    return found


def _student_costs(row: LoggedRequest, ratio: float, price: Price) -> tuple[float, float]:
    """USD of the student's answer: (known or guessed from what serving left, known with the audit's help)."""
    if (own := row.replies.get(Tier.STUDENT)) is not None:
        return (usd := float(cost_usd(own.usage, price))), usd
    other = row.replies.get(Tier.TEACHER)
    usage = other.usage if other else Usage()
    guess = Usage(input_tokens=usage.input_tokens, output_tokens=round(usage.output_tokens * ratio))
    return _beside(row, Tier.STUDENT, float(reckoned_usd(guess, price)), price)


def _teacher_costs(row: LoggedRequest, lengths: AuditedLengths, cached: float, price: Price) -> tuple[float, float]:
    """The same of the teacher's, as it is told what the teacher alone would have cost."""
    if (own := row.replies.get(Tier.TEACHER)) is not None:
        return (usd := float(cost_usd(own.usage, price))), usd
    other = row.replies.get(Tier.STUDENT)
    usage, _ = lengths.expected(row.task, other.usage if other else Usage())
    return _beside(row, Tier.TEACHER, float(counterfactual_usd(usage, price, cached_share=cached)), price)


def _beside(row: LoggedRequest, tier: Tier, guess: float, price: Price) -> tuple[float, float]:
    paired = row.paired.get(tier)
    return guess, float(cost_usd(paired.usage, price)) if paired else guess

"""The record: what one request asked, who answered, what it cost, and how it was judged.

Plain dataclasses, since one is made for every request; what is read back is validated (``read_record``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter

from router.contracts.decision import Decision, Deferral, Fallback, Reason, Tier, is_traffic
from router.contracts.definitions import saved_usd

USERS_WORD = "feedback"
"""The judge of a verdict that is a user's own word (``Audit.judge``)."""


_MARK = re.compile(r"\[(?:SECRET|EMAIL|IBAN|CARD|PHONE|IP)\]")


def verdict_of(score: float | None) -> bool | None:
    """A user's score (0 to 1) as a verdict on what they got; None where it is neither, or there is none."""
    return None if score is None or score == 0.5 else score > 0.5


class Rights(StrEnum):
    """May a backend's answers be trained on? Anything but ``allowed`` needs the user's stated right."""

    ALLOWED = "allowed"
    FORBIDDEN = "forbidden"
    UNKNOWN = "unknown"


class AnswerKind(StrEnum):
    """What an answer's money was spent on. A closed set: it is a metric label."""

    SERVED = "served"
    AUDITED = "audited"
    DISCARDED = "discarded"
    JUDGED = "judged"
    TRAINED = "trained"
    EMBEDDED = "embedded"


class LengthBasis(StrEnum):
    """Whose lengths tell how long the teacher's answer would have been to what the student served: audits of the
    ``task``, all audits of the ``policy``, or the ``student``'s own answer, where too few were audited."""

    TASK = "task"
    POLICY = "policy"
    STUDENT = "student"


class ReductionReason(StrEnum):
    """Why a record holds no texts though its policy keeps them. A closed set: it is a metric label.

    ``room``: too many bytes waited to be written. ``unfit``: what a backend said could not have been read back.
    """

    ROOM = "room"
    UNFIT = "unfit"


@dataclass(slots=True, kw_only=True)
class Usage:
    """Token counts as the backend reported them; ``estimated`` where one of them it did not.

    Among ``input_tokens`` are ``cached_input_tokens``, which a prompt cache served, and ``cache_written_tokens``, which
    it took up; of the latter ``cache_written_1h_tokens`` to be kept for an hour, which costs more than the usual. Sound
    and pictures are among ``input_tokens`` and ``output_tokens``, thoughts among the latter. ``searches``: of the web,
    with a context of ``search_size``. ``service_tier`` and ``region`` are those that were served, None for the usual
    ones. ``billed_usd``: what the provider itself says that it bills, in US dollars, whatever the tokens.
    """

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False
    cache_written_tokens: int = 0
    cache_written_1h_tokens: int = 0
    reasoning_tokens: int = 0
    input_audio_tokens: int = 0
    cached_audio_tokens: int = 0
    output_audio_tokens: int = 0
    input_image_tokens: int = 0
    output_image_tokens: int = 0
    searches: int = 0
    search_size: str | None = None
    service_tier: str | None = None
    region: str | None = None
    billed_usd: Decimal | None = None


@dataclass(slots=True, kw_only=True)
class Signals:
    """The student's own token probabilities over the part of its answer that was seen, and its words.

    Natural logarithms of the probability of each emitted token, summarised: all are <= 0.
    ``complete`` tells whether the whole answer was seen or only the first tokens of a stream; ``held`` are
    the signals of a longer answer's first tokens, those before the commit point of a stream.

    Of the words, each None where it was not looked at: ``distinct``, the share of different ones among all
    runs of four words; how many words ``hedges`` and how many ``sentences``; whether what looks like JSON
    ``parses``; a number that stands for a short ``answer``. ``agreement`` is the share of ``samples``
    more answers that said the same.
    """

    tokens: int
    sum_logprob: float
    mean_logprob: float
    min_logprob: float
    first_logprob: float
    q10_logprob: float
    q25_logprob: float
    q50_logprob: float
    complete: bool = True
    distinct: float | None = None
    hedges: int | None = None
    sentences: int | None = None
    parses: bool | None = None
    answer: int | None = None
    agreement: float | None = None
    samples: int = 0
    held: Signals | None = None


@dataclass(slots=True, kw_only=True)
class Answer:
    """One tier's answer to the request, served or not. Text is absent where the policy keeps none.

    ``top_logprobs``: a teacher's likeliest tokens at each position, where the policy asks for them and neither it nor
    redaction took the text away: packed (``router.contracts.logprobs``), or until they are kept as the API told them.
    ``broken``: it is not all that the backend said, since a part could not be read: no answer to learn from.
    ``redacted``: its message is not kept as it was said. Older records do not tell.
    ``rights_by``: the field by which an imported log told of its rights; None where it did not, and in older records.
    ``temperature``: by which a student drew it, where that was not the client's word; None in older records too.
    """

    tier: Tier
    kind: AnswerKind
    model: str
    message: dict[str, Any] | None = None
    finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    cost_usd: Decimal = Decimal(0)
    seconds: float = 0.0
    first_token_seconds: float | None = None
    student_version: str | None = None
    signals: Signals | None = None
    training_rights: Rights = Rights.UNKNOWN
    top_logprobs: str | list[Any] | None = None
    broken: bool = False
    temperature: float | None = None
    redacted: bool = False
    rights_by: str | None = None


@dataclass(slots=True, kw_only=True)
class Audit:
    """What became of an audit. ``missed`` names the cause when there is no verdict on what both tiers said:
    the other one did not answer, or the judge did not.

    ``acceptable``: the student's answer is as good as the teacher's; None where the judge could not tell, or
    nothing was judged. ``teacher_acceptable`` and ``student_acceptable``: that tier's own answer is right, by a
    judge that can tell in absolute terms. ``judge`` names whose word they are, ``judge_usd`` is what it cost, in
    US dollars, ``judge_estimated`` where it did not say so itself.
    """

    answer: Answer | None = None
    acceptable: bool | None = None
    judge: str | None = None
    missed: str | None = None
    teacher_acceptable: bool | None = None
    student_acceptable: bool | None = None
    judge_usd: Decimal = Decimal(0)
    judge_estimated: bool = False


@dataclass(slots=True, kw_only=True)
class Provenance:
    """Which system logged a request that never came through here, and when its log was imported (unix time)."""

    source: str
    at: float


@dataclass(slots=True, kw_only=True)
class Record:
    """One request, whole. ``answers[0]`` is what the client got, if anything.

    ``amount``s are US dollars, times are seconds, ``created_at`` is unix time.
    ``owner`` names the client key that the request came with, and tells nothing of it; None without keys, and in
    records older than owners. The conversation is that owner's alone.
    ``counterfactual_usd`` is what the teacher alone would have cost. Where the student served it rests on an answer of
    ``counterfactual_tokens``, by ``counterfactual_by``; both None otherwise, and in older records, where it was the
    student's own length.
    ``acceptance`` is the probability by which the student's answer was let out or deferred, None where it was not
    asked. ``redacted``: what shapes an answer of the request is not kept as it was said; older records do not tell.
    ``embedding``: texts were embedded; then nothing was decided, no text is kept, and only the bill counts.
    ``imported``: another system served and logged it; it may be learnt from, and counts in nothing else.
    ``overhead_seconds`` is the request's time less the time spent waiting for upstreams. ``reduced`` tells why
    money and decision are all that is left of it.
    """

    schema_version: Literal[1] = 1
    request_id: str
    conversation_id: str
    created_at: float
    policy: str
    policy_version: str
    bundle: str | None = None
    features_version: str
    owner: str | None = None
    user: str | None = None
    task: str | None = None
    decision: Decision
    tier: Tier | None = None
    reason: Reason
    deferral: Deferral | None = None
    fallback: Fallback | None = None
    status: int = 200
    streamed: bool = False
    request: dict[str, Any] | None = None
    answers: list[Answer] = field(default_factory=list)
    counterfactual_usd: Decimal = Decimal(0)
    counterfactual_tokens: int | None = None
    counterfactual_by: LengthBasis | None = None
    acceptance: float | None = None
    seconds: float = 0.0
    overhead_seconds: float = 0.0
    audit: Audit | None = None
    feedback: float | None = None
    reduced: ReductionReason | None = None
    redacted: bool = False
    embedding: bool = False
    imported: Provenance | None = None

    @property
    def cost_usd(self) -> Decimal:
        """All that this request cost, audits, their judge and thrown-away answers included."""
        total = sum((a.cost_usd for a in self.answers), Decimal(0))
        if self.audit:
            total += self.audit.judge_usd
        if self.audit and self.audit.answer:
            total += self.audit.answer.cost_usd
        return total

    @property
    def is_traffic(self) -> bool:
        """Whether it counts in anything but money: see ``router.contracts.decision.is_traffic``."""
        aside = self.embedding or self.imported is not None
        return not aside and is_traffic(self.decision.reason, self.reason, self.fallback)

    @property
    def may_teach(self) -> bool:
        """Whether it tells what is asked and answered: traffic, here or elsewhere."""
        return self.is_traffic or self.imported is not None

    @property
    def estimated_usd(self) -> Decimal:
        """What of it is estimated, since nobody told how many tokens it was."""
        audit = self.audit
        answers = [*self.answers, *([audit.answer] if audit and audit.answer else [])]
        judged = audit.judge_usd if audit and audit.judge_estimated else Decimal(0)
        return sum((a.cost_usd for a in answers if a.usage.estimated), judged)

    def as_said(self, *tiers: Tier) -> bool:
        """Whether the request and these tiers' answers are kept as they were said, as far as they are kept: only such
        a record can be learnt from, or measured by anew. Of what an older Locum wrote, what has a mark is not."""
        said = (answer for tier in tiers if (answer := self.answer_of(tier)) is not None)
        parts = [(self.redacted, self.request), *((answer.redacted, answer.message) for answer in said)]
        return not any(changed or _marked(part) for changed, part in parts)

    @property
    def counts_for(self) -> Tier | None:
        """The tier in whose share of the traffic it counts; None where nobody answered, or it is no traffic."""
        return self.tier if self.is_traffic else None

    @property
    def stands_for(self) -> float:
        """How many requests its audit stands for; one whose propensity was not recorded stands for itself."""
        return 1 / self.decision.propensity if self.decision.propensity > 0 else 1.0

    @property
    def usable(self) -> bool:
        """Whether it can be learnt from, or measured by anew, as far as that is told without reading what was said: it
        is answered traffic, or was imported, and its request and the teacher's whole answer are kept as they were
        said."""
        teacher = self.answer_of(Tier.TEACHER)
        if self.status != 200 or not self.may_teach or self.request is None or teacher is None:
            return False
        whole = teacher.message is not None and teacher.finish_reason is not None and not teacher.broken
        return whole and self.as_said(Tier.TEACHER)

    @property
    def saved_usd(self) -> Decimal:
        """Signed: what the teacher alone would have cost, less what was spent."""
        return saved_usd(self.counterfactual_usd, self.cost_usd)

    def heed_feedback(self) -> None:
        """Where the policy's judge is what users say, puts their word in the place of the one who judged
        meanwhile: on the answer that they got, whichever tier's it was."""
        audit, verdict = self.audit, verdict_of(self.feedback)
        if audit is None or verdict is None or not (audit.judge or "").startswith(USERS_WORD):
            return
        if self.tier is Tier.STUDENT:
            self.audit = replace(audit, acceptable=verdict, student_acceptable=verdict, judge=USERS_WORD)
        elif self.tier is Tier.TEACHER:
            self.audit = replace(audit, teacher_acceptable=verdict)

    def right(self, tier: Tier) -> bool | None:
        """Whether the tier's answer is right, without comparing: by a judge that can tell so, else by the user who
        got it; None where nobody said. A student as good as a teacher that is right is right, and only that one."""
        audit, said = self.audit, None
        if audit is not None:
            said = audit.student_acceptable if tier is Tier.STUDENT else audit.teacher_acceptable
        if said is None and self.tier is tier:
            said = verdict_of(self.feedback)
        if said is None and tier is Tier.STUDENT and audit is not None and self.right(Tier.TEACHER):
            said = audit.acceptable
        return said

    def answer_of(self, tier: Tier) -> Answer | None:
        """The tier's answer, wherever it came from: served, discarded, or an audit.

        A whole answer goes before one that was cut off (no ``finish_reason``), such as the student's
        held-back first tokens that a deferral threw away before an audit asked it again.
        """
        audited = self.audit.answer if self.audit else None
        found = [a for a in [*self.answers, audited] if a and a.tier is tier]
        return min(found, key=lambda a: a.finish_reason is None, default=None)


def _marked(part: object) -> bool:
    return part is not None and _MARK.search(str(part)) is not None


def read_record(text: str | bytes) -> Record:
    """A record from its JSON; unknown fields are passed over. Raises pydantic.ValidationError."""
    record: Record = _adapter(Record).validate_json(text)
    return record


def read_audit(text: str | bytes) -> Audit:
    """An audit from its JSON. Raises pydantic.ValidationError."""
    audit: Audit = _adapter(Audit).validate_json(text)
    return audit


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)

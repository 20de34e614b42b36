"""One record becomes one row of a dataset, or a reason why not."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

import orjson

from distiller.data.rights import right_to
from distiller.data.turns import Turn, calls_of, offers_functions, plain, spoken, text, uses_tools
from router.contracts.decision import Reason, Tier
from router.contracts.logprobs import spelled, unpacked
from router.contracts.records import Answer, Record
from router.engine.template import PromptTemplate
from router.judges.judge import Judges
from router.judges.pair import Pair
from router.policy.policy import Policy
from router.store.redaction import redact, redact_json
from router.wire.finish import finish_of
from router.wire.rationale import AnswerParts, asked_in, parted, thoughts_of
from router.wire.tools import shown

NO_RIGHT = "none"
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Skip(StrEnum):
    """Why a record is in no split, or not trained on after all. A closed set: datasets, trainings and rounds count
    them."""

    FAILED = "failed"
    FORCED = "forced_to_a_tier"
    MOVED = "moved_by_a_failure"
    NO_TEXT = "no_text_kept"
    NO_TEACHER = "no_teacher_answer"
    EMPTY = "empty_answer"
    UNFINISHED = "unfinished_answer"
    FILTERED = "filtered_answer"
    UNKNOWN_END = "unknown_finish_reason"
    BROKEN = "answer_not_all_readable"
    NOT_UNICODE = "not_unicode"
    MIXED_THOUGHTS = "thoughts_within_answer"
    ONLY_THOUGHTS = "only_thoughts"
    PREFILL = "assistant_prefill"
    TEMPLATE = "refused_by_chat_template"
    TOO_LONG = "too_long_to_train_on"
    TOOLS = "tools"
    CALL_FORM = "calls_that_template_cannot_read_back"
    NOT_TEXT = "not_only_text"
    SEVERAL = "several_answers"
    NO_RIGHT = "no_right_to_train"
    REDACTED = "changed_by_redaction"
    HOLDOUT_PROMPT = "holdout_prompt"
    HOLDOUT_CONVERSATION = "holdout_conversation"
    HOLDOUT_NEAR_COPY = "near_copy_of_holdout"
    EVALUATION_PROMPT = "evaluation_prompt"
    BAD_FEEDBACK = "bad_feedback"
    JUDGED_WRONG = "judged_wrong"
    BREAKS_SCHEMA = "breaks_schema"
    OUTVOTED = "outvoted_answer"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    USER_CAP = "user_cap"
    BUDGET = "over_max_rows"


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """A prompt and the teacher's answer to it, redacted.

    ``messages`` are the prompt's, content as one string each, with calls of tools and whose results they are; ``calls``
    are the answer's own, whose text may be "" then. ``rights`` is the right by which the
    row may be trained on, ``none`` where there is none (such a row only measures). ``student_ok``
    is whether the student live at that time was as good, ``teacher_right`` whether the answer is right
    by a judge or a user who could tell without comparing; None where that is not known.
    ``teacher_tokens`` is how long the answer was by the teacher's own count, 0 where unknown. ``options`` are the
    request's that shape the student's answer; ``streamed``: the client had it streamed. ``synthetic``: no client
    asked it, the teacher wrote prompt and answer; such a row is trained on or left out, and never measures. ``shown``
    are the ids of the requests that the teacher was shown to write one like them.
    ``top_logprobs`` are the teacher's likeliest tokens where they were recorded and spell ``answer`` from its first
    character on (``router.contracts.logprobs.unpacked`` reads them; tokens that end the answer may follow), else "".
    ``rationale`` is what the teacher thought before it, where its API tells that apart. ``source`` tells where an
    answer is from that was asked for to be learnt from, or which field of an imported log told of its rights; "" for
    the served teacher's own.
    ``user``, ``owner`` (the key it came with) and ``conversation_id`` are aliases (``alias``): they tell apart, and
    name nobody. ``language`` is the last user turn's, ISO 639-1; ``cluster`` names the kind of requests that this is
    one of, where the student fails at it, and ``weight`` is then above 1. Both are known once the row is in a dataset.
    """

    request_id: str
    conversation_id: str
    created_at: float
    messages: list[Turn]
    answer: str
    teacher: str
    rights: str
    task: str | None = None
    user: str | None = None
    split: str = ""
    weight: float = 1.0
    student_ok: bool | None = None
    options: dict[str, Any] = field(default_factory=dict)
    streamed: bool = False
    teacher_right: bool | None = None
    teacher_tokens: int = 0
    synthetic: bool = False
    shown: list[str] = field(default_factory=list)
    top_logprobs: str = ""
    rationale: str = ""
    language: str | None = None
    cluster: str | None = None
    owner: str | None = None
    source: str = ""
    calls: list[Turn] = field(default_factory=list)

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The tools that a student is shown with the prompt."""
        return shown(self.options)

    @property
    def trainable(self) -> bool:
        return self.rights != NO_RIGHT

    @property
    def prompt(self) -> str:
        """The whole prompt as one text, for comparing prompts."""
        return "\n".join(f"{m['role']}: {spoken(m)}" for m in self.messages)

    @property
    def turns(self) -> tuple[str, str]:
        """The prompt as two texts: all before the last user turn, and that turn with what follows it."""
        last = max((i for i, m in enumerate(self.messages) if m["role"] == "user"), default=0)
        said = [f"{m['role']}: {spoken(m)}" for m in self.messages]
        return "\n".join(said[:last]), "\n".join(said[last:])

    @property
    def said(self) -> Turn:
        """The answer as a message."""
        return {"role": "assistant", "content": self.answer, **({"tool_calls": self.calls} if self.calls else {})}

    @property
    def conversation(self) -> list[Turn]:
        """The prompt's messages and the answer as the last: the ``messages`` form that TRL and others read."""
        return [*self.messages, self.said]

    def refused_by(self, template: PromptTemplate) -> Skip | None:
        """Why a student with this chat template cannot learn the row; None where it can."""
        if (self.tools or self.calls) and (template.calls is None or template.calls.mark in self.answer):
            return Skip.CALL_FORM
        return Skip.TEMPLATE if template.refuses(self.messages, self.tools, self.calls) else None

    def to_json(self) -> bytes:
        """One line without its end, the same for the same row."""
        return orjson.dumps(self)

    @classmethod
    def from_json(cls, line: bytes | str) -> DatasetRow:
        """Reads what ``to_json`` wrote."""
        return cls(**orjson.loads(line))


FIELDS = tuple(f.name for f in fields(DatasetRow))


def alias(name: str) -> str:
    """What stands for a user or a conversation in a dataset: who knows the name can find its rows again."""
    return hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=8).hexdigest()


def row_of(record: Record, policy: Policy, judges: Judges) -> DatasetRow | Skip:
    """The record as a row, whatever split it will be in, or why it can be in none. ``judges`` are the policy's, made
    once for many records."""
    teacher = record.answer_of(Tier.TEACHER)
    reason = _unusable(record, teacher, policy)
    if reason or teacher is None or teacher.message is None or record.request is None:
        return reason or Skip.NO_TEACHER
    kinds = policy.log.kinds(record.task)
    asked = asked_in(record.request["messages"])
    messages = [plain(m, asked) for m in record.request["messages"]]
    answer, calls = text(teacher.message.get("content")), calls_of(teacher.message, record.request)
    if answer is None or calls is None or any(m is None for m in messages):
        return Skip.TOOLS if calls is None else Skip.NOT_TEXT
    prompt = [m["content"] for m in messages if m]
    said = parted(answer, asked)
    options = _shaping(record.request, policy)
    if (odd := oddity(said, answer, prompt, calls=bool(calls))) is not None:
        return odd
    if not _is_writable((messages, options, record.task, teacher.message)):
        return Skip.NOT_UNICODE
    learnt = [messages, answer, options, calls]
    if not record.as_said(Tier.TEACHER) or redact_json(learnt, kinds) != learnt:
        return Skip.REDACTED
    return DatasetRow(
        request_id=record.request_id,
        conversation_id=alias(record.conversation_id),
        created_at=record.created_at,
        messages=[m for m in messages if m],
        answer=said.answer,
        teacher=teacher.model,
        rights=right_to(teacher, policy) or NO_RIGHT,
        task=redact(record.task, kinds) if record.task else record.task,
        user=None if record.user is None else alias(record.user),
        owner=None if record.owner is None else alias(record.owner),
        source=f"by its log's {teacher.rights_by}" if teacher.rights_by else "",
        student_ok=_student_ok(record, teacher, judges),
        options=options,
        streamed=record.streamed,
        teacher_right=record.right(Tier.TEACHER),
        teacher_tokens=teacher.usage.output_tokens,
        top_logprobs="" if calls else _spelling(teacher.top_logprobs, said.answer),
        rationale=redact("\n\n".join(filter(None, (thoughts_of(teacher.message), said.rationale))), kinds),
        calls=calls,
    )


def _shaping(request: Mapping[str, Any], policy: Policy) -> dict[str, Any]:
    """What shapes the student's answer; what it may ignore is never sent to it."""
    ignored = policy.student.may_ignore
    return {name: value for name, value in policy.student.heeded.shaping(request).items() if name not in ignored}


def _spelling(told: object, answer: str) -> str:
    """The recorded tokens, unless they say anything else than the answer does now: what was redacted since, or a
    server's own way with thoughts or with parts of characters."""
    return told if isinstance(told, str) and spelled(unpacked(told)).startswith(answer.encode()) else ""


def _unusable(record: Record, teacher: Answer | None, policy: Policy) -> Skip | None:
    request = record.request
    if record.status != 200 or not record.may_teach or teacher is None:
        return _no_traffic(record) or Skip.NO_TEACHER
    if not request or teacher.message is None:
        return Skip.NO_TEXT
    messages = request.get("messages")
    if not messages or not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        return Skip.NO_TEXT
    return _unlearnable(request, [*messages, teacher.message], policy) or _unfinished(teacher)


def _unlearnable(request: Mapping[str, Any], turns: Sequence[Mapping[str, Any]], policy: Policy) -> Skip | None:
    """Why what was asked is nothing that a student learns to answer. ``turns``: the prompt's, and the answer."""
    if not offers_functions(request) or (uses_tools(request, turns) and not policy.student.may_call):
        return Skip.TOOLS
    if turns[-2].get("role") == "assistant":
        return Skip.PREFILL
    return Skip.SEVERAL if (request.get("n") or 1) != 1 else None


def _unfinished(teacher: Answer) -> Skip | None:
    """Why the answer is not whole. One of which a part could not be read is not, whatever it ended for; what a filter
    took away is no refusal of the model's own."""
    finish = finish_of(teacher.finish_reason)
    if finish == "function_call" or (finish == "tool_calls" and not (teacher.message or {}).get("tool_calls")):
        return Skip.TOOLS
    if finish == "content_filter":
        return Skip.FILTERED
    if finish in (None, "length", "error"):
        return Skip.UNFINISHED
    return Skip.BROKEN if teacher.broken else None if finish in ("stop", "tool_calls") else Skip.UNKNOWN_END


def oddity(said: AnswerParts, content: str, prompt: Sequence[str], *, calls: bool) -> Skip | None:
    """Why a whole answer's text cannot be learnt. What cannot be written as UTF-8 has lost a part on its way, and so
    has an answer in which a replacement character stands that nobody asked with."""
    if not content.strip() and not calls:
        return Skip.EMPTY
    if not _is_writable((content, *prompt)):
        return Skip.NOT_UNICODE
    if REPLACEMENT in content and not any(REPLACEMENT in text for text in prompt):
        return Skip.NOT_UNICODE
    if not said.answer.strip() and not calls:
        return Skip.ONLY_THOUGHTS
    return Skip.MIXED_THOUGHTS if said.mixed else None


def _is_writable(values: object) -> bool:
    """Whether JSON can say it: no half of a character, nothing nested without end."""
    try:
        orjson.dumps(values)
    except orjson.JSONEncodeError:
        return False
    return True


def _no_traffic(record: Record) -> Skip | None:
    """Why a record tells nothing of the traffic."""
    if record.status != 200:
        return Skip.FAILED
    forced = record.decision.reason is Reason.OVERRIDE
    return None if record.may_teach else Skip.FORCED if forced else Skip.MOVED


def _student_ok(record: Record, teacher: Answer, judges: Judges) -> bool | None:
    """What the audit found; else the judge's word on a whole student answer that was not served, if it is to
    be had at once."""
    if record.audit and record.audit.acceptable is not None:
        return record.audit.acceptable
    student = record.answer_of(Tier.STUDENT)
    if student is None or student.message is None or teacher.message is None:
        return None
    if student.signals is None or not student.signals.complete:
        return None
    if not judges.immediate(record.task):
        return None
    found = judges.now(Pair(student.message, teacher.message, record.request, record.task, record.request_id))
    return found.acceptable if found else None

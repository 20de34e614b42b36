"""What the label teacher said is learnt from only where it is whole, as asked, and one of the answers there are."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Self

from distiller.data.rights import ALLOWED
from distiller.data.rows import DatasetRow, Skip, oddity
from distiller.data.turns import calls_of
from router.backends.client import Completion
from router.contracts.decision import Deferral
from router.heads.answers import AnswerSet, Fields, fields_of
from router.heads.kinds import masked
from router.judges.equality import bare
from router.judges.judge import Judges
from router.judges.pair import Pair, text
from router.judges.soundness import AnswerSoFar, structural
from router.policy.policy import Policy
from router.store.redaction import redact, redact_json
from router.wire.finish import finish_of
from router.wire.rationale import AnswerParts, asked_in, parted, thoughts_of

LEAST_ANSWERS = 40
"""Answers to one kind of requests below which nobody can say that they are a closed set."""
MOST_UNSEEN = 0.05
"""The chance of a value that was never there, up to which what a field's values are is known."""


class LabelFault(StrEnum):
    """Why a prompt has no answer to learn from. A closed set: rounds count them."""

    REFUSED = "refused in words"
    TURNED_AWAY = "turned away by its server"
    FILTERED = "taken away by a filter"
    EMPTY = "empty"
    CUT = "cut off"
    SHAPE = "not in the asked form"
    TOOLS = "calls what no tool is"
    THOUGHTS = "thoughts, and no answer apart from them"
    UNREADABLE = "not all readable"
    PERSONAL = "holds what log.redact changes"
    OUTSIDE = "outside the answers seen"
    WRONG = "judged wrong"
    STALLED = "no answer in time"
    LIMITED = "rate-limited"
    FAILED = "the label teacher failed"
    EXPIRED = "not answered before its batch ended"
    LOST = "under way when an earlier run was killed"


_ODD = {
    Skip.EMPTY: LabelFault.EMPTY,
    Skip.NOT_UNICODE: LabelFault.UNREADABLE,
    Skip.ONLY_THOUGHTS: LabelFault.THOUGHTS,
    Skip.MIXED_THOUGHTS: LabelFault.THOUGHTS,
}
_MISSHAPEN = {
    Deferral.REFUSAL: LabelFault.REFUSED,
    Deferral.EMPTY: LabelFault.EMPTY,
    Deferral.TRUNCATED: LabelFault.CUT,
    Deferral.OUTSIDE: LabelFault.OUTSIDE,
}


Kind = tuple[str | None, str]
Spellings = dict[str, str]
"""Each value as the served teacher spells it most, by what it says."""


@dataclass(slots=True)
class ClosedAnswers:
    """The answers that the traffic has, by kind of requests (task and system prompt): the values of each field that has
    few. Of kinds with open answers nothing is outside."""

    known: dict[Kind, dict[str, Spellings]] = field(default_factory=dict)
    words: dict[Kind, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Iterable[DatasetRow]) -> Self:
        """From the served teacher's answers."""
        by_kind: defaultdict[Kind, list[Fields | None]] = defaultdict(list)
        for row in rows:
            by_kind[_kind(row)].append(fields_of(row.said))
        enough = {kind: answers for kind, answers in by_kind.items() if len(answers) >= LEAST_ANSWERS}
        closed = {kind: found for kind, answers in enough.items() if (found := _closed(answers))}
        words = {kind: frozenset(dict(a).get("", "") for a in by_kind[kind] if a is not None) for kind in closed}
        return cls(closed, words)

    def outside(self, row: DatasetRow) -> bool:
        """Whether the row's answer has a value that its field never has, or lacks such a field. Case and what stands
        around a word make no other value."""
        said = dict(fields_of(row.said) or ())
        closed = self.known.get(_kind(row), {})
        return any(name not in said or bare(said[name]) not in values for name, values in closed.items())

    def spelled(self, row: DatasetRow) -> str:
        """The row's answer; a label as clients know it, where the label teacher spells it in another way."""
        labels, said = self.known.get(_kind(row), {}).get(""), row.answer.strip()
        if labels is None or row.calls or said in self.words[_kind(row)]:
            return row.answer
        return labels.get(bare(said), row.answer)


def _kind(row: DatasetRow) -> Kind:
    return row.task, masked("\n".join(m["content"] for m in row.messages if m["role"] == "system"))


def _closed(answers: list[Fields | None]) -> dict[str, Spellings]:
    """Fields that nearly every answer has and whose values are few, by name."""
    told = [dict(fields or ()) for fields in answers]
    times = Counter(name for one in told for name in one)
    found = {}
    for name in (name for name, n in times.items() if n >= (1 - MOST_UNSEEN) * len(answers)):
        values = AnswerSet.of(((name, bare(one[name])),) if name in one else None for one in told)
        if values.unseen <= MOST_UNSEEN:
            spellings: Spellings = {}
            for value, _ in Counter(one[name] for one in told if name in one).most_common():
                spellings.setdefault(bare(value), value)
            found[name] = spellings
    return found


@dataclass(frozen=True, slots=True)
class LabelFilter:
    """``judges`` are the policy's, ``place`` is where the label teacher is, as the ledger names it."""

    policy: Policy
    judges: Judges
    closed: ClosedAnswers
    label: str
    place: str

    def row(self, row: DatasetRow, found: Completion) -> DatasetRow | LabelFault:
        """The row with this answer in the place of the served teacher's, or why it is not learnt from."""
        said = parted(text(found.message), asked_in(row.messages))
        body: dict[str, Any] = {**row.options, "messages": row.messages}
        calls = calls_of(found.message, body)
        kinds = self.policy.log.kinds(row.task)
        fault = _unfinished(found) or self._unfit(row, found, said, body)
        if fault is not None or calls is None:
            return fault or LabelFault.TOOLS
        labelled = replace(
            row,
            answer=said.answer,
            calls=calls,
            teacher=self.label,
            rights=ALLOWED,
            source=f"label teacher at {self.place}",
            teacher_right=None,
            teacher_tokens=found.usage.output_tokens if found.usage else 0,
            top_logprobs="",
            rationale=redact("\n\n".join(filter(None, (thoughts_of(found.message), said.rationale))), kinds),
        )
        return self._untrue(labelled, body) or replace(labelled, answer=self.closed.spelled(labelled))

    def _unfit(
        self, row: DatasetRow, found: Completion, said: AnswerParts, body: Mapping[str, Any]
    ) -> LabelFault | None:
        """What is wrong with its form."""
        prompt = [m["content"] for m in row.messages]
        odd = oddity(said, text(found.message), prompt, calls=bool(found.message.get("tool_calls")))
        if odd is not None:
            return LabelFault.REFUSED if found.message.get("refusal") else _ODD[odd]
        message = {**found.message, "content": said.answer}
        wrong = structural(AnswerSoFar(message, "stop"), self.judges.form(body, row.task))
        return None if wrong is None else _MISSHAPEN.get(wrong, LabelFault.SHAPE)

    def _untrue(self, row: DatasetRow, body: Mapping[str, Any]) -> LabelFault | None:
        """What is wrong with what it says."""
        message = row.conversation[-1]
        if redact_json(message, self.policy.log.kinds(row.task)) != message:
            return LabelFault.PERSONAL
        if self.closed.outside(row):
            return LabelFault.OUTSIDE
        if not self.judges.absolute(row.task):
            return None
        verdict = self.judges.now(Pair(message, message, body, row.task, row.request_id))
        wrong = verdict is not None and verdict.teacher_acceptable is False
        return LabelFault.WRONG if wrong else None


def _unfinished(found: Completion) -> LabelFault | None:
    finish = finish_of(found.finish_reason)
    if finish == "content_filter":
        return LabelFault.FILTERED
    return None if finish in ("stop", "tool_calls") else LabelFault.CUT

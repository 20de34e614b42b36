"""All heads of one bundle, a kind of requests each: which one a request is for, and what that says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from router.heads.form import AnswerForm
from router.heads.head import HeadAnswer, LabelHead
from router.heads.kinds import KindKey, RequestKinds
from router.scoring.text.encoder import Encoder
from router.scoring.text.features import Features, extract
from router.scoring.text.reader import Reader


class HeadReply(NamedTuple):
    """An assistant message, the calibrated probability that it is the teacher's answer, and how many tokens the request
    has, estimated."""

    message: dict[str, Any]
    score: float
    input_tokens: int


@dataclass(frozen=True, slots=True, eq=False)
class TaskHead:
    """The head of one kind, what reads requests for it, and how the teacher writes its answers. ``name`` is what people
    call the kind."""

    name: str
    head: LabelHead
    form: AnswerForm
    reader: Reader

    def answer(self, features: Features) -> HeadAnswer:
        (found,) = self.head.answers([features], self.reader)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class LabelHeads:
    """Heads by kind, all reading text with one encoder (None: by words alone)."""

    kinds: RequestKinds
    heads: Mapping[KindKey, TaskHead]
    encoder: Encoder | None

    @property
    def slow(self) -> bool:
        """Whether an answer takes milliseconds, which an event loop does not have."""
        return self.encoder is not None and self.encoder.slow

    def head_for(self, features: Features) -> TaskHead | None:
        """The head of the request's kind; None where there is none."""
        return self.heads.get(self.kinds.of(features))

    def look(self, features: Features) -> tuple[float, float] | None:
        """P(the teacher's answer is what a head would answer), and how familiar the request is, from 0 to 1; None where
        no head is for it."""
        found = self.head_for(features)
        if found is None:
            return None
        answer = found.answer(features)
        return answer.score, answer.familiar

    def reply(self, body: Mapping[str, Any]) -> HeadReply | None:
        """The answer to a parsed chat-completions request; None where it is of no kind that has a head."""
        features = extract(body)
        found = self.head_for(features)
        if found is None:
            return None
        answer = found.answer(features)
        return HeadReply(found.form.message(answer.fields), answer.score, features.input_tokens)

"""The judges, a row each; and those of one policy: who judges a pair, and asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from functools import cache, partial
from types import MappingProxyType
from typing import Any

import orjson

from router.contracts.decision import Tier
from router.contracts.records import Record
from router.judges import equality
from router.judges.base import Means, PairJudge
from router.judges.entry_point import OwnJudge
from router.judges.equality import Equality, JsonJudge
from router.judges.labels import LabelSet
from router.judges.llm import LlmJudge
from router.judges.pair import Message, Pair, Verdict, calls
from router.judges.semantic import SemanticJudge
from router.judges.soundness import AskedForm, wanted
from router.policy.judges import AnyJudge, Feedback
from router.wire.threads import aside

JUDGES: Mapping[str, Callable[[Any, Means], PairJudge]] = MappingProxyType(
    {
        "exact": lambda settings, means: Equality(equality.exact),
        "normalised": lambda settings, means: Equality(equality.normalised),
        "numeric": lambda settings, means: Equality(equality.numeric),
        "tool_calls": lambda settings, means: Equality(equality.tool_calls),
        "json": lambda settings, means: JsonJudge(sets=settings.arrays == "set"),
        "labels": lambda settings, means: LabelSet(settings.labels),
        "semantic": lambda settings, means: SemanticJudge(settings.at_least, means.encoder),
        "llm": lambda settings, means: LlmJudge(settings, means.complete, means.dearest),
        "callable": lambda settings, means: OwnJudge(settings.entry_point),
    }
)
"""(its settings, what it may ask with) -> the judge, by the settings' ``name``. Users' feedback has no row: until users
speak another judge does."""

NONE = Means()
TOO_DEEP = (RecursionError, orjson.JSONEncodeError)
"""Answers nested deeper than anybody means."""


class Judges:
    """Judges pairs as a policy says.

    Where either tier called tools the calls are compared, whoever judges, and the text does not matter: a
    student that calls tools where the teacher does not is not acceptable. Only a callable sees those too.

    Args:
        spec: who judges, by task.
        means: what judges ask with; an encoder is loaded once, when it is first needed.

    Raises:
        PolicyError: a callable is not installed, or cannot be imported.
    """

    def __init__(self, spec: AnyJudge, means: Means = NONE) -> None:
        self._spec = spec
        once = Means(means.complete, means.dearest, cache(means.encoder))
        self._by_task = {task: _made(spec.for_task(task), once) for task in (None, *spec.tasks)}

    def label(self, task: str | None) -> str:
        """Whose word a verdict on this task's requests is."""
        return self._spec.for_task(task).label

    def paid(self, task: str | None) -> bool:
        """Whether a verdict on this task's requests costs money."""
        return self._spec.for_task(task).paid

    def dearest_usd(self, pair: Pair) -> Decimal:
        """What a verdict on the pair can cost at most, in US dollars.

        Raises:
            JudgeError: the judge failed.
        """
        judge = self._of(pair.task)
        return Decimal(0) if judge.immediate or self.now(pair) is not None else judge.dearest_usd(pair)

    def immediate(self, task: str | None) -> bool:
        """Whether ``now`` always has a verdict, and at once: nothing is asked, loaded or run that is not ours."""
        return self._of(task).immediate

    def absolute(self, task: str | None) -> bool:
        """Whether ``now`` may know of an answer that it is wrong without comparing it with another."""
        return self._of(task).absolute

    def form(self, body: Mapping[str, Any], task: str | None) -> AskedForm:
        """What an answer to this request must be like, whatever it says: as the client asked, and one of those that
        there are, where these are known."""
        judge, form = self._of(task), wanted(body)
        return replace(form, outside=judge.outside) if judge.closed else form

    def learn(self, task: str | None, teacher: Message) -> None:
        """Takes a teacher's answer into account before anything is judged: it may be a label."""
        self._of(task).learn(teacher)

    def observe(self, record: Record) -> None:
        """The same of an audited request of the log, as far as its teacher's answer is kept as it was said."""
        teacher = record.answer_of(Tier.TEACHER)
        if teacher is None or teacher.message is None or teacher.finish_reason is None or teacher.broken:
            return
        if record.as_said(Tier.TEACHER):
            self.learn(record.task, teacher.message)

    def now(self, pair: Pair) -> Verdict | None:
        """The verdict; None where a language model must be asked for it (``verdict``).

        Raises:
            JudgeError: the judge failed.
        """
        judge = self._of(pair.task)
        try:
            return _by_calls(judge, pair) or judge.now(pair)
        except TOO_DEEP:
            return Verdict(None)

    async def verdict(self, pair: Pair) -> Verdict:
        """The verdict, whoever must be asked. What may take its time does so beside the event loop.

        Raises:
            JudgeError: the judge failed.
        """
        judge = self._of(pair.task)
        try:
            by_calls = await aside(partial(_by_calls, judge, pair), pair.size)
            return by_calls or await judge.verdict(pair)
        except TOO_DEEP:
            return Verdict(None)

    async def same(self, pair: Pair) -> bool:
        """Whether two answers of one tier say the same: as the judge sees it where that costs nothing, else by
        their words.

        Raises:
            JudgeError: the judge failed.
        """
        if not self._of(pair.task).says_same:
            return bool(equality.normalised(pair).acceptable)
        return bool((await self.verdict(pair)).acceptable)

    def _of(self, task: str | None) -> PairJudge:
        """Who judges; tasks without a judge of their own share the policy's, with what that learnt."""
        return self._by_task.get(task) or self._by_task[None]


def _made(spec: AnyJudge, means: Means) -> PairJudge:
    """For users' feedback, whoever judges until they speak."""
    settings = spec.otherwise if isinstance(spec, Feedback) else spec
    return JUDGES[settings.name](settings, means)


def _by_calls(judge: PairJudge, pair: Pair) -> Verdict | None:
    if judge.sees_calls or not (calls(pair.student) or calls(pair.teacher)):
        return None
    return equality.tool_calls(pair)


def specs(spec: AnyJudge) -> list[AnyJudge]:
    """The judge, its tasks' judges, and whoever judges in the place of feedback."""
    all_of = [spec, *spec.tasks.values()]
    return [*all_of, *(s.otherwise for s in all_of if isinstance(s, Feedback))]

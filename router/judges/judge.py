"""The judges of one policy: picks who judges a pair, and asks."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cached_property
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import orjson

from router.errors import EngineError, JudgeError, PolicyError
from router.judges import equality
from router.judges.labels import LabelSet
from router.judges.llm import Complete, body, compare
from router.judges.pair import Message, Pair, Verdict, calls, text
from router.policy.judges import AnyJudge, Feedback, Json, Labels, Llm, OwnCallable, Semantic

GROUP = "locum.judges"
"""The entry-point group of users' own judges: callables that take a ``Pair`` and give a ``Verdict``, a bool, or
None where they cannot tell."""

OwnJudge = Callable[[Pair], Verdict | bool | None]

PLAIN: Mapping[str, Callable[[Pair], Verdict]] = MappingProxyType(
    {
        "exact": equality.exact,
        "normalised": equality.normalised,
        "numeric": equality.numeric,
        "tool_calls": equality.tool_calls,
    }
)
"""Judges without settings."""


class Encodes(Protocol):
    """What the semantic judge reads text with (``router.scoring.text.encoder.Encoder``)."""

    def encode(self, text: str) -> npt.NDArray[np.float32]:
        """float32, (dim,), of length one; zeros for a text that says nothing."""
        ...


class Judges:
    """Judges pairs as a policy says.

    Where either tier called tools the calls are compared, whoever judges, and the text does not matter: a
    student that calls tools where the teacher does not is not acceptable. Only a callable sees those too.

    Args:
        spec: who judges, by task.
        complete: asks the language model of an ``llm`` judge; without it such a judge fails.
        dearest: what such a judge's reply to a request's body can cost at most, in US dollars.
        encoder: loads what the ``semantic`` judge reads text with; called once, when it is first needed.

    Raises:
        PolicyError: a callable is not installed, or cannot be imported.
    """

    def __init__(
        self,
        spec: AnyJudge,
        *,
        complete: Complete | None = None,
        dearest: Callable[[Llm, Mapping[str, Any]], Decimal] = lambda *_: Decimal(0),
        encoder: Callable[[], Encodes | None] = lambda: None,
    ) -> None:
        self._spec, self._complete, self._dearest, self._load_encoder = spec, complete, dearest, encoder
        self._own = {s.entry_point: own_judge(s.entry_point) for s in specs(spec) if isinstance(s, OwnCallable)}
        self._labels: defaultdict[str | None, LabelSet] = defaultdict(LabelSet)
        for task in (None, *spec.tasks):
            judge = self._of(task)
            if isinstance(judge, Labels) and judge.labels:
                self._labels[self._key(task)] = LabelSet(judge.labels)

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
        if not isinstance(judge, Llm) or self.now(pair) is not None:
            return Decimal(0)
        bodies = (body(judge, pair, student_first=first) for first in (True, False))
        return sum((self._dearest(judge, asked) for asked in bodies), Decimal(0))

    def immediate(self, task: str | None) -> bool:
        """Whether ``now`` always has a verdict, and at once: nothing is asked, loaded or run that is not ours."""
        return not isinstance(self._of(task), Llm | OwnCallable | Semantic)

    def absolute(self, task: str | None) -> bool:
        """Whether ``now`` may know of an answer that it is wrong without comparing it with another."""
        return isinstance(self._of(task), Labels | Json)

    def learn(self, task: str | None, teacher: Message) -> None:
        """Takes a teacher's answer into account before anything is judged: it may be a label."""
        if isinstance(self._of(task), Labels):
            self._labels[self._key(task)].learn(teacher)

    def now(self, pair: Pair) -> Verdict | None:
        """The verdict; None where a language model must be asked for it (``verdict``).

        Raises:
            JudgeError: the judge failed.
        """
        judge = self._of(pair.task)
        if isinstance(judge, OwnCallable):
            return self._own_verdict(judge.entry_point, pair)
        try:
            if calls(pair.student) or calls(pair.teacher):
                return equality.tool_calls(pair)
            return self._compared(judge, pair)
        except (RecursionError, orjson.JSONEncodeError):  # nested deeper than anybody means
            return Verdict(None)

    def _compared(self, judge: AnyJudge, pair: Pair) -> Verdict | None:
        if (plain := PLAIN.get(judge.name)) is not None:
            return plain(pair)
        match judge:
            case Json():
                return equality.json(pair, sets=judge.arrays == "set")
            case Labels():
                return self._labels[self._key(pair.task)].judge(pair)
            case Semantic():
                return self._semantic(judge, pair)
            case _:  # the same words need no opinion
                return Verdict(True) if equality.same_text(pair) else None

    async def verdict(self, pair: Pair) -> Verdict:
        """The verdict, whoever must be asked. What may take its time does so beside the event loop.

        Raises:
            JudgeError: the judge failed.
        """
        judge = self._of(pair.task)
        if isinstance(judge, OwnCallable):
            return await asyncio.to_thread(self._own_verdict, judge.entry_point, pair)
        if isinstance(judge, Semantic):
            await asyncio.to_thread(lambda: self._encoder)
        found = self.now(pair)
        if found is not None or not isinstance(judge, Llm):
            return found or Verdict(None)
        if self._complete is None:
            raise JudgeError(f"nothing is there to ask the judge {judge.model} with")
        return await compare(judge, pair, self._complete)

    async def same(self, pair: Pair) -> bool:
        """Whether two answers of one tier say the same: as the judge sees it where that costs nothing, else by
        their words.

        Raises:
            JudgeError: the judge failed.
        """
        judge = self._of(pair.task)
        if isinstance(judge, Llm | OwnCallable | Labels):
            return bool(equality.normalised(pair).acceptable)
        return bool((await self.verdict(pair)).acceptable)

    def _of(self, task: str | None) -> AnyJudge:
        """Who judges: for users' feedback, whoever does so until they speak."""
        judge = self._spec.for_task(task)
        return judge.otherwise if isinstance(judge, Feedback) else judge

    def _key(self, task: str | None) -> str | None:
        """Tasks without a judge of their own share the policy's labels."""
        return task if task in self._spec.tasks else None

    def _semantic(self, judge: Semantic, pair: Pair) -> Verdict:
        a, b = (self._encoder.encode(text(message)) for message in (pair.student, pair.teacher))
        return Verdict(float(a @ b) >= judge.at_least)

    @cached_property
    def _encoder(self) -> Encodes:
        try:
            encoder = self._load_encoder()
        except EngineError as e:
            raise JudgeError(f"the semantic judge has no encoder: {e}") from e
        if encoder is None:
            raise JudgeError("the semantic judge has no encoder")
        return encoder

    def _own_verdict(self, name: str, pair: Pair) -> Verdict:
        try:
            found = self._own[name](pair)
        except Exception as e:  # whatever a user's own code raises, it costs one verdict; its words may be secret
            raise JudgeError(f"the judge {name!r} raised {type(e).__name__}") from e
        if isinstance(found, Verdict):
            return found
        if found is None or isinstance(found, bool):
            return Verdict(found)
        raise JudgeError(f"the judge {name!r} gave a {type(found).__name__}, not a Verdict, a bool or None")


def specs(spec: AnyJudge) -> list[AnyJudge]:
    """The judge, its tasks' judges, and whoever judges in the place of feedback."""
    all_of = [spec, *spec.tasks.values()]
    return [*all_of, *(s.otherwise for s in all_of if isinstance(s, Feedback))]


def own_judge(name: str) -> OwnJudge:
    """A user's callable, by its name in the group.

    Raises:
        PolicyError: it is not installed, cannot be imported, or cannot be called.
    """
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in known:
        there = ", ".join(sorted(known)) or "none"
        raise PolicyError(f"no judge {name!r} in the entry-point group {GROUP}: installed there: {there}")
    try:
        found: OwnJudge = known[name].load()
    except Exception as e:  # importing a user's module may raise anything
        raise PolicyError(f"the judge {name!r} ({known[name].value}) cannot be imported: {e}") from e
    if not callable(found):
        raise PolicyError(f"the judge {name!r} ({known[name].value}) cannot be called")
    return found

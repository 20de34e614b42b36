"""Classification: exactly one label in the answer, and it is the teacher's."""

from __future__ import annotations

import re
from collections.abc import Iterable

from router.judges.base import PairJudge
from router.judges.pair import Message, Pair, Verdict, text

MOST = 1000
"""Labels that are learned at most: beyond, the answers are no labels."""
LONGEST_CHARS = 80
_GAPS = re.compile(r"[\s_\-]+")
_AROUND = " .,;:!?\"'`“”‘’()[]{}*<>"


class LabelSet(PairJudge):
    """Finds labels in answers, whatever their case, and with spaces, hyphens or underscores between words.

    Without ``labels`` they are learned: every short answer of the teacher's is one.
    """

    absolute = True
    says_same = False

    def __init__(self, labels: Iterable[str] = ()) -> None:
        self._known = {name: None for label in labels if (name := _normal(label))}
        self._learns = not self._known
        self._pattern: re.Pattern[str] | None = None
        self.closed = not self._learns

    def outside(self, answer: Message) -> bool:
        """Where the labels were given: an answer that is not exactly one of them."""
        return self.closed and len(self.found(answer)) != 1

    def learn(self, teacher: Message) -> None:
        """Takes the teacher's whole answer as a label, where labels are learned and it may be one."""
        label = _normal(text(teacher))
        if self._learns and 0 < len(label) <= LONGEST_CHARS and label not in self._known and len(self._known) < MOST:
            self._known[label] = None
            self._pattern = None

    def now(self, pair: Pair) -> Verdict:
        """No verdict where the teacher's answer is no single label itself: there is nothing to be equal to. Where
        the labels were given, what is none of them is wrong whatever the other tier said."""
        self.learn(pair.teacher)
        wanted, given = self.found(pair.teacher), self.found(pair.student)
        amiss = None if self._learns or len(given) == 1 else False
        if len(wanted) != 1:
            return Verdict(None, teacher_acceptable=None if self._learns else False, student_acceptable=amiss)
        return Verdict(given == wanted, student_acceptable=amiss)

    def found(self, message: Message) -> set[str]:
        """The labels in a message. One inside a longer one (``card`` in ``card arrival``) does not count."""
        answer = _normal(text(message))
        if answer in self._known:
            return {answer}
        if not self._known:
            return set()
        if self._pattern is None:
            longest_first = sorted(self._known, key=len, reverse=True)
            self._pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")
        return set(self._pattern.findall(answer))


def _normal(value: str) -> str:
    return _GAPS.sub(" ", value).casefold().strip(_AROUND)

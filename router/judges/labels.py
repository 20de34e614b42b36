"""Classification: exactly one label in the answer, and it is the teacher's."""

from __future__ import annotations

import re
from collections.abc import Iterable

from router.judges.base import PairJudge
from router.judges.pair import Message, Pair, Verdict, text

MOST = 1000
"""Labels that are learned at most: beyond, the answers are no labels."""
LONGEST_CHARS = 80
SETTLED = 300
"""Answers of the teacher's in a row without a new label, after which the learned ones are taken for all there are: the
chance that its next answer is none of them is then below 1%, at 95% confidence (0.05 ** (1 / 300) = 0.990). What that
chance costs is a call of the teacher, who says it, and it is learned."""
_GAPS = re.compile(r"[\s_\-]+")
_AROUND = " .,;:!?\"'`“”‘’()[]{}*<>"


class LabelSet(PairJudge):
    """Finds labels in answers, whatever their case, and with spaces, hyphens or underscores between words.

    Without ``labels`` they are learned: every short answer of the teacher's is one. They are a closed set once nothing
    new was among ``SETTLED`` of them in a row; until then, and from the next new one on, they are not.
    """

    absolute = True
    says_same = False

    def __init__(self, labels: Iterable[str] = ()) -> None:
        self._known = {name: None for label in labels if (name := _normal(label))}
        self._learns = not self._known
        self._pattern: tuple[int, re.Pattern[str]] | None = None
        self._in_a_row = 0

    @property
    def closed(self) -> bool:
        return not self._learns or self._in_a_row >= SETTLED

    def outside(self, answer: Message) -> bool:
        """Where all labels are known: an answer that is not exactly one of them."""
        return self.closed and len(self.found(answer)) != 1

    def learn(self, teacher: Message) -> None:
        """Takes the teacher's whole answer as a label, where labels are learned and it may be one."""
        if self._knew(teacher):
            self._in_a_row += 1

    def _knew(self, teacher: Message) -> bool:
        """Whether the answer is nothing new. What is new is known from now on, if it may be a label."""
        label = _normal(text(teacher))
        if not self._learns or label in self._known:
            return True
        self._in_a_row = 0
        if 0 < len(label) <= LONGEST_CHARS and len(self._known) < MOST:
            self._known[label] = None
        return False

    def now(self, pair: Pair) -> Verdict:
        """No verdict where the teacher's answer is no single label itself: there is nothing to be equal to. Where
        the labels were given, what is none of them is wrong whatever the other tier said."""
        self._knew(pair.teacher)
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
        return set(self._any_of_them().findall(answer))

    def _any_of_them(self) -> re.Pattern[str]:
        """Made anew where another thread may have learned more meanwhile."""
        if self._pattern is None or self._pattern[0] != len(self._known):
            longest_first = sorted(self._known, key=len, reverse=True)
            names = "|".join(map(re.escape, longest_first))
            self._pattern = len(longest_first), re.compile(rf"(?<!\w)(?:{names})(?!\w)")
        return self._pattern[1]


def _normal(value: str) -> str:
    return _GAPS.sub(" ", value).casefold().strip(_AROUND)

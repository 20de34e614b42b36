"""Which kinds of requests have a closed set of answers, and a head for each of those."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router.heads.answers import AnswerSet, Fields, fields_of
from router.heads.form import AnswerForm
from router.heads.head import LabelHead
from router.heads.heads import LabelHeads, TaskHead
from router.heads.kinds import KindKey, RequestKinds, name_of
from router.scoring.text.encoder import Encoder
from router.scoring.text.features import extract

LEAST_LEARNT = 40
"""Answers of a kind that a head learns from, at least."""
MOST_LEARNT = 6000
"""And at most: the newest."""
MOST_UNSEEN = 0.35
"""The chance of an answer that was never there, from which on answers are open."""
OPEN = "open answers"


@dataclass(frozen=True, slots=True)
class KindFit:
    """What became of one kind: ``requests`` there were, with ``distinct`` answers; ``unseen``: the chance that the next
    one's is new. ``why`` it has no head, "" where it has one."""

    name: str
    requests: int
    distinct: int
    unseen: float
    why: str = ""


def fit_heads(
    asked: Sequence[Mapping[str, Any]],
    answers: Sequence[Mapping[str, Any]],
    encoder: Encoder | None,
    on_step: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[LabelHeads, list[KindFit]]:
    """Learns from chat-completions requests and the teacher's messages, oldest first. Also what became of each kind,
    the largest first. ``on_step`` is told how many kinds of how many are done."""
    read = [extract(body) for body in asked]
    kinds = RequestKinds.fit(read)
    groups = defaultdict[KindKey, list[int]](list)
    for place, features in enumerate(read):
        groups[kinds.of(features)].append(place)
    said = [fields_of(message) for message in answers]
    heads: dict[KindKey, TaskHead] = {}
    told: list[KindFit] = []
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    for done, (key, places) in enumerate(ordered, 1):
        newest = places[-MOST_LEARNT:]
        found, why = [said[place] for place in newest], ""
        if len(newest) < LEAST_LEARNT:
            why = f"fewer than {LEAST_LEARNT} answers"
        elif is_open(found):
            why = OPEN
        elif (head := LabelHead.fit([read[place] for place in newest], found, encoder)) is None:
            why = "no answer comes twice"
        else:
            told_by = [(fields, answers[place]) for fields, place in zip(found, newest, strict=True) if fields]
            heads[key] = TaskHead(name_of(key), head, AnswerForm.of(told_by), head.inputs.reader(encoder))
        seen = AnswerSet.of(found)
        told.append(KindFit(name_of(key), len(places), seen.distinct, seen.unseen, why))
        on_step(done, len(ordered))
    return LabelHeads(kinds, heads, encoder), told


def is_open(answers: Sequence[Fields | None]) -> bool:
    """Whether too many answers are new each time, in any field."""
    return _unseen_value(answers) > MOST_UNSEEN


def _unseen_value(answers: Sequence[Fields | None]) -> float:
    """The chance that the next answer has a value that its field never had: of the field where that is likeliest."""
    names = {name for fields in answers if fields is not None for name, _ in fields}
    if len(names) > MOST_UNSEEN * len(answers):
        return 1.0
    by_field = (
        AnswerSet.of(next(((pair,) for pair in fields or () if pair[0] == name), None) for fields in answers)
        for name in names
    )
    return max((found.unseen for found in by_field), default=1.0)

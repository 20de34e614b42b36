"""Which kinds of the traffic are thin, or the student fails at; what there is to show of each."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from distiller.data.failures import asked
from distiller.data.rows import DatasetRow
from router.scoring.statistics.clusters import StrangeRequest, kinds
from router.scoring.text.encoder import Encoder

LEAST_SHOWN = 3
"""Rows to train on, of one form, below which there is nothing to write like."""
LEAST_WRONG, WRONG_SHARE = 3, 0.25
"""Verdicts against the student, and their share of all, from which on it fails at a kind; it must be more than its
share of all traffic, since where a student fails at everything it lacks training, not examples of one kind."""
LONGEST_LABEL, LABELLED = 64, 0.9
"""Characters of an answer that may be a label, and the share of rows with an answer that others have too from which on
the answers are labels: there the traffic falls into kinds by them, however few rows one has."""
MOST_ROWS = 20_000
"""Newest rows that are looked at: more are not told apart better."""


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """What requests of one kind have in common beside their last turn: what stands before it, and how the answer is
    asked for. ``shots`` are last turns of rows that may be trained on."""

    before: tuple[Mapping[str, str], ...]
    options: Mapping[str, object]
    task: str | None
    shots: tuple[DatasetRow, ...]


@dataclass(frozen=True, slots=True)
class RequestKind:
    """One kind of requests that more are wanted of.

    ``rows`` are all that were seen, ``train`` those to train on, ``synthetic`` among them those written before.
    ``judged``: how often the student's answer had a verdict, ``wrong`` how often it was not acceptable.
    """

    name: str
    why: Literal["failing", "thin"]
    wanted: int
    rows: int
    train: int
    synthetic: int
    judged: int
    wrong: int
    forms: tuple[AnswerFormat, ...] = field(repr=False)


def weak_kinds(
    train: Sequence[DatasetRow], others: Sequence[DatasetRow], per_cluster: int, encoder: Encoder | None
) -> tuple[list[RequestKind], list[str]]:
    """(the kinds that more is wanted of, most wanted first; the names of those that have too little to show).

    Args:
        train: rows that may be trained on, earlier synthetic ones among them: what is shown to a teacher is of these.
        others: rows that only measure. They tell where the student fails, and are shown to nobody.
    """
    measured = [(row, False) for row in others]
    everything = sorted([*((row, True) for row in train), *measured], key=lambda x: x[0].created_at)[-MOST_ROWS:]
    verdicts = [row.student_ok for row, _ in everything if row.student_ok is not None]
    overall = verdicts.count(False) / len(verdicts) if verdicts else 0.0
    weak, bare = [], []
    for name, members in _parted(everything, per_cluster, encoder).items():
        kind = _kind(name, members, per_cluster, overall)
        if kind is None:
            continue
        if kind.forms:
            weak.append(kind)
        else:
            bare.append(name)
    return sorted(weak, key=lambda k: (k.why != "failing", -k.wrong, -k.rows, k.name)), sorted(bare)


Member = tuple[DatasetRow, bool]
"""A row, and whether it may be trained on."""


def _parted(rows: Sequence[Member], per_cluster: int, encoder: Encoder | None) -> dict[str, list[Member]]:
    """Kinds within each task tag and, where answers are labels, within each label: one of ``per_cluster`` rows at most
    is one kind. Of a tag or a label what is of no named kind is one by itself."""
    by_task: dict[str | None, list[Member]] = defaultdict(list)
    for member in rows:
        by_task[member[0].task].append(member)
    found: dict[str, list[Member]] = defaultdict(list)
    for task, of_task in by_task.items():
        for label, members in _by_label(of_task).items():
            head, rest = [part for part in (task, label) if part], set(range(len(members)))
            whole = label is not None and len(members) <= per_cluster
            named = {} if whole else kinds([_seen(row, i) for i, (row, _) in enumerate(members)], encoder)
            for name, group in named.items():
                places = {s.place for s in group}
                rest -= places
                found[": ".join((*head, name))] += [members[i] for i in sorted(places)]
            if head and rest:
                found[": ".join(head)] += [members[i] for i in sorted(rest)]
    return dict(found)


def _by_label(members: Sequence[Member]) -> dict[str | None, list[Member]]:
    """The rows by their answer where answers are labels, under None those with another; else all under None."""
    times = Counter(row.answer for row, _ in members)
    labels = {answer: n for answer, n in times.items() if n >= LEAST_SHOWN and len(answer) <= LONGEST_LABEL}
    if sum(labels.values()) < LABELLED * len(members):
        return {None: list(members)}
    found: dict[str | None, list[Member]] = defaultdict(list)
    for member in members:
        found[member[0].answer if member[0].answer in labels else None].append(member)
    return found


def _seen(row: DatasetRow, place: int) -> StrangeRequest:
    return StrangeRequest(row.request_id, row.created_at, asked(row), row.user or row.conversation_id, place, None)


def _kind(name: str, members: Sequence[Member], per_cluster: int, overall: float) -> RequestKind | None:
    """None where nothing more is wanted."""
    train = [row for row, trainable in members if trainable]
    written = sum(row.synthetic for row in train)
    verdicts = [row.student_ok for row, _ in members if row.student_ok is not None]
    wrong = verdicts.count(False)
    fails = wrong >= LEAST_WRONG and wrong / len(verdicts) >= max(WRONG_SHARE, 1.0001 * overall)
    wanted = per_cluster - (written if fails else len(train))
    if wanted <= 0:
        return None
    return RequestKind(
        name=name,
        why="failing" if fails else "thin",
        wanted=wanted,
        rows=len(members),
        train=len(train),
        synthetic=written,
        judged=len(verdicts),
        wrong=wrong,
        forms=_forms([row for row in train if not row.synthetic]),
    )


def _forms(rows: Sequence[DatasetRow]) -> tuple[AnswerFormat, ...]:
    """The forms with enough to show, most usual first. Rows in the middle of a conversation have none: a new last
    turn would have to fit what was said before."""
    alike: dict[str, list[DatasetRow]] = defaultdict(list)
    for row in rows:
        opens = row.messages and row.messages[-1]["role"] == "user" and len(_roles(row)) == len(row.messages)
        if opens and not row.tools:  # what a tool would answer nobody writes
            alike[repr((row.messages[:-1], sorted(row.options.items()), row.task))].append(row)
    enough = [found for found in alike.values() if len(found) >= LEAST_SHOWN]
    return tuple(
        AnswerFormat(tuple(found[0].messages[:-1]), found[0].options, found[0].task, tuple(found))
        for found in sorted(enough, key=len, reverse=True)
    )


def _roles(row: DatasetRow) -> list[str]:
    """The roles of a conversation's opening: instructions, then one user's turn."""
    counts = Counter(m["role"] for m in row.messages)
    return ["system"] * counts["system"] + ["user"] if counts["user"] == 1 and not counts["assistant"] else []

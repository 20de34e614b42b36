"""Which rows are trained on, which measure, and why the others are left out.

Audited rows are a uniform sample of the traffic: the holdout, whole as it is. Of the others, none that is nearly a
holdout's prompt or an evaluation's is kept; those that are trained on must have the right to be, no fault that is
known, and no better copy. Of these a user has a cap and all have a budget, a part of which stays with old rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

import numpy as np
import orjson
from numpy.typing import NDArray

from distiller.config import DatasetConfig
from distiller.data.copies import Bools, Frames, Ints, Prompts, Step, find_copies
from distiller.data.evaluation_prompts import EvaluationPrompts
from distiller.data.rows import Skip
from distiller.data.spool import REASONS, Slips, Spool, code, fractions
from distiller.data.votes import Votes
from router.contracts.decision import Tier
from router.contracts.records import Record, verdict_of
from router.judges.judge import Judges
from router.judges.pair import Pair, text
from router.judges.schema import fits, schema_of
from router.judges.soundness import called_as_offered


@dataclass(frozen=True, slots=True)
class Splits:
    """Places of slips, oldest first."""

    train: Ints
    dev: Ints
    holdout: Ints


@dataclass(slots=True)
class Sifter:
    """``against``: prompts of evaluations beside the holdout; ``skipped`` counts the rows in no split."""

    spool: Spool
    config: DatasetConfig
    against: EvaluationPrompts
    votes: Votes
    skipped: Counter[str]
    tell: Step = lambda done, of: None

    def part(self, slips: Slips, audited_conversations: Iterable[int]) -> Splits:
        """Parts the slips, which are oldest first."""
        audited = slips["audited"]
        holdout, others = np.flatnonzero(audited), np.flatnonzero(~audited)
        rest = slips[others]
        to_dev = (fractions(rest["conversation"]) < self.config.dev_share) & ~rest["synthetic"]
        reasons = _Reasons(len(rest))
        conversations = np.fromiter(audited_conversations, np.uint64)
        reasons.mark(np.isin(rest["prompt"], slips["prompt"][holdout]), code(Skip.HOLDOUT_PROMPT))
        reasons.mark(np.isin(rest["conversation"], conversations), code(Skip.HOLDOUT_CONVERSATION))
        reasons.mark(~to_dev, rest["fault"])
        reasons.mark(~to_dev & ~rest["trainable"], code(Skip.NO_RIGHT))
        self._mark_copies(slips[holdout], rest, reasons)
        self.skipped.update(reasons.counts())
        return Splits(others[reasons.none & ~to_dev], others[reasons.none & to_dev], holdout)

    def _mark_copies(self, holdout: Slips, rest: Slips, reasons: _Reasons) -> None:
        """Marks what is nearly a prompt that measures, and of each group of copies all rows but one."""
        places = np.flatnonzero(reasons.none)
        left = rest[places]
        held, (own, at) = _first_of_each(holdout["prompt"])[0], _first_of_each(left["prompt"])
        nodes, kept = np.concatenate([holdout[held], left[own]]), len(held)
        edges = {name: nodes[name] for name in ("sketch", "head", "tail", "numbers")}
        prompts = Prompts(file=self.spool.sketches, kept=kept, **edges)
        frames = Frames(prompts)
        found = find_copies(prompts, frames, self.config.near_duplicate, self.tell)
        named = self.against.found(left[own], self.spool.sketches, frames, self.config.near_duplicate)
        leaks = np.where(found.leaks[kept:], code(Skip.HOLDOUT_NEAR_COPY), 0)
        leaks = np.where((leaks == 0) & named, code(Skip.EVALUATION_PROMPT), leaks)
        reasons.codes[places] = leaks[at]
        clean = leaks[at] == 0
        reasons.codes[places[clean]] = self.votes.losers(left[clean], found.group[kept:][at][clean])


class _Reasons:
    """Why each row is left out, as a number (``spool.code``); 0: it is not."""

    def __init__(self, rows: int) -> None:
        self.codes = np.zeros(rows, np.uint8)

    @property
    def none(self) -> Bools:
        found: Bools = self.codes == 0
        return found

    def mark(self, where: Bools, reason: int | NDArray[np.uint8]) -> None:
        """Those that have no reason yet."""
        self.codes = np.where(self.none & where, reason, self.codes).astype(np.uint8)

    def counts(self) -> dict[str, int]:
        numbers, times = np.unique(self.codes[~self.none], return_counts=True)
        return {REASONS[n - 1].value: int(t) for n, t in zip(numbers, times, strict=True)}


def _first_of_each(keys: NDArray[np.uint64]) -> tuple[Ints, Ints]:
    """(the place of each different key's first, ascending; for every key which of these has the same)."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(first), np.int64)
    rank[order] = np.arange(len(first))
    return first[order], rank[inverse]


def choose(train: Ints, slips: Slips, known: NDArray[np.uint64], config: DatasetConfig, skipped: Counter[str]) -> Ints:
    """Those of the places in ``train`` that are trained on, in their order. ``known``: digests of the requests that
    the live student was trained on. Who is drawn is told by a hash of the request's id: the same ones each time."""
    capped = _cap_users(train, slips, config.user_cap)
    chosen = _fit_budget(capped, slips, known, config)
    for reason, left_out in ((Skip.USER_CAP, len(train) - len(capped)), (Skip.BUDGET, len(capped) - len(chosen))):
        if left_out:
            skipped[reason] += left_out
    return chosen


def _cap_users(train: Ints, slips: Slips, cap: float) -> Ints:
    """Holds each user to ``cap`` of the rows, or an equal share where users are too few for that."""
    users = _users(slips[train])
    different = len(np.unique(users))
    if different < 2:
        return train
    most = ceil(max(cap, 1 / different) * len(train))
    order = np.lexsort((slips["request"][train], users))
    _, starts, sizes = np.unique(users[order], return_index=True, return_counts=True)
    rank = np.arange(len(train)) - np.repeat(starts, sizes)
    return train[np.sort(order[rank < most])]


def _users(rows: Slips) -> NDArray[np.uint64]:
    """Whom each row is counted for: requests that name no user are their key's, where there are several keys; one key
    for all tells nothing, so they are their conversation's. All nameless ones together are nobody."""
    keys = rows["owner"]
    several = len(np.unique(keys[keys != 0])) > 1
    nameless = np.where(several & (keys != 0), keys, rows["conversation"])
    found: NDArray[np.uint64] = np.where(rows["user"], rows["user"], nameless)
    return found


def _fit_budget(train: Ints, slips: Slips, known: NDArray[np.uint64], config: DatasetConfig) -> Ints:
    """At most ``max_rows``: new rows first, but ``replay`` of the budget stays with old ones."""
    budget = config.max_rows
    if budget is None or len(train) <= budget:
        return train
    requests = slips["request"][train]
    is_old = np.isin(requests, known)
    old, new = np.flatnonzero(is_old), np.flatnonzero(~is_old)
    old_rows = min(len(old), max(budget - len(new), ceil(config.replay * budget)))
    kept = [_sample(part, requests, n) for part, n in ((old, old_rows), (new, budget - old_rows))]
    return train[np.sort(np.concatenate(kept))]


def _sample(places: Ints, requests: NDArray[np.uint64], n: int) -> Ints:
    return places[np.argsort(requests[places], kind="stable")[:n]]


def fault(record: Record, judges: Judges) -> Skip | None:
    """Why the teacher's answer in this record must not be trained on; None where nothing speaks against it."""
    teacher = record.answer_of(Tier.TEACHER)
    if teacher is None or teacher.message is None:
        return None
    if record.tier is Tier.TEACHER and verdict_of(record.feedback) is False:
        return Skip.BAD_FEEDBACK
    if record.right(Tier.TEACHER) is False:
        return Skip.JUDGED_WRONG
    if teacher.message.get("tool_calls"):
        return None if called_as_offered(teacher.message, record.request or {}) else Skip.BREAKS_SCHEMA
    alone = Pair(teacher.message, teacher.message, record.request, record.task, record.request_id)
    if _breaks_schema(record, text(alone.teacher)):
        return Skip.BREAKS_SCHEMA
    found = judges.now(alone) if judges.absolute(record.task) else None
    return Skip.JUDGED_WRONG if found is not None and found.teacher_acceptable is False else None


def _breaks_schema(record: Record, answer: str) -> bool:
    schema = schema_of(record.request or {})
    if schema is None:
        return False
    try:
        return fits(orjson.loads(answer), schema) is False
    except orjson.JSONDecodeError:
        return True

"""Which rows are trained on, which measure, and why the others are left out.

Audited rows are a uniform sample of the traffic: the holdout, whole as it is. Of the others, none that is nearly a
holdout's prompt or an evaluation's is kept; those that are trained on must have the right to be, no fault that is
known, and no better copy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distiller.config import DatasetConfig
from distiller.data.against import EvaluationPrompts
from distiller.data.copies import Bools, Frames, Ints, Prompts, Tell, find_copies
from distiller.data.rows import Skip
from distiller.data.spool import REASONS, Slips, Spool, code, fractions
from distiller.data.votes import Votes


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
    tell: Tell = lambda done, of: None

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

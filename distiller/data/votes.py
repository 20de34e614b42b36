"""Of prompts that are copies of each other one row is kept: the latest of those whose answer the teacher gave most.

A teacher that answers one question differently was wrong some of the times; where more of its answers agree than agree
on any other, the others are out (self-consistency: Wang et al., "Self-consistency improves chain of thought reasoning
in language models", 2023). Answers are the same by the policy's judge where it tells at once, else by their words.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from distiller.data.copies import Ints
from distiller.data.rows import DatasetRow, Skip
from distiller.data.shingles import digest, normalise
from distiller.data.spool import Slips, code
from distiller.data.turns import spoken
from router.judges.judge import Judges
from router.judges.pair import Pair

MOST_ANSWERS = 16
"""Different answers to one question, most frequent first, that a judge compares; more are none that agree."""


class Votes:
    """``row`` gives a slip's row, whose answer a judge is shown."""

    def __init__(self, judges: Judges, row: Callable[[np.void], DatasetRow]) -> None:
        self._judges, self._row = judges, row

    def losers(self, slips: Slips, group: Ints) -> NDArray[np.uint8]:
        """Why each row is left out, as a number (0: it is kept). ``slips`` are oldest first; rows of one ``group`` are
        copies of each other."""
        reasons = np.zeros(len(slips), np.uint8)
        order = np.argsort(group, kind="stable")
        _, starts, sizes = np.unique(group[order], return_index=True, return_counts=True)
        for start, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True):
            members = order[start : start + size]
            reasons[members] = self._vote(slips[members])
        return reasons

    def _vote(self, slips: Slips) -> NDArray[np.uint8]:
        """One group's reasons. Rows that may be trained on go before those that may not."""
        voters = slips["trainable"] if slips["trainable"].any() else np.ones(len(slips), np.bool_)
        said = self._same(slips, voters)
        counts = Counter(said[voters].tolist()).most_common(2)
        settled = counts[0][1] > (counts[1][1] if len(counts) > 1 else 0) and counts[0][1] > 1
        agreed = said == counts[0][0] if settled else np.ones(len(slips), np.bool_)
        kept = int(np.flatnonzero(voters & agreed)[-1])
        copies = np.where(slips["prompt"] == slips["prompt"][kept], code(Skip.DUPLICATE), code(Skip.NEAR_DUPLICATE))
        reasons = np.where(agreed, copies, code(Skip.OUTVOTED)).astype(np.uint8)
        reasons[kept] = 0
        return reasons

    def _same(self, slips: Slips, voters: NDArray[np.bool_]) -> NDArray[np.uint64]:
        """Each row's answer as a number, the same where the answers say the same."""
        said = np.zeros(len(slips), np.uint64)
        if len(slips) < 3:  # of two none is outvoted
            return said
        said[:] = [digest(normalise(spoken(self._row(slip).said))) for slip in slips]
        if len(np.unique(said[voters])) < 2:
            return said
        places: defaultdict[int, list[int]] = defaultdict(list)
        for i, answer in enumerate(said.tolist()):
            places[answer].append(i)
        first: list[tuple[int, DatasetRow]] = []
        for answer in sorted(places, key=lambda a: (-len(places[a]), places[a][0]))[:MOST_ANSWERS]:
            row = self._row(slips[places[answer][0]])
            same = next((a for a, known in first if self._agree(row, known)), None)
            if same is None:
                first.append((answer, row))
            else:
                said[places[answer]] = same
        return said

    def _agree(self, one: DatasetRow, other: DatasetRow) -> bool:
        if not self._judges.immediate(other.task):
            return False
        found = self._judges.now(Pair(one.said, other.said, {**other.options, "messages": other.messages}, other.task))
        return found is not None and found.acceptable is True

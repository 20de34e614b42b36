"""How far the label teacher says what the served teacher said, by slice. Errors that are drawn a student averages out;
where the one always differs from the other, it caps what learns from it."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from distiller.data.rows import DatasetRow
from distiller.evaluation.slices import slices_of
from distiller.payments import PaidCalls, PurseEmpty
from router.backends.base import Backend
from router.errors import JudgeError
from router.judges.base import Complete, ModelReply
from router.judges.judge import Judges
from router.judges.pair import Pair
from router.policy.judges import Llm
from router.scoring.statistics.estimates import exact_interval
from router.scoring.text.features import extract

MOST_JUDGED = 200
"""Pairs that a judge is asked about which takes money or time: the newest."""
LEAST_ROWS = 20
"""Of a slice below which nothing is told of it."""
WHOLE = "all"


@dataclass(frozen=True, slots=True)
class AgreementRate:
    """One slice: of ``n`` pairs so many agree, and the exact limits (95%) of the share."""

    name: str
    n: int
    agreed: int
    low: float
    high: float

    @property
    def share(self) -> float:
        return self.agreed / self.n

    @classmethod
    def of(cls, name: str, verdicts: Sequence[bool]) -> AgreementRate:
        n, agreed = len(verdicts), sum(verdicts)
        return cls(name, n, agreed, *exact_interval(agreed / n if n else 0.0, n))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for reports."""
        return {**asdict(self), "share": self.share}


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """The same request with the served teacher's answer, and with the label teacher's."""

    served: DatasetRow
    labelled: DatasetRow

    def pair(self) -> Pair:
        """For a judge: the label teacher is in the student's place."""
        said, served = (row.conversation[-1] for row in (self.labelled, self.served))
        body = {**self.served.options, "messages": self.served.messages}
        return Pair(said, served, body, self.served.task, self.served.request_id)


async def agreement(pairs: Sequence[LabelledPair], judges: Judges) -> list[AgreementRate]:
    """By the policy's judge, as students are judged: over all of them, then by slice. Empty where there is none."""
    found: defaultdict[str, list[bool]] = defaultdict(list)
    asked = 0
    for one in sorted(pairs, key=lambda p: -p.served.created_at):
        if not judges.immediate(one.served.task):
            if asked == MOST_JUDGED:
                continue
            asked += 1
        try:
            verdict = await judges.verdict(one.pair())
        except (JudgeError, PurseEmpty):
            continue
        if verdict.acceptable is None:
            continue
        features = extract({"messages": one.served.messages})
        for name in (WHOLE, *slices_of(features, one.served.task)):
            found[name].append(verdict.acceptable)
    enough = ((name, verdicts) for name, verdicts in found.items() if name == WHOLE or len(verdicts) >= LEAST_ROWS)
    return [AgreementRate.of(name, verdicts) for name, verdicts in sorted(enough, key=lambda one: one[0] != WHOLE)]


def paid_by(paid: PaidCalls, judging: Mapping[str, Backend]) -> Complete:
    """How language models that judge are asked: from the same budget, and once."""

    async def complete(judge: Llm, body: Mapping[str, Any]) -> ModelReply:
        call = f"judge {hashlib.sha256(orjson.dumps(body)).hexdigest()[:24]}"
        return await paid.judge(call, judging[judge.label], body)

    return complete

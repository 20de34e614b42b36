"""How good a judge is, measured against people: agreement, kappa, and what it takes for acceptable."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from router.scoring.statistics.risk import clopper_pearson_upper, wilson_interval

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Rate:
    """``hits`` of ``of``, with the two-sided 95% bounds; ``value`` is None where there was nothing to count."""

    hits: int
    of: int
    low: float
    high: float

    @property
    def value(self) -> float | None:
        return self.hits / self.of if self.of else None

    @classmethod
    def exact(cls, hits: int, of: int) -> Rate:
        """By Clopper and Pearson (1934): holds for few cases too."""
        one_side = 0.5 + CONFIDENCE / 2
        low, high = 1 - clopper_pearson_upper(of - hits, of, one_side), clopper_pearson_upper(hits, of, one_side)
        return cls(hits, of, low, high)

    @classmethod
    def wilson(cls, hits: int, of: int) -> Rate:
        """By Wilson (1927)."""
        return cls(hits, of, *wilson_interval(hits, of, CONFIDENCE))


@dataclass(frozen=True, slots=True)
class JudgeAgreement:
    """Pairs by what people and the judge found of them: (human, judge) acceptable or not. ``silent``: pairs on
    which the judge gave no verdict; they count nowhere else."""

    both: int = 0
    only_judge: int = 0
    only_human: int = 0
    neither: int = 0
    silent: int = 0

    @classmethod
    def of(cls, found: Iterable[tuple[bool, bool | None]]) -> JudgeAgreement:
        """``found``: (human, judge) of each pair; None where the judge could not tell."""
        pairs = list(found)
        return cls(
            both=pairs.count((True, True)),
            only_judge=pairs.count((False, True)),
            only_human=pairs.count((True, False)),
            neither=pairs.count((False, False)),
            silent=sum(judge is None for _, judge in pairs),
        )

    @property
    def n(self) -> int:
        """Pairs with both verdicts."""
        return self.both + self.only_judge + self.only_human + self.neither

    @property
    def agreement(self) -> Rate:
        """How often the judge says what people say."""
        return Rate.wilson(self.both + self.neither, self.n)

    @property
    def kappa(self) -> float | None:
        """Agreement beyond chance (Cohen 1960), at most 1; None where chance alone agrees always."""
        if not self.n:
            return None
        human, judge = (self.both + self.only_human) / self.n, (self.both + self.only_judge) / self.n
        chance = human * judge + (1 - human) * (1 - judge)
        return None if chance == 1 else ((self.both + self.neither) / self.n - chance) / (1 - chance)

    @property
    def precision(self) -> Rate:
        """Of what the judge lets pass, the share that people would."""
        return Rate.exact(self.both, self.both + self.only_judge)

    @property
    def recall(self) -> Rate:
        """Of what people let pass, the share that the judge does."""
        return Rate.exact(self.both, self.both + self.only_human)

    @property
    def false_acceptance(self) -> Rate:
        """Of what people refuse, the share that the judge lets pass: by this a quality floor is broken unseen."""
        return Rate.exact(self.only_judge, self.only_judge + self.neither)

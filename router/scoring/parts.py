"""What a score is made of: the log odds that each part of a request adds, which add up to it exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from router.scoring.estimator import Scorer
from router.scoring.features import STRUCTURE, Features
from router.scoring.ngrams import hashed_ngrams


@dataclass(frozen=True, slots=True)
class Parts:
    """Log odds of one request, positive where they speak for the student.

    ``structure`` is by name, values that add nothing left out; ``message`` and ``context`` are what the embeddings
    of the last user turn and of all before it add, ``ngrams`` what words and letters do; ``bias`` is what every
    request starts from. The sum's probability, multiplied by ``discount`` (1 for what is familiar), is the score.
    """

    bias: float
    structure: Mapping[str, float]
    message: float
    context: float
    ngrams: float
    discount: float

    @property
    def total(self) -> float:
        return self.bias + sum(self.structure.values()) + self.message + self.context + self.ngrams


def parts(scorer: Scorer, features: Features) -> Parts:
    """The score, taken apart."""
    text, around = scorer._reader.texts(features)
    user, context = scorer._read(text, hashed_ngrams(text, ""), 0), scorer._read_context(around)
    grams = user.grams + context.grams
    structure = (scorer._structure * features.structure).tolist()
    return Parts(
        bias=scorer.learned.bias,
        structure={name: x for name, x in zip(STRUCTURE, structure, strict=True) if x},
        message=user.embedded,
        context=context.embedded,
        ngrams=grams.real / math.sqrt(grams.imag) if grams.imag > 0 else 0.0,
        discount=scorer.learned.familiarity.discount(user.known + context.known, user.ngrams + context.ngrams),
    )


def message_of(scorer: Scorer, features: Features) -> str:
    """The last user turn without the frame that an application writes around each."""
    return scorer._reader.templates.split(features.last_user)[0]


def usual(many: Sequence[Parts]) -> Parts:
    """The parts of the average request; of at least one."""
    names = {name for p in many for name in p.structure}
    return Parts(
        bias=fmean(p.bias for p in many),
        structure={name: fmean(p.structure.get(name, 0.0) for p in many) for name in sorted(names)},
        message=fmean(p.message for p in many),
        context=fmean(p.context for p in many),
        ngrams=fmean(p.ngrams for p in many),
        discount=fmean(p.discount for p in many),
    )

"""What a score is made of: the log odds that each part of a request adds, which add up to it exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from statistics import fmean

from router.scoring import linear
from router.scoring.blend import BOUND
from router.scoring.scorer import Scorer
from router.scoring.text.features import STRUCTURE, Features


@dataclass(frozen=True, slots=True)
class Parts:
    """Log odds of one request, positive where they speak for the student.

    ``structure`` is by name, values that add nothing left out; ``message`` and ``context`` are what the embeddings
    of the last user turn and of all before it add, ``ngrams`` what words and letters do, ``task`` the client's tag,
    ``neighbours`` the judged requests most like it; ``bias`` is what every request starts from. ``teacher`` is what
    the teacher's own doubts add, where labels tell of both tiers. The sum's probability, multiplied by ``discount``
    (1 for what is familiar), is the score.
    """

    bias: float = 0.0
    structure: Mapping[str, float] = field(default_factory=dict)
    message: float = 0.0
    context: float = 0.0
    ngrams: float = 0.0
    task: float = 0.0
    neighbours: float = 0.0
    teacher: float = 0.0
    discount: float = 1.0

    @property
    def total(self) -> float:
        single = self.bias + self.message + self.context + self.ngrams + self.task + self.neighbours + self.teacher
        return single + sum(self.structure.values())


def parts(scorer: Scorer, features: Features) -> Parts:
    """The score, taken apart. Of two heads it is the student's that is."""
    found, learned = scorer.read(features), scorer.learned
    blend = learned.blend
    structure = (blend.heads * scorer.structure[0] * scorer.reader.structure(features)).tolist()
    task = learned.tasks.get(features.task, (0.0,))[0]
    apart = Parts(
        bias=blend.heads * learned.bias[0] + blend.bias,
        structure={name: x for name, x in zip(STRUCTURE, structure, strict=True) if x},
        message=blend.heads * found.message[0],
        context=blend.heads * found.context[0],
        ngrams=blend.heads * found.ngrams[0],
        task=blend.heads * task,
        neighbours=blend.neighbours * linear.logit(found.opinion.acceptable, BOUND),
        discount=1 - scorer.look(features).novelty,
    )
    return apart if found.difference is None else replace(apart, teacher=found.logit - apart.total)


def usual(many: Sequence[Parts]) -> Parts:
    """The parts of the average request; of at least one."""
    names = sorted({name for p in many for name in p.structure})
    structure = {name: fmean(p.structure.get(name, 0.0) for p in many) for name in names}
    single = [f.name for f in fields(Parts) if f.name != "structure"]
    return Parts(structure=structure, **{name: fmean(getattr(p, name) for p in many) for name in single})


def message_of(scorer: Scorer, features: Features) -> str:
    """The last user turn without the frame that an application writes around each."""
    return scorer.learned.templates.split(features.last_user)[0]

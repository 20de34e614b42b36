"""How a scorer learns from judged requests. scikit-learn and scipy are needed here, not for serving."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from router.scoring import answer_head, linear
from router.scoring.answer_head import AnswerHead
from router.scoring.blend import Blend
from router.scoring.lengths import Lengths
from router.scoring.linear import Bools, Floats
from router.scoring.model import Example, OnStep, ScorerModel, gram_table, side_by_side, untold
from router.scoring.neighbours import JudgedRequests, Neighbours
from router.scoring.text.encoder import Encoder
from router.scoring.text.ngrams import BUCKETS
from router.scoring.text.reader import (
    ANY_STRUCTURE,
    F32,
    Blocks,
    Familiarity,
    HeadWeights,
    Reader,
    Reading,
    usual_structure,
)
from router.scoring.text.templates import Templates

TOLD_EVERY = 500
"""Examples that are read between two steps of progress."""
STRENGTHS = (0.02, 0.1, 0.5, 2.0, 8.0)
LEAST_BOTH = 100
"""Examples that tell of student and teacher apart, from which on each has a head of its own."""


@dataclass(frozen=True, slots=True)
class ScorerFit:
    """What was learnt, and each example's probabilities (n,) by models that had not seen it, before the answer
    (``held_out``) and after it (``accepts``); ``gains`` (n,) where two heads were fitted."""

    learned: ScorerModel
    held_out: Floats
    accepts: Floats
    gains: Floats | None = None


@dataclass(frozen=True, slots=True)
class _Heads:
    """The fitted heads, and for every example what they say of it held out: logits of what is acceptable (n,), and
    of two heads P(teacher right) - P(student right) (n,)."""

    weights: tuple[HeadWeights, ...]
    logits: Floats
    differences: Floats | None
    strengths: tuple[float, ...]


def learn(examples: Sequence[Example], encoder: Encoder | None, seed: int, on_step: OnStep = untold) -> ScorerFit:
    """See ``Scorer.fit``."""
    labels, weights = _labels(examples)
    if min(int(labels.sum()), int((~labels).sum())) < 2:
        return _constant(encoder, labels, weights)
    templates = Templates.fit([e.features.last_user for e in examples])
    usual = usual_structure([e.features for e in examples])
    reader = Reader(encoder, templates, usual)
    readings = []
    reader.read_ahead(e.features for e in examples)
    for e in examples:
        readings.append(reader(e.features))
        if len(readings) % TOLD_EVERY == 0 or len(readings) == len(examples):
            on_step(len(readings), len(examples), "examples read")
    blocks = Blocks.fit(readings)
    familiarity = blocks.familiarity(readings)
    heads = _heads(examples, readings, blocks, seed, on_step)
    neighbours, blend = None, Blend()
    held_out, held_gain = 1 / (1 + np.exp(-heads.logits)), heads.differences
    if encoder is not None:
        judged = judged_by(examples, np.stack([reader.message(r) for r in readings]))
        if near := Neighbours.fit(judged):
            neighbours, opinions = near
            blend = Blend.fit(heads.logits, opinions, labels, weights)
            held_out = blend.probabilities(heads.logits, opinions)
            if heads.differences is not None:
                differences, risks, both = heads.differences, 1 - held_out, _both(examples)
                blend = blend.with_gain(differences[both], risks[both], opinions[both], judged.gains[both])
                held_gain = blend.gains(differences, risks, opinions)
    head, accepts = _answer_head(examples, held_out, seed)
    dense, tasks, bias = side_by_side(heads.weights)
    learned = ScorerModel(
        templates=templates,
        usual=usual,
        dense=dense,
        grams=gram_table([w.hashed for w in heads.weights], blocks.squared_idf, blocks.squared_idf < familiarity.new),
        tasks=tasks,
        bias=bias,
        familiarity=familiarity,
        neighbours=neighbours,
        blend=blend,
        head=head,
        lengths=_lengths(examples, reader),
        facts={"examples": len(examples), "acceptable": int(labels.sum()), "strength": heads.strengths[0]},
    )
    return ScorerFit(learned, held_out, accepts, held_gain)


def _lengths(examples: Sequence[Example], reader: Reader) -> Lengths | None:
    known = [e for e in examples if e.teacher_tokens]
    return Lengths.fit(
        [reader.structure(e.features) for e in known],
        [e.features.input_tokens for e in known],
        [e.teacher_tokens for e in known],
    )


def judged_by(examples: Sequence[Example], vectors: F32) -> JudgedRequests:
    """The examples as neighbours, with their messages' embeddings (n, dim)."""
    return JudgedRequests(
        vectors,
        acceptable=np.array([e.acceptable for e in examples], np.bool_),
        gains=np.array([_gain(e) for e in examples]),
        names=[e.request_id for e in examples],
        tasks=[e.features.task for e in examples],
    )


def _gain(example: Example) -> float:
    """What escalating gained; where one tier's own rightness is unknown, whether the student was not as good."""
    if example.student is None or example.teacher is None:
        return float(not example.acceptable)
    return float(example.teacher) - float(example.student)


def _constant(encoder: Encoder | None, labels: Bools, weights: Floats) -> ScorerFit:
    """With fewer than two of either outcome: the share of acceptable ones, by Laplace's rule of succession."""
    p = float((weights[labels].sum() + 1) / (weights.sum() + 2))
    learned = ScorerModel(
        templates=Templates(),
        usual=ANY_STRUCTURE,
        dense=np.zeros((1, Reader(encoder, Templates(), ANY_STRUCTURE).width), np.float32),
        grams=np.zeros((BUCKETS, 4), np.float32),
        tasks={},
        bias=(linear.logit(p, 1e-12),),
        familiarity=Familiarity(0, 0, 0),
        facts={"examples": len(labels), "acceptable": int(labels.sum()), "strength": 0.0},
    )
    return ScorerFit(learned, np.full(len(labels), p), np.full(len(labels), p))


def _heads(
    examples: Sequence[Example], readings: Sequence[Reading], blocks: Blocks, seed: int, on_step: OnStep
) -> _Heads:
    """Two heads where enough labels tell of both tiers, else one for what is acceptable."""
    matrix = blocks.matrix(readings)
    labels, weights = _labels(examples)
    both = _both(examples)
    student = np.array([bool(e.student) for e in examples])[both]
    teacher = np.array([bool(e.teacher) for e in examples])[both]
    rarest = min((int((y == v).sum()) for y in (student, teacher) for v in (True, False)), default=0)
    if len(both) < LEAST_BOTH or rarest < 2:
        fitted = linear.fit(matrix, labels, weights, STRENGTHS, seed, on_step=_part(on_step, 0, 1))
        unfolded = blocks.unfold(fitted.linear, fitted.platt)
        return _Heads((unfolded,), _logits(fitted.held_out), None, (fitted.strength,))
    found, said = [], []
    told = matrix if len(both) == len(matrix) else matrix[both]
    for head, y in enumerate((student, teacher)):
        fitted = linear.fit(told, y, weights[both], STRENGTHS, seed, on_step=_part(on_step, head, 2))
        rest = fitted.platt.many(matrix.times(fitted.linear.weights) + fitted.linear.bias)  # for those not fitted on
        rest[both] = fitted.held_out
        found.append(fitted)
        said.append(rest)
    right, teacher_right = said
    return _Heads(
        tuple(blocks.unfold(f.linear, f.platt) for f in found),
        -_logits(teacher_right * (1 - right)),
        teacher_right - right,
        tuple(f.strength for f in found),
    )


def _part(on_step: OnStep, part: int, parts: int) -> Callable[[int, int], None]:
    """Tells how far one of several regressions is, of all of them."""
    return lambda done, of: on_step(part * of + done, parts * of, "regressions")


def _both(examples: Sequence[Example]) -> linear.Ints:
    """Which examples tell of student and teacher: (m,)."""
    return np.flatnonzero([e.student is not None and e.teacher is not None for e in examples])


def _logits(p: Floats) -> Floats:
    kept = np.clip(p, 1e-6, 1 - 1e-6)
    found: Floats = np.log(kept / (1 - kept))
    return found


def _labels(examples: Sequence[Example]) -> tuple[Bools, Floats]:
    """What is acceptable, and the weights: (n,) each."""
    acceptable = np.array([e.acceptable for e in examples], np.bool_)
    return acceptable, np.array([e.weight for e in examples], np.float64)


def _answer_head(examples: Sequence[Example], scores: Floats, seed: int) -> tuple[AnswerHead | None, Floats]:
    """The head on those examples that have signals, and every example's held-out probability (n,)."""
    labels, weights = _labels(examples)
    seen = np.array([e.signals is not None for e in examples], np.bool_)
    signals = [e.signals for e in examples if e.signals is not None]
    found = answer_head.fit(scores[seen].tolist(), signals, labels[seen], weights[seen], seed)
    accepts = scores.copy()
    if found is None:
        return None, accepts
    head, accepts[seen] = found
    return head, accepts

"""The scorer: P(the student's answer is acceptable), before and after seeing the answer.

Heads are L2 logistic regressions on blocks of equal energy: structure, embeddings of the last user turn
and of what came before it, hashed n-grams weighted by inverse document frequency, and the client's task tag.
Centring and inverse frequency take out what all requests of an application share, such as its system prompt.
Where labels tell of both tiers there are two heads, "the student is right" and "the teacher is right": the
student's answer is unacceptable where the teacher is right and the student is not, and what escalating gains is
the difference. Else one head tells what is acceptable. Neighbours among recent judged requests are a second
opinion. All is calibrated on held-out predictions, and served with numpy alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import numpy as np

from router.contracts.records import Signals
from router.policy.engines import EncoderKind
from router.scoring import files, linear
from router.scoring.fit import judged_by, learn
from router.scoring.linear import Floats
from router.scoring.model import Example, OnStep, ScorerModel, untold
from router.scoring.neighbours import Opinion
from router.scoring.text.encoder import Encoder
from router.scoring.text.features import STRUCTURE, Features
from router.scoring.text.ngrams import I64, hashed_ngrams
from router.scoring.text.reader import F32, Reader

REMEMBERED = 512
"""Contexts whose share of the score is kept, at most: a few kilobytes each."""
_AT_ONCE = 8192
"""N-grams summed as one small matrix product."""
STEEPNESS = 6
"""How fast the trust in a score falls with how usual the request is: what is a seventh newer than all but one in
a hundred keeps less than half of it, and goes to the teacher under nearly any threshold."""
NOBODY = Opinion(0.5, 0.0, 1.0)


class TextPart(NamedTuple):
    """What one text of a request adds. ``embedded``: to each head's log odds, float32, (h,); ``grams``: float32,
    (4,), the sum over its n-grams of the rows of ``ScorerModel.grams``; ``ngrams``: how many there are."""

    embedded: F32
    grams: F32
    ngrams: int


class Raw(NamedTuple):
    """One request's texts, read, before anything fitted says what they mean. ``vector``: the message's embedding,
    float32, (dim,), None where there is none; ``ngrams``: the message's; ``context``: what of ``around`` was read along
    with it, see ``Scorer.raws``."""

    structure: F32
    vector: F32 | None
    ngrams: I64
    around: str
    task: str
    context: tuple[F32 | None, I64] | None = None


class PartReadings(NamedTuple):
    """What the parts of a request say. ``message``, ``context`` and ``ngrams``: to each head's log odds;
    ``logit``: all together, blended with the neighbours' opinion; ``difference``: P(teacher right) less P(student
    right) by two heads; ``usual``: how usual the n-grams are, 0 to 1; ``tokens``: how long the teacher's answer will
    be, None where nothing was learnt of it."""

    message: list[float]
    context: list[float]
    ngrams: list[float]
    opinion: Opinion
    logit: float
    difference: float | None
    usual: float
    tokens: float | None


class Look(NamedTuple):
    """One request, looked at. ``score``: P(acceptable), calibrated, less where the request is strange.
    ``gain``: P(the teacher is right) less P(the student is), None without labels that tell of both; where the
    request is strange it nears 1. ``novelty``: from 0, as usual, to 1, wholly strange. ``tokens``: the expected
    length of the teacher's answer, None where nothing was learnt of it."""

    score: float
    gain: float | None
    novelty: float
    tokens: float | None = None


class Heads(Protocol):
    """Label heads, which tell of a request what their answer to it is worth. ``slow``: in milliseconds."""

    @property
    def slow(self) -> bool: ...

    def look(self, features: Features) -> tuple[float, float] | None:
        """P(their answer is the teacher's), and how familiar the request is, 0 to 1; None where they have none."""
        ...


class Scorer:
    """Fit or load one; then ``look``, ``score`` and ``accept`` only read it, from any thread.

    With ``heads``, whose answers leave instead of a language model's, their own word is the score: they were calibrated
    on requests that they had not learnt, and have nothing to say of a kind that is not theirs.

    After ``fit``, ``held_out_`` and ``held_out_accept_`` are each example's probabilities by models that had not
    seen it: float64, (n,); ``held_out_gain_`` its gain, None with one head.
    """

    def __init__(self, encoder: Encoder | None, learned: ScorerModel, heads: Heads | None = None) -> None:
        self.learned, self.heads = learned, heads
        self.reader = Reader(encoder, learned.templates, learned.usual)
        cuts = range(len(STRUCTURE), self.reader.width, encoder.dim) if encoder else []
        self.structure, *self._vectors = (np.ascontiguousarray(p) for p in np.split(learned.dense, cuts, axis=1))
        self._nothing = np.zeros(len(learned.bias), np.float32)
        self._no_task = (0.0,) * len(learned.bias)
        self._ones = np.ones(_AT_ONCE, np.float32)
        self._context = lru_cache(REMEMBERED)(self._read_context)
        self.held_out_: Floats = np.zeros(0)
        self.held_out_accept_: Floats = np.zeros(0)
        self.held_out_gain_: Floats | None = None

    @classmethod
    def fit(
        cls, examples: Sequence[Example], encoder: Encoder | None, seed: int = 0, *, on_step: OnStep = untold
    ) -> Self:
        """Learns from judged requests, oldest first; without an encoder from structure and n-grams alone. 100,000
        take a minute: ``on_step`` is told how far it is.

        With fewer than two examples of either outcome every score is the share of acceptable ones, by
        Laplace's rule of succession.
        """
        fit = learn(examples, encoder, seed, on_step)
        scorer = cls(encoder, fit.learned)
        scorer.held_out_, scorer.held_out_accept_, scorer.held_out_gain_ = fit.held_out, fit.accepts, fit.gains
        return scorer

    @classmethod
    def of_heads(cls, heads: Heads) -> Self:
        """One with nothing learnt beside what the heads know."""
        return cls(None, learn([], None, 0).learned, heads)

    def with_heads(self, heads: Heads) -> Self:
        """The same, scoring what these would answer."""
        return type(self)(self.reader.encoder, self.learned, heads)

    def refreshed(self, examples: Sequence[Example], raws: Sequence[Raw] | None = None) -> Self:
        """This scorer with more judged requests, none of which it was fitted on: calibrated anew by them; they join
        the neighbours, and their n-grams are known. No refit; what it says of an example here, it said before.
        ``raws`` are the examples', where they were read before."""
        learned, encoder = self.learned, self.reader.encoder
        labels = np.array([e.acceptable for e in examples], np.bool_)
        if not len(labels):
            return self
        raws = self.raws([e.features for e in examples]) if raws is None else raws
        logits = np.array([self.told(raw).logit for raw in raws])
        blend = learned.blend.adjusted(logits, labels, np.array([e.weight for e in examples]))
        neighbours = learned.neighbours
        if neighbours is not None and encoder is not None:
            none = np.zeros(encoder.dim, np.float32)
            vectors = np.stack([none if raw.vector is None else raw.vector for raw in raws])
            neighbours = neighbours.remember(judged_by(examples, vectors))
        grams = learned.grams.copy()
        for raw in raws:
            grams[raw.ngrams, 3] = 1
            if raw.context is not None:
                grams[raw.context[1], 3] = 1
        facts = {**learned.facts, "refreshed": learned.facts.get("refreshed", 0) + len(examples)}
        return type(self)(encoder, replace(learned, grams=grams, blend=blend, neighbours=neighbours, facts=facts))

    def score(self, features: Features) -> float:
        """P(acceptable | request), calibrated."""
        return self.look(features).score

    def look(self, features: Features) -> Look:
        """All that is said of a request before any token."""
        if self.heads is not None:
            score, familiar = self.heads.look(features) or (0.0, 0.0)
            trust = familiar**STEEPNESS
            return Look(score * trust, None, 1 - trust)
        return self.look_at(self.raw(features))

    def look_at(self, raw: Raw) -> Look:
        """The same of one that was read before."""
        found, learned = self.told(raw), self.learned
        usual, gain = found.usual, None
        if learned.neighbours is not None:
            usual = min(usual, learned.neighbours.familiar(found.opinion.nearest))
        trust = usual**STEEPNESS
        p = linear.sigmoid(found.logit)
        if found.difference is not None:
            gain = learned.blend.gain(found.difference, 1 - p, found.opinion) * trust + (1 - trust)
        return Look(p * trust, gain, 1 - trust, found.tokens)

    def raw(self, features: Features) -> Raw:
        """Reads a request's message; what stands around it is read, or remembered, when it is asked what it says."""
        text, around = self.reader.texts(features)
        encoder, vector = self.reader.encoder, None
        if encoder is not None:
            total = encoder.total(text)
            length = math.sqrt(total.dot(total))
            if length > 0:
                vector = total / length
        return Raw(self.reader.structure(features), vector, hashed_ngrams(text, ""), around, features.task)

    def raws(self, requests: Sequence[Features]) -> list[Raw]:
        """Reads requests whole, every text once, for this scorer and what it is refreshed to."""
        encoder, known = self.reader.encoder, dict[str, tuple[F32 | None, I64]]()
        found = [self.raw(features) for features in requests]
        for around in {raw.around for raw in found}:
            known[around] = None if encoder is None else encoder.encode(around), hashed_ngrams("", around)
        return [raw._replace(context=known[raw.around]) for raw in found]

    def read(self, features: Features) -> PartReadings:
        """What each part of the request says."""
        return self.told(self.raw(features))

    def told(self, raw: Raw) -> PartReadings:
        """The same of one that was read before."""
        learned, structure, ngrams = self.learned, raw.structure, raw.ngrams
        context = self._context(raw.around) if raw.context is None else self._part(*raw.context)
        dense = self.structure.dot(structure)
        message, opinion = self._nothing, NOBODY
        if raw.vector is not None:
            message = self._vectors[0].dot(raw.vector)
            if learned.neighbours is not None:
                opinion = learned.neighbours.ask(raw.vector, raw.task)
        own = self._summed(ngrams)
        *grams, squared, _ = (own + context.grams).tolist()
        norm = math.sqrt(squared) if squared > 0 else math.inf
        said, around_said = message.tolist(), context.embedded.tolist()
        task = learned.tasks.get(raw.task, self._no_task)
        heads = [sum(part) for part in zip(dense.tolist(), said, around_said, task, learned.bias, strict=True)]
        spelled = [g / norm for g in grams]
        if len(heads) == 1:
            logit, difference = heads[0] + spelled[0], None
        else:
            logit, difference = together(heads[0] + spelled[0], heads[1] + spelled[1])
        blended = learned.blend.logit(logit, opinion)
        usual = learned.familiarity.share((float(own[3]), len(ngrams)), (float(context.grams[3]), context.ngrams))
        tokens = learned.lengths.tokens(structure) if learned.lengths else None
        return PartReadings(said, around_said, spelled, opinion, blended, difference, usual, tokens)

    def _summed(self, ngrams: I64) -> F32:
        """The sum of the n-grams' rows of ``ScorerModel.grams``: float32, (4,)."""
        rows = self.learned.grams.take(ngrams, axis=0)
        summed: F32 = self._ones[: len(rows)].dot(rows) if len(rows) <= _AT_ONCE else rows.sum(axis=0)
        return summed

    def _read_context(self, text: str) -> TextPart:
        """System prompt, earlier turns, frame: often the same for many requests, so it is remembered."""
        encoder = self.reader.encoder
        return self._part(None if encoder is None else encoder.encode(text), hashed_ngrams("", text))

    def _part(self, vector: F32 | None, ngrams: I64) -> TextPart:
        embedded = self._nothing if vector is None else self._vectors[1].dot(vector)
        return TextPart(embedded, self._summed(ngrams), len(ngrams))

    def accept(self, score: float, signals: Signals | None) -> float:
        """P(acceptable | request, answer); the score itself where there are no signals or no head."""
        head = self.learned.head
        return score if signals is None or head is None else head(score, signals)

    def neighbours(self, features: Features, count: int = 5) -> list[tuple[str, float, bool]]:
        """The nearest judged requests: request id, cosine, whether the student was acceptable; nearest first."""
        vector, near = self.raw(features).vector, self.learned.neighbours
        return [] if vector is None or near is None else near.nearest(vector, count)

    def save(self, folder: Path) -> None:
        """Writes weights (safetensors) and numbers (JSON) into ``folder``, made where it is missing."""
        files.save(folder, self.learned, self.reader.encoder)

    @classmethod
    def load(cls, folder: Path, encoder: Encoder | None) -> Self:
        """What ``save`` wrote, giving the very same scores.

        Raises:
            BundleError: files are missing or damaged, or made for other features or another encoder.
        """
        return cls(encoder, files.load(folder, encoder))

    @classmethod
    def load_whole(cls, folder: Path, encoders: Callable[[EncoderKind], Encoder | None]) -> Self:
        """What ``save`` wrote, with the encoder that it was fitted with, which ``encoders`` loads.

        Raises:
            BundleError: as ``load``, or no encoder that this version knows is named.
            EngineError: the encoder cannot be had.
        """
        kind = files.encoder_of(folder)
        return cls.load(folder, None if kind is None else encoders(kind))

    @property
    def slow(self) -> bool:
        """Whether a look takes milliseconds, which an event loop does not have."""
        if self.heads is not None:
            return self.heads.slow
        return self.reader.encoder is not None and self.reader.encoder.slow


def together(student: float, teacher: float) -> tuple[float, float]:
    """From the two heads' logits: the logit of acceptable, and P(teacher right) - P(student right).

    Unacceptable is where the teacher is right and the student is not, given the request as good as independent.
    """
    right, teacher_right = linear.sigmoid(student), linear.sigmoid(teacher)
    return -linear.logit(teacher_right * (1 - right), 1e-6), teacher_right - right

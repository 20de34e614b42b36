"""The scorer: P(the student's answer is acceptable), before and after seeing the answer.

L2 logistic regression on three blocks of equal energy: structure, static embeddings of the last user
turn and of what came before it, and hashed n-grams weighted by inverse document frequency. Centring and
inverse frequency take out what all requests of an application share, such as its system prompt.
Calibrated by Platt's method on held-out predictions; served with numpy alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import orjson

from router.contracts.records import Signals
from router.errors import BundleError
from router.scoring import answer_head, linear
from router.scoring.answer_head import AnswerHead
from router.scoring.encoder import Encoder
from router.scoring.features import FEATURES_VERSION, STRUCTURE, Features
from router.scoring.linear import Bools, Floats
from router.scoring.ngrams import BUCKETS, I64, hashed_ngrams
from router.scoring.reading import F32, Blocks, Familiarity, Reader
from router.scoring.templates import Templates

STRENGTHS = (0.02, 0.1, 0.5, 2.0, 8.0)
REMEMBERED = 512
"""Contexts whose share of the score is kept, at most: a few kilobytes each."""
_ARRAYS, _NUMBERS = "scorer.safetensors", "scorer.json"
_GRAMS = ("hashed", "squared_idf")
_FORMAT = 1
PRIOR_BIAS = 2.0
PRIOR: Mapping[str, float] = {
    "log_user_chars": -0.25, "log_context_chars": -0.05, "log_turns": -0.3,
    "asks_extract": 0.5, "asks_rewrite": 0.3, "asks_yes_no": 0.2,
    "asks_reason": -0.5, "asks_count": -0.5, "asks_create": -0.4, "asks_code": -0.7,
    "share_digit": -3.0, "share_maths": -8.0, "share_code": -5.0,
    "log_code_fences": -1.0, "log_tools": -0.5, "schema": -0.3, "images": -2.0, "audio": -2.0,
}  # fmt: skip
"""The declared prior's log odds for each unit of structure."""


@dataclass(frozen=True, slots=True)
class Example:
    """One judged request. ``signals`` where the student's token probabilities are known."""

    features: Features
    signals: Signals | None
    acceptable: bool
    weight: float = 1.0
    streamed: bool = False

    @property
    def judged(self) -> Signals | None:
        """What acceptance goes by where the student is asked: of a longer stream its first tokens."""
        return self.signals.held or self.signals if self.streamed and self.signals else self.signals


@dataclass(frozen=True, slots=True)
class Learned:
    """What ``fit`` learns, calibration folded in.

    ``dense``: float32, (d,). ``grams``: complex64, (BUCKETS,), so that one look-up and one sum serve both: an
    n-gram's weight times its inverse document frequency, and that frequency squared.
    """

    dense: F32
    grams: npt.NDArray[np.complex64]
    bias: float
    familiarity: Familiarity
    head: AnswerHead | None
    facts: dict[str, Any]


class Part(NamedTuple):
    """What one text of a request adds: embedding and n-grams to the log odds, and how many n-grams are known."""

    embedded: float
    grams: complex
    known: int
    ngrams: int


class Scorer:
    """Fit or load one; then ``score`` and ``accept`` only read it, from any thread.

    After ``fit``, ``held_out_`` and ``held_out_accept_`` are each example's probabilities by models that
    had not seen it: float64, (n,).
    """

    def __init__(self, reader: Reader, learned: Learned) -> None:
        self._reader = reader
        self.learned = learned
        self._structure, *self._vectors = _blocks(reader, learned.dense)
        self._context = lru_cache(REMEMBERED)(self._read_context)
        self.held_out_: Floats = np.zeros(0)
        self.held_out_accept_: Floats = np.zeros(0)

    @classmethod
    def fit(cls, examples: Sequence[Example], encoder: Encoder | None, seed: int = 0) -> Self:
        """Learns from judged requests; without an encoder from structure and n-grams alone.

        With fewer than two examples of either outcome every score is the share of acceptable ones, by
        Laplace's rule of succession.
        """
        labels = np.array([e.acceptable for e in examples], np.bool_)
        weights = np.array([e.weight for e in examples], np.float64)
        if min(int(labels.sum()), int((~labels).sum())) < 2:
            return cls._constant(encoder, labels, weights)
        reader = Reader(encoder, Templates.fit([e.features.last_user for e in examples]))
        readings = [reader(e.features) for e in examples]
        blocks = Blocks.fit(readings)
        fitted = linear.fit(blocks.matrix(readings), labels, weights, STRENGTHS, seed)
        dense, hashed, bias = blocks.unfold(fitted.linear, fitted.platt)
        head, accepts = _fit_head(examples, fitted.held_out, labels, weights, seed)
        facts = {"examples": len(examples), "acceptable": int(labels.sum()), "strength": fitted.strength}
        familiarity = blocks.familiarity(readings)
        scorer = cls(reader, Learned(dense, _paired(hashed, blocks.squared_idf), bias, familiarity, head, facts))
        scorer.held_out_, scorer.held_out_accept_ = fitted.held_out, accepts
        return scorer

    @classmethod
    def _constant(cls, encoder: Encoder | None, labels: Bools, weights: Floats) -> Self:
        p = float((weights[labels].sum() + 1) / (weights.sum() + 2))
        reader = Reader(encoder, Templates())
        dense = np.zeros(reader.width, np.float32)
        empty = np.zeros(BUCKETS, np.complex64)
        facts = {"examples": len(labels), "acceptable": int(labels.sum()), "strength": 0.0}
        bias = linear.logit(p, 1e-12)
        scorer = cls(reader, Learned(dense, empty, bias, Familiarity(0, 0), None, facts))
        scorer.held_out_ = scorer.held_out_accept_ = np.full(len(labels), p)
        return scorer

    def score(self, features: Features) -> float:
        """P(acceptable | request), calibrated."""
        learned = self.learned
        text, around = self._reader.texts(features)
        context = self._context(around)
        user = self._read(text, hashed_ngrams(text, ""), 0)
        z = float(self._structure.dot(features.structure)) + user.embedded + context.embedded + learned.bias
        grams = user.grams + context.grams
        if grams.imag > 0:
            z += grams.real / math.sqrt(grams.imag)
        known, ngrams = user.known + context.known, user.ngrams + context.ngrams
        return linear.sigmoid(z) * learned.familiarity.discount(known, ngrams)

    def _read_context(self, text: str) -> Part:
        """System prompt, earlier turns, frame: often the same for many requests, so it is remembered."""
        return self._read(text, hashed_ngrams("", text), 1)

    def _read(self, text: str, buckets: I64, block: int) -> Part:
        encoder, embedded = self._reader.encoder, 0.0
        if encoder is not None:
            total = encoder.total(text)
            length = math.sqrt(total.dot(total))
            embedded = float(self._vectors[block].dot(total)) / length if length > 0 else 0.0
        grams = self.learned.grams.take(buckets)
        known = np.count_nonzero(grams.imag < self.learned.familiarity.new)
        return Part(embedded, complex(np.add.reduce(grams)), int(known), len(buckets))

    def accept(self, score: float, signals: Signals | None) -> float:
        """P(acceptable | request, answer); the score itself where there are no signals or no head."""
        head = self.learned.head
        return score if signals is None or head is None else head(score, signals)

    def save(self, folder: Path) -> None:
        """Writes weights (safetensors) and numbers (JSON) into ``folder``, made where it is missing."""
        from safetensors.numpy import save_file  # noqa: PLC0415

        learned = self.learned
        folder.mkdir(parents=True, exist_ok=True)
        hashed, squared_idf = (np.ascontiguousarray(a) for a in (learned.grams.real, learned.grams.imag))
        save_file({"dense": learned.dense, "hashed": hashed, "squared_idf": squared_idf}, folder / _ARRAYS)
        numbers = {
            **_identity(self._reader.encoder),
            "templates": [self._reader.templates.beginnings, self._reader.templates.endings],
            "bias": learned.bias,
            "familiarity": [learned.familiarity.new, learned.familiarity.usual],
            "head": learned.head.plain() if learned.head else None,
            "facts": learned.facts,
        }
        (folder / _NUMBERS).write_bytes(orjson.dumps(numbers, option=orjson.OPT_INDENT_2))

    @classmethod
    def load(cls, folder: Path, encoder: Encoder | None) -> Self:
        """What ``save`` wrote, giving the very same scores.

        Raises:
            BundleError: files are missing or damaged, or made for other features or another encoder.
        """
        from safetensors import SafetensorError  # noqa: PLC0415
        from safetensors.numpy import load_file  # noqa: PLC0415

        try:
            numbers = orjson.loads((folder / _NUMBERS).read_bytes())
            if (found := {k: numbers.get(k) for k in _identity(encoder)}) != _identity(encoder):
                raise BundleError(f"the scorer in {folder} is for {found}, not for {_identity(encoder)}")
            arrays, head = load_file(folder / _ARRAYS), numbers["head"]
            reader = Reader(encoder, Templates(*map(tuple, numbers["templates"])))
            if arrays["dense"].shape != (reader.width,) or {arrays[n].shape for n in _GRAMS} != {(BUCKETS,)}:
                raise BundleError(f"the scorer in {folder} is damaged: its weights have the wrong shape")
            learned = Learned(
                dense=arrays["dense"],
                grams=_paired(arrays["hashed"], arrays["squared_idf"]),
                bias=numbers["bias"],
                familiarity=Familiarity(*numbers["familiarity"]),
                head=AnswerHead.of(head) if head else None,
                facts=numbers["facts"],
            )
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as e:
            raise BundleError(f"the scorer in {folder} cannot be read: {e}") from e
        return cls(reader, learned)


def prior_score(features: Features) -> float:
    """P(acceptable | request) by a declared, hand-set rule on structure: before any label is there.

    Short, single questions that want extraction or rewriting stand high; length, reasoning, arithmetic,
    code, tools and long conversations lower it. It only ranks; no label has calibrated it.
    """
    return linear.sigmoid(PRIOR_BIAS + float(_prior().dot(features.structure)))


@cache
def _prior() -> F32:
    return np.array([PRIOR.get(name, 0.0) for name in STRUCTURE], np.float32)


def _paired(hashed: F32, squared_idf: F32) -> npt.NDArray[np.complex64]:
    pairs = np.empty(len(hashed), np.complex64)
    pairs.real, pairs.imag = hashed, squared_idf
    return pairs


def _blocks(reader: Reader, dense: F32) -> list[F32]:
    """The weights of the structure, and with an encoder of the message's and of the context's embedding."""
    return np.split(dense, range(len(STRUCTURE), reader.width, reader.encoder.dim)) if reader.encoder else [dense]


def _identity(encoder: Encoder | None) -> dict[str, Any]:
    """What must agree between a scorer's file and the code and encoder that use it."""
    name = encoder.name if encoder else None
    return {"format": _FORMAT, "features_version": FEATURES_VERSION, "encoder": name, "buckets": BUCKETS}


def _fit_head(
    examples: Sequence[Example], scores: Floats, labels: Bools, weights: Floats, seed: int
) -> tuple[AnswerHead | None, Floats]:
    """The head on those examples that have signals, and every example's held-out probability (n,)."""
    seen = np.array([e.signals is not None for e in examples], np.bool_)
    signals = [e.signals for e in examples if e.signals is not None]
    found = answer_head.fit(scores[seen].tolist(), signals, labels[seen], weights[seen], seed)
    accepts = scores.copy()
    if found is None:
        return None, accepts
    head, accepts[seen] = found
    return head, accepts

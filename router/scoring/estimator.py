"""The scorer: P(the student's answer is acceptable), before and after seeing the answer.

L2 logistic regression on three blocks of equal energy: structure, static embeddings of the last user
turn and of what came before it, and hashed n-grams weighted by inverse document frequency. Centring and
inverse frequency take out what all requests of an application share, such as its system prompt.
Calibrated by Platt's method on held-out predictions; served with numpy alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import orjson

from router.contracts.records import Signals
from router.errors import BundleError
from router.scoring import answer_head, linear
from router.scoring.answer_head import AnswerHead
from router.scoring.encoder import Encoder
from router.scoring.features import FEATURES_VERSION, STRUCTURE, Features
from router.scoring.linear import Bools, Floats
from router.scoring.ngrams import BUCKETS
from router.scoring.reading import F32, Blocks, Familiarity, Reader
from router.scoring.templates import Templates

STRENGTHS = (0.02, 0.1, 0.5, 2.0, 8.0)
_ARRAYS, _NUMBERS = "scorer.safetensors", "scorer.json"
_TENSORS = ("dense", "hashed", "squared_idf")
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Example:
    """One judged request. ``signals`` where the student's token probabilities are known."""

    features: Features
    signals: Signals | None
    acceptable: bool
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Learned:
    """What ``fit`` learns, calibration folded in. ``dense``: float32, (d,); ``hashed`` (the n-grams' weights
    times their inverse document frequency) and ``squared_idf``: float32, (BUCKETS,)."""

    dense: F32
    hashed: F32
    squared_idf: F32
    bias: float
    familiarity: Familiarity
    head: AnswerHead | None
    facts: dict[str, Any]


class Scorer:
    """Fit or load one; then ``score`` and ``accept`` only read it, from any thread.

    After ``fit``, ``held_out_`` and ``held_out_accept_`` are each example's probabilities by models that
    had not seen it: float64, (n,).
    """

    def __init__(self, reader: Reader, learned: Learned) -> None:
        self._reader = reader
        self.learned = learned
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
        scorer = cls(reader, Learned(dense, hashed, blocks.squared_idf, bias, familiarity, head, facts))
        scorer.held_out_, scorer.held_out_accept_ = fitted.held_out, accepts
        return scorer

    @classmethod
    def _constant(cls, encoder: Encoder | None, labels: Bools, weights: Floats) -> Self:
        p = float((weights[labels].sum() + 1) / (weights.sum() + 2))
        reader = Reader(encoder, Templates())
        dense = np.zeros(reader.width, np.float32)
        empty = np.zeros(BUCKETS, np.float32)
        facts = {"examples": len(labels), "acceptable": int(labels.sum()), "strength": 0.0}
        bias = linear.logit(p, 1e-12)
        scorer = cls(reader, Learned(dense, empty, empty, bias, Familiarity(0, 0), None, facts))
        scorer.held_out_ = scorer.held_out_accept_ = np.full(len(labels), p)
        return scorer

    def score(self, features: Features) -> float:
        """P(acceptable | request), calibrated."""
        reading, learned = self._reader(features), self.learned
        squared = learned.squared_idf.take(reading.buckets)
        z = float(learned.dense @ reading.dense) + learned.bias
        if (energy := float(squared.sum())) > 0:
            z += float(learned.hashed.take(reading.buckets).sum()) / math.sqrt(energy)
        return linear.sigmoid(z) * learned.familiarity.discount(squared)

    def accept(self, score: float, signals: Signals | None) -> float:
        """P(acceptable | request, answer); the score itself where there are no signals or no head."""
        head = self.learned.head
        return score if signals is None or head is None else head(score, signals)

    def save(self, folder: Path) -> None:
        """Writes weights (safetensors) and numbers (JSON) into ``folder``, made where it is missing."""
        from safetensors.numpy import save_file  # noqa: PLC0415

        learned = self.learned
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: getattr(learned, name) for name in _TENSORS}, folder / _ARRAYS)
        numbers = {
            **_identity(self._reader.encoder),
            "templates": [self._reader.templates.beginnings, self._reader.templates.endings],
            "bias": learned.bias,
            "familiarity": [learned.familiarity.new, learned.familiarity.usual],
            "head": asdict(learned.head) if learned.head else None,
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
            learned = Learned(
                dense=arrays["dense"],
                hashed=arrays["hashed"],
                squared_idf=arrays["squared_idf"],
                bias=numbers["bias"],
                familiarity=Familiarity(*numbers["familiarity"]),
                head=AnswerHead(tuple(head.pop("weights")), **head) if head else None,
                facts=numbers["facts"],
            )
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as e:
            raise BundleError(f"the scorer in {folder} cannot be read: {e}") from e
        if learned.dense.shape != (reader.width,) or {learned.hashed.shape, learned.squared_idf.shape} != {(BUCKETS,)}:
            raise BundleError(f"the scorer in {folder} is damaged: its weights have the wrong shape")
        return cls(reader, learned)


def prior_score(features: Features) -> float:
    """P(acceptable | request) by a declared, hand-set rule on structure: before any label is there.

    Short, single questions that want extraction or rewriting stand high; length, reasoning, arithmetic,
    code, tools and long conversations lower it. It only ranks; no label has calibrated it.
    """
    has = dict(zip(STRUCTURE, features.structure.tolist(), strict=True))
    z = (
        2.0
        - 0.25 * has["log_user_chars"] - 0.05 * has["log_context_chars"] - 0.3 * has["log_turns"]
        + 0.5 * has["asks_extract"] + 0.3 * has["asks_rewrite"] + 0.2 * has["asks_yes_no"]
        - 0.5 * has["asks_reason"] - 0.5 * has["asks_count"] - 0.4 * has["asks_create"] - 0.7 * has["asks_code"]
        - 3.0 * has["share_digit"] - 8.0 * has["share_maths"] - 5.0 * has["share_code"]
        - 1.0 * has["log_code_fences"] - 0.5 * has["log_tools"] - 0.3 * has["schema"]
        - 2.0 * (has["images"] + has["audio"])
    )  # fmt: skip
    return linear.sigmoid(z)


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

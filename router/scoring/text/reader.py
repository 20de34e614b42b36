"""A request as the regression sees it: dense blocks of equal energy, and n-grams by rarity."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from router.scoring import linear
from router.scoring.linear import Platt
from router.scoring.rows import Rows
from router.scoring.text.encoder import Encoder
from router.scoring.text.features import CONTEXT_WINDOW, STRUCTURE, USER_WINDOW, Features, window
from router.scoring.text.ngrams import BUCKETS, hashed_ngrams
from router.scoring.text.templates import Templates

F32 = npt.NDArray[np.float32]

RARE = 0.01
"""Share of training requests that were stranger than what counts as usual."""
REMEMBERED = 512
"""Contexts whose reading is kept, at most: a few kilobytes each."""
LEAST_TASK, MOST_TASKS = 8, 256
"""How often a task's tag must have been seen to count, and how many tags do, at most."""


class Grams(NamedTuple):
    """The n-grams of a text: their buckets, ascending, int32, (n,), and how often each is there, float32, (n,)."""

    buckets: npt.NDArray[np.int32]
    times: F32

    @classmethod
    def of(cls, found: npt.NDArray[np.int64]) -> Self:
        """From one entry for each occurrence."""
        buckets, times = np.unique(found.astype(np.int32), return_counts=True)
        return cls(buckets, times.astype(np.float32))

    def among(self, known: npt.NDArray[np.bool_]) -> tuple[float, float]:
        """How many are known, (BUCKETS,), and how many there are, by occurrence."""
        return float(self.times[known[self.buckets]].sum()), float(self.times.sum())


class Reading(NamedTuple):
    """A request as the regression sees it: float32, (len(STRUCTURE) + 2 * dim,); the n-grams of the message and of
    what stands around it; the task's tag."""

    dense: F32
    message: Grams
    around: Grams
    task: str


class HeadWeights(NamedTuple):
    """One head's weights for raw readings. ``dense``: float32, (d,); ``hashed``: an n-gram's weight times its
    inverse document frequency, float32, (BUCKETS,)."""

    dense: F32
    hashed: F32
    tasks: Mapping[str, float]
    bias: float


@dataclass(frozen=True, slots=True)
class Familiarity:
    """How much of a request's n-grams training saw, and the least that was usual there: of the message, and of all.

    Off the distribution that it was fitted on, a score deserves less trust: it is discounted once more of the
    message, or of all, is new than in 99 of 100 training examples, and so strange traffic goes to the teacher by
    itself. An n-gram is new whose squared inverse document frequency reaches ``new``.
    """

    new: float
    usual_message: float
    usual: float

    def share(self, message: tuple[float, int], around: tuple[float, int]) -> float:
        """How usual a request is, 0 to 1, by (known, all) n-grams of its message and of what stands around it."""
        known, ngrams = message[0] + around[0], message[1] + around[1]
        return min(_of(*message, self.usual_message), _of(known, ngrams, self.usual))


def _of(known: float, ngrams: int, usual: float) -> float:
    return min(1.0, known / ngrams / usual) if usual > 0 and ngrams else 1.0


class Reader:
    """Turns requests into readings, by an encoder, the frames that were learnt, and the usual range of each number
    of the structure, float32, (2, len(STRUCTURE)): what lies beyond, as in a prompt all in capitals, counts as its
    end, since nothing was learnt of it."""

    def __init__(self, encoder: Encoder | None, templates: Templates, usual: F32) -> None:
        self.encoder = encoder
        self.templates = templates
        self._least, self._most = usual
        self.width = len(STRUCTURE) + (2 * encoder.dim if encoder else 0)
        self._around = lru_cache(REMEMBERED)(self._read_around)

    def __call__(self, features: Features) -> Reading:
        message, around = self.texts(features)
        vectors, grams = self._around(around)
        if self.encoder is not None:
            vectors = (self.encoder.encode(message), *vectors)
        dense = np.concatenate([self.structure(features), *vectors])
        return Reading(dense, Grams.of(hashed_ngrams(message, "")), grams, features.task)

    def read_ahead(self, requests: Iterable[Features]) -> None:
        """Lets the encoder read all that these say together."""
        if self.encoder is not None:
            self.encoder.read_ahead(text for f in requests for text in self.texts(f))

    def _read_around(self, text: str) -> tuple[tuple[F32, ...], Grams]:
        """System prompt, earlier turns, frame: often the same for many requests."""
        vectors = (self.encoder.encode(text),) if self.encoder is not None else ()
        return vectors, Grams.of(hashed_ngrams("", text))

    def structure(self, features: Features) -> F32:
        """``features.structure`` within what is usual."""
        clipped: F32 = np.minimum(np.maximum(features.structure, self._least), self._most)
        return clipped

    def message(self, reading: Reading) -> F32:
        """The embedding of the message in a reading: float32, (dim,); there must be an encoder."""
        start = len(STRUCTURE)
        return reading.dense[start : start + (self.width - start) // 2]

    def texts(self, features: Features) -> tuple[str, str]:
        """What is read of the message, and of what stands around it: system prompt, earlier turns, frame."""
        message, frame = self.templates.split(features.last_user)
        if not frame:
            return features.user_window, features.context_window
        around = f"{features.context_window}\n{window(frame, CONTEXT_WINDOW)}"
        return window(message, USER_WINDOW), around


def usual_structure(requests: Sequence[Features]) -> F32:
    """For ``Reader``: from the least to the most of all but one in a hundred of these."""
    return np.quantile([f.structure for f in requests], (RARE / 2, 1 - RARE / 2), axis=0).astype(np.float32)


ANY_STRUCTURE: F32 = np.array([[-math.inf] * len(STRUCTURE), [math.inf] * len(STRUCTURE)], np.float32)


@dataclass(frozen=True, slots=True)
class Blocks:
    """How readings become rows: ``(dense - mean) * scale``, then n-grams by inverse document frequency, then one
    column for each task that was often seen."""

    mean: F32
    scale: F32
    squared_idf: F32
    columns: npt.NDArray[np.int64]
    tasks: tuple[str, ...]

    @classmethod
    def fit(cls, readings: Sequence[Reading]) -> Self:
        """Structure is standardised; an embedding keeps its shape; each block's mean energy becomes one."""
        dense = np.stack([r.dense for r in readings])  # (n, d)
        mean = dense.mean(axis=0)
        spread = dense.std(axis=0, dtype=np.float64)  # in float32 the spread of what never varies is above 0
        spread[spread < 1e-6] = np.inf  # what never varies teaches nothing
        scale = np.zeros_like(mean)
        scale[: len(STRUCTURE)] = 1 / spread[: len(STRUCTURE)] / math.sqrt(len(STRUCTURE))
        half = (len(mean) - len(STRUCTURE)) // 2
        for start in range(len(STRUCTURE), len(mean), max(1, half)):
            block = slice(start, start + half)
            varies = np.isfinite(spread[block])
            scale[block] = varies / math.sqrt(max(float((spread[block][varies] ** 2).sum()), 1e-12))
        frequency, last = np.zeros(BUCKETS, np.int32), np.full(BUCKETS, -1, np.int32)  # small enough for a cache
        for i, r in enumerate(readings):
            for grams in (r.message, r.around):
                frequency[grams.buckets[last[grams.buckets] < i]] += 1
                last[grams.buckets] = i
        squared_idf = np.log((1 + len(readings)) / (1 + frequency)) ** 2
        seen = Counter(r.task for r in readings if r.task)
        tasks = tuple(task for task, times in seen.most_common(MOST_TASKS) if times >= LEAST_TASK)
        return cls(mean, scale, squared_idf.astype(np.float32), np.flatnonzero(frequency), tasks)

    def matrix(self, readings: Sequence[Reading]) -> Rows:
        """The rows, float32: (n, d) beside (n, len(columns) + len(tasks))."""
        from scipy import sparse

        dense = np.stack([r.dense for r in readings])
        dense -= self.mean
        dense *= self.scale
        place, idf = np.zeros(BUCKETS, np.int32), np.sqrt(self.squared_idf)
        place[self.columns] = np.arange(len(self.columns))
        number = {task: len(self.columns) + i for i, task in enumerate(self.tasks)}
        sizes = [len(r.message.buckets) + len(r.around.buckets) + (r.task in number) for r in readings]
        ends = np.cumsum([0, *sizes])
        where, values = np.ones(ends[-1], np.int32), np.ones(ends[-1], np.float32)
        for r, start, end in zip(readings, ends.tolist(), ends[1:].tolist(), strict=False):
            buckets, times = map(np.concatenate, zip(r.message, r.around, strict=True))
            energy, stop = float(self.squared_idf[buckets].dot(times)), start + len(buckets)
            where[start:stop] = place[buckets]
            values[start:stop] = idf[buckets] * times / max(math.sqrt(energy), 1e-6)
            where[stop:end] = number.get(r.task, 0)  # nothing without a tag
        grams = sparse.csr_matrix((values, where, ends), (len(readings), len(self.columns) + len(number)))
        grams.eliminate_zeros()  # n-grams that every request has
        return Rows(dense, grams)

    def unfold(self, fitted: linear.LinearModel, platt: Platt) -> HeadWeights:
        """Weights for raw readings, calibration folded in."""
        weights = platt.slope * fitted.weights
        mean_at, tasks_at = len(self.mean), len(self.mean) + len(self.columns)
        dense = weights[:mean_at] * self.scale
        hashed = np.zeros(BUCKETS)
        hashed[self.columns] = weights[mean_at:tasks_at]
        return HeadWeights(
            dense=dense.astype(np.float32),
            hashed=(hashed * np.sqrt(self.squared_idf)).astype(np.float32),
            tasks=dict(zip(self.tasks, weights[tasks_at:].tolist(), strict=True)),
            bias=platt.slope * fitted.bias + platt.intercept - float(dense @ self.mean),
        )

    def familiarity(self, readings: Sequence[Reading]) -> Familiarity:
        """An n-gram is known where training saw it; for a training example, where another one has it too."""
        new, alone = (math.log((1 + len(readings)) / (1.5 + seen)) ** 2 for seen in (0, 1))
        known = self.squared_idf < alone
        shares = []
        for r in readings:
            (own, total), (around, more) = r.message.among(known), r.around.among(known)
            both = total + more
            shares.append((own / total if total else 1.0, (own + around) / both if both else 1.0))
        message, all_of_it = np.quantile(shares, RARE, axis=0).tolist()
        return Familiarity(new, message, all_of_it)

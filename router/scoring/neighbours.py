"""Nearest neighbours among recent judged requests: a local second opinion, and a sense of what is strange.

A kernel regression (Nadaraya 1964; Watson 1964) on the message's embedding, cut to its directions of most
variance: every remembered request votes by exp(SHARPNESS * cosine), ``SAME_TASK`` times as much where the client
gave it the same tag, which needs no sorting. Far from all of them the answer is the base rate. What is newly
judged is remembered by appending a row: no refit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from router.scoring.reading import RARE

F32 = npt.NDArray[np.float32]

MEMORY = 4096
"""Judged requests that are remembered, the newest."""
DIMENSIONS = 64
SHARPNESS = 8.0
SAME_TASK = 16.0
LEAST = 60
"""Fewer judged requests are no neighbourhood."""
_CHUNK = 1024


class Opinion(NamedTuple):
    """What the neighbours say: the share acceptable, the mean gain of escalating (0 without labels for it), and
    the cosine of the nearest."""

    acceptable: float
    gain: float
    nearest: float


@dataclass(frozen=True, slots=True)
class Judged:
    """Judged requests, oldest first: unit embeddings (n, dim), labels (n,), request ids and the clients' tags."""

    vectors: F32
    acceptable: npt.NDArray[np.bool_]
    gains: npt.NDArray[np.float64]
    names: Sequence[str]
    tasks: Sequence[str]

    def votes(self) -> F32:
        """See ``Neighbours``."""
        return np.stack([np.ones(len(self.gains)), self.acceptable, self.gains], axis=1).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """``projection``: float32, (dim, k), and ``offset``, (k,), make a message's embedding a row; ``rows``: float32,
    (m, k), of length one, oldest first; ``votes``: float32, (m, 3): one, acceptable, gain; ``names``: their request
    ids; ``tasks``: the numbers of their tags, by ``known``, -1 for none, (m,); ``near``: the cosine from which on a
    request counts as near; ``base``: the mean acceptable and gain.
    """

    projection: F32
    offset: F32
    rows: F32
    votes: F32
    names: tuple[str, ...]
    tasks: npt.NDArray[np.int32]
    known: Mapping[str, int]
    near: float
    base: tuple[float, float]

    @classmethod
    def fit(cls, judged: Judged) -> Self | None:
        """From judged requests, oldest first; None of fewer than ``LEAST``."""
        vectors = judged.vectors
        if len(vectors) < LEAST:
            return None
        mean = vectors.mean(axis=0)
        centred = vectors - mean
        _, directions = np.linalg.eigh(centred.T @ centred)  # ascending
        projection = np.ascontiguousarray(directions[:, ::-1][:, :DIMENSIONS], np.float32)
        none = np.zeros((0, projection.shape[1]), np.float32), np.zeros((0, 3), np.float32)
        empty = cls(projection, mean @ projection, *none, (), np.zeros(0, np.int32), {}, 0.0, (0.0, 0.0))
        made = empty.remember(judged)
        nearest = made.held_out(judged)[:, 2]
        return replace(made, near=float(np.quantile(nearest, RARE)))

    def remember(self, judged: Judged) -> Self:
        """These with more judged requests; the oldest are forgotten."""
        known = dict(self.known)
        for task in judged.tasks:
            if task and task not in known:
                known[task] = len(known)
        fresh = np.array([known.get(task, -1) for task in judged.tasks], np.int32)
        votes = np.ascontiguousarray(np.concatenate([self.votes, judged.votes()])[-MEMORY:])
        _, base, base_gain = votes.mean(axis=0).tolist()
        return replace(
            self,
            rows=np.ascontiguousarray(np.concatenate([self.rows, self.project(judged.vectors)])[-MEMORY:]),
            votes=votes,
            names=(*self.names, *judged.names)[-MEMORY:],
            tasks=np.concatenate([self.tasks, fresh])[-MEMORY:],
            known=known,
            base=(base, base_gain),
        )

    def project(self, vectors: F32) -> F32:
        """Unit embeddings as rows: (n, dim) to (n, k)."""
        rows = vectors @ self.projection - self.offset
        scaled: F32 = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
        return scaled

    def ask(self, vector: F32, task: str) -> Opinion:
        """The neighbours of one unit embedding (dim,), of a request with this tag."""
        row = vector.dot(self.projection) - self.offset
        cosines = self.rows.dot(row) / max(math.sqrt(row.dot(row)), 1e-9)
        nearest = float(cosines.max())
        weights = self._weights(cosines)
        if task in self.known:
            weights[self.tasks == self.known[task]] *= SAME_TASK
        total, acceptable, gain = weights.dot(self.votes).tolist()
        return Opinion(*self._shrunk(total, acceptable, gain), nearest)

    def held_out(self, judged: Judged) -> npt.NDArray[np.float64]:
        """What the neighbours say of requests that are remembered, the last ones last, without themselves: (n, 3)."""
        rows, found = self.project(judged.vectors), np.empty((len(judged.vectors), 3))
        tasks = np.array([self.known.get(task, -1) for task in judged.tasks])
        first = len(rows) - len(self.rows)  # earlier ones are not remembered
        for start in range(0, len(rows), _CHUNK):
            cosines = rows[start : start + _CHUNK] @ self.rows.T
            own = np.arange(start, start + len(cosines)) - first
            mine = own >= 0
            cosines[np.flatnonzero(mine), own[mine]] = -np.inf
            mine_too = tasks[start : start + _CHUNK, None]
            weights = self._weights(cosines) * np.where((mine_too == self.tasks) & (mine_too >= 0), SAME_TASK, 1.0)
            sums = weights @ self.votes  # (chunk, 3)
            for i, (total, acceptable, gain) in enumerate(sums.tolist()):
                found[start + i] = *self._shrunk(total, acceptable, gain), cosines[i].max()
        return found

    def nearest(self, vector: F32, count: int) -> list[tuple[str, float, bool]]:
        """The nearest to a unit embedding (dim,), nearest first, the newer of equals first: request id, cosine,
        acceptable."""
        cosines = self.rows @ self.project(vector[None])[0]
        newest_first = np.argsort(-cosines[::-1], kind="stable")[:count]
        best = (len(cosines) - 1 - newest_first).tolist()
        return [(self.names[i], float(cosines[i]), bool(self.votes[i, 1])) for i in best]

    def familiar(self, nearest: float) -> float:
        """How usual a request is, 0 to 1, whose nearest neighbour has this cosine."""
        return min(1.0, max(0.0, nearest) / self.near) if self.near > 0 else 1.0

    def _weights(self, cosines: F32) -> F32:
        weights = cosines - 1
        weights *= SHARPNESS
        return np.exp(weights, out=weights)

    def _shrunk(self, total: float, acceptable: float, gain: float) -> tuple[float, float]:
        """The votes' means, with the base rate as one more vote, from as far away as still counts as near."""
        base, base_gain = self.base
        own = math.exp(SHARPNESS * (self.near - 1))
        return (acceptable + own * base) / (total + own), (gain + own * base_gain) / (total + own)

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
from typing import NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt

from router.scoring.text.reader import RARE

F32 = npt.NDArray[np.float32]

MEMORY = 4096
"""Judged requests that are remembered, the newest."""
DIMENSIONS = 64
SHARPNESS = 8.0
SAME_TASK = 16.0
LEAST = 60
"""Fewer judged requests are no neighbourhood."""
_CHUNK = 256

T = TypeVar("T", float, npt.NDArray[np.float64])


class Opinion(NamedTuple):
    """What the neighbours say: the share acceptable, the mean gain of escalating (0 without labels for it), and
    the cosine of the nearest."""

    acceptable: float
    gain: float
    nearest: float


@dataclass(frozen=True, slots=True)
class JudgedRequests:
    """Judged requests, oldest first: unit embeddings (n, dim), labels (n,), request ids and the clients' tags."""

    vectors: F32
    acceptable: npt.NDArray[np.bool_]
    gains: npt.NDArray[np.float64]
    names: Sequence[str]
    tasks: Sequence[str]

    def votes(self) -> F32:
        """See ``Neighbours``."""
        return np.stack([np.ones(len(self.gains)), self.acceptable, self.gains]).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """``projection``: float32, (dim, k), and ``offset``, (k,), make a message's embedding a row; ``rows``: float32,
    (m, k), of length one, oldest first; ``votes``: float32, (3, m): one, acceptable, gain; ``names``: their request
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
    def fit(cls, judged: JudgedRequests) -> tuple[Self, npt.NDArray[np.float64]] | None:
        """From judged requests, oldest first, and what the neighbours say of each when held out: an ``Opinion`` a row,
        (n, 3). None of fewer than ``LEAST``."""
        vectors = judged.vectors
        if len(vectors) < LEAST:
            return None
        mean = vectors.mean(axis=0)
        centred = vectors - mean
        _, directions = np.linalg.eigh(centred.T @ centred)  # ascending
        projection = np.ascontiguousarray(directions[:, ::-1][:, :DIMENSIONS], np.float32)
        none = np.zeros((0, projection.shape[1]), np.float32), np.zeros((3, 0), np.float32)
        empty = cls(projection, mean @ projection, *none, (), np.zeros(0, np.int32), {}, 0.0, (0.0, 0.0))
        made = empty.remember(judged)
        *sums, nearest = made._held_out(judged)
        fitted = replace(made, near=float(np.quantile(nearest, RARE)))
        return fitted, np.stack([*fitted._shrunk(*sums), nearest], axis=1)

    def remember(self, judged: JudgedRequests) -> Self:
        """These with more judged requests; the oldest are forgotten."""
        known = dict(self.known)
        for task in judged.tasks:
            if task and task not in known:
                known[task] = len(known)
        fresh = np.array([known.get(task, -1) for task in judged.tasks], np.int32)
        votes = np.ascontiguousarray(np.concatenate([self.votes, judged.votes()], axis=1)[:, -MEMORY:])
        _, base, base_gain = votes.mean(axis=1).tolist()
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
        row *= SHARPNESS / max(math.sqrt(row.dot(row)), 1e-9)
        sharp = self.rows.dot(row)  # (m,)
        nearest = float(sharp.max()) / SHARPNESS
        weights = np.exp(sharp, out=sharp)
        sums = self.votes.dot(weights)  # (3,)
        if task in self.known:
            sums += (SAME_TASK - 1) * self.votes.dot(weights * (self.tasks == self.known[task]))
        return Opinion(*self._shrunk(*sums.tolist()), nearest)

    def _held_out(self, judged: JudgedRequests) -> npt.NDArray[np.float64]:
        """For each of these, which are remembered, the last ones last, without itself: the sum of all votes, of those
        for acceptable and of gains, and the nearest's cosine, (4, n)."""
        rows, found = self.project(judged.vectors), np.empty((4, len(judged.vectors)))
        tasks = np.array([self.known.get(task, -1) for task in judged.tasks], np.int32)
        first = len(rows) - len(self.rows)  # earlier ones are not remembered
        for start in range(0, len(rows), _CHUNK):
            chunk = slice(start, min(start + _CHUNK, len(rows)))
            sharp = (SHARPNESS * rows[chunk]) @ self.rows.T  # (chunk, m)
            own = np.arange(chunk.start, chunk.stop) - first
            mine = own >= 0
            sharp[np.flatnonzero(mine), own[mine]] = -np.inf
            found[3, chunk] = sharp.max(axis=1) / SHARPNESS
            weights, task = np.exp(sharp, out=sharp), tasks[chunk, None]
            found[:3, chunk] = self.votes @ weights.T
            if (task >= 0).any():
                weights *= (task == self.tasks) & (task >= 0)
                found[:3, chunk] += (SAME_TASK - 1) * (self.votes @ weights.T)
        return found

    def nearest(self, vector: F32, count: int) -> list[tuple[str, float, bool]]:
        """The nearest to a unit embedding (dim,), nearest first, the newer of equals first: request id, cosine,
        acceptable."""
        cosines = self.rows @ self.project(vector[None])[0]
        newest_first = np.argsort(-cosines[::-1], kind="stable")[:count]
        best = (len(cosines) - 1 - newest_first).tolist()
        return [(self.names[i], float(cosines[i]), bool(self.votes[1, i])) for i in best]

    def familiar(self, nearest: float) -> float:
        """How usual a request is, 0 to 1, whose nearest neighbour has this cosine."""
        return min(1.0, max(0.0, nearest) / self.near) if self.near > 0 else 1.0

    def _shrunk(self, total: T, acceptable: T, gain: T) -> tuple[T, T]:
        """The votes' means, with the base rate as one more vote, from as far away as still counts as near."""
        base, base_gain = self.base
        own = math.exp(SHARPNESS * self.near)
        return (acceptable + own * base) / (total + own), (gain + own * base_gain) / (total + own)

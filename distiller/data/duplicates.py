"""Whether one prompt more is new: exact by normalised text, near by the words that set prompts apart.

For prompts that come one by one, and of which none may be missed; a whole log's are compared by ``copies``.

Traffic of one application shares a template, often longer than what varies, so plain similarity
would call every prompt a copy of every other. Shingles that many prompts share are therefore left
out before two prompts are compared; what remains is compared exactly (Jaccard similarity, found by
prefix filtering: Chaudhuri, Ganti and Kaushik, "A primitive operator for similarity joins", 2006).
"""

from __future__ import annotations

import hashlib
from math import ceil
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from distiller.data.shingles import normalise

SHINGLE = 5
"""Characters in a shingle."""

_BUCKETS = 1 << 20
_COMMON_SHARE = 0.05
_COMMON_MIN = 10
_FEWEST = 8
"""Below this many telling shingles only equal texts count as copies."""


def digest(text: str) -> bytes:
    """16 bytes that stand for the normalised text."""
    return hashlib.blake2b(normalise(text).encode(), digest_size=16).digest()


def shingles(text: str) -> frozenset[int]:
    """The text's distinct character 5-grams, normalised, each as a number below 2**20."""
    clean = normalise(text)
    last = max(len(clean) - SHINGLE, 0)
    return frozenset(crc32(clean[i : i + SHINGLE].encode()) % _BUCKETS for i in range(last + 1))


class NearCopies:
    """Finds whether a prompt is nearly one of a kept set.

    Feed every prompt to ``count``, then the kept ones to ``keep``, then ask ``has``. Memory is one
    fixed table plus the kept prompts' shingles.
    """

    def __init__(self, similarity: float) -> None:
        self.similarity = similarity
        self._frequency: NDArray[np.uint32] = np.zeros(_BUCKETS, dtype=np.uint32)  # (buckets,)
        self._prompts = 0
        self._kept: list[frozenset[int]] = []
        self._postings: dict[int, list[int]] = {}

    def count(self, text: str) -> None:
        """Learns which shingles are common."""
        self._prompts += 1
        self._frequency[list(shingles(text))] += 1

    def keep(self, text: str) -> None:
        """Adds a prompt whose near copies are to be found."""
        telling = self._telling(text)
        for shingle in telling[: self._prefix(len(telling))]:
            self._postings.setdefault(shingle, []).append(len(self._kept))
        self._kept.append(frozenset(telling))

    def has(self, text: str) -> bool:
        """Whether a kept prompt is at least ``similarity`` like this one."""
        telling = self._telling(text)
        if len(telling) < _FEWEST:
            return False
        mine = frozenset(telling)
        near = {i for s in telling[: self._prefix(len(telling))] for i in self._postings.get(s, ())}
        return any(self._alike(mine, self._kept[i]) for i in near)

    def _alike(self, a: frozenset[int], b: frozenset[int]) -> bool:
        shared = len(a & b)
        return len(b) >= _FEWEST and shared >= self.similarity * (len(a) + len(b) - shared)

    def _telling(self, text: str) -> list[int]:
        """The shingles that few prompts share, rarest first."""
        limit = max(_COMMON_MIN, _COMMON_SHARE * self._prompts)
        own = shingles(text)
        return sorted((s for s in own if self._frequency[s] <= limit), key=lambda s: (self._frequency[s], s))

    def _prefix(self, size: int) -> int:
        """Two sets as similar as asked share one of their so many rarest members."""
        return size - ceil(self.similarity * size) + 1

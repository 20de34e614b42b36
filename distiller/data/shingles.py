"""What of a text is compared: its normalised form's character 5-grams, as numbers.

A log's prompts are compared by sketches of theirs (``copies``): of a long text only the ``WHOLE`` smallest hashes are
kept, a sample of its shingles by which two texts of like length are still comparable (the sketch of Broder, "On the
resemblance and containment of documents", 1997), so that no prompt costs more memory than another.

Prompts that come one by one, and of which none may be missed, are compared exactly (``NearCopies``): Jaccard
similarity, found by prefix filtering (Chaudhuri, Ganti and Kaushik, "A primitive operator for similarity joins",
2006). Traffic of one application shares a template, often longer than what varies, so plain similarity would call
every prompt a copy of every other; shingles that many prompts share are therefore left out first.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]

SHINGLE = 5
"""Characters in a shingle."""
WHOLE = 1024
"""Shingles kept of a whole prompt."""
ASKED = 256
"""Shingles kept of its last user turn, once more."""
EVERYTHING = np.uint32(0xFFFFFFFF)

_OPERATORS = "-+*/^%<>=|&~"  # one may be all that two sums differ in
_WORDS = re.compile(rf"[\w{re.escape(_OPERATORS)}]+")
_KEPT = frozenset(_OPERATORS + "_")
_ASCII = bytes(ord(chr(b).lower()) if chr(b).isalnum() or chr(b) in _KEPT else 32 for b in range(128)) + bytes(128)
_NUMBERS = re.compile(r"\d+")
_PRIME = 0x9E3779B1
_BUCKETS = 1 << 20
_COMMON_SHARE = 0.05
_COMMON_MIN = 10
_FEWEST = 8
"""Below this many telling shingles only equal texts count as copies."""


@dataclass(frozen=True, slots=True)
class Sketch:
    """Distinct shingles in ascending order: uint32, (n,), n at most ``WHOLE`` and ``ASKED``."""

    whole: U32
    asked: U32


def normalise(text: str) -> str:
    """Lower case, one form of every character, words and operators only: what two equal prompts have in common."""
    if text.isascii():  # twice as fast as the expression
        words = text.encode().translate(_ASCII).decode().split()
        return " ".join(words) or " ".join(text.split())
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_WORDS.findall(folded)) or " ".join(folded.split())


def numbers(text: str) -> str:
    """The numbers in a text, in their order: two sums that differ in one are two questions."""
    return " ".join(_NUMBERS.findall(text))


def digest(text: str) -> int:
    """64 bits that stand for the text as it is."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "little")


def sketches(prompts: Sequence[tuple[str, str]]) -> list[Sketch]:
    """Of each prompt the sketch: all before its last user turn, and that turn, both normalised."""
    wholes = smallest([f"{before} {asked}" if before else asked for before, asked in prompts], WHOLE)
    later = iter(smallest([asked for before, asked in prompts if before], ASKED))
    return [
        Sketch(whole, next(later) if before else whole[:ASKED])
        for whole, (before, _) in zip(wholes, prompts, strict=True)
    ]


def smallest(texts: Sequence[str], most: int) -> list[U32]:
    """Of each text its ``most`` smallest distinct shingles' hashes, ascending. Many texts at once are fastest."""
    if not texts:
        return []
    codes = [np.frombuffer(t.encode("utf-32-le", "replace"), np.uint32) for t in texts]
    sizes = np.array([max(len(c), SHINGLE) for c in codes], np.int64)
    joined = np.zeros(int(sizes.sum()) + SHINGLE, np.uint32)
    starts = np.concatenate(([0], np.cumsum(sizes)))
    for start, code in zip(starts, codes, strict=False):
        joined[start : start + len(code)] = code
    hashes = joined[: starts[-1]].copy()
    for step in range(1, SHINGLE):
        hashes *= np.uint32(_PRIME)
        hashes += joined[step : step + len(hashes)]
    owners = np.repeat(np.arange(len(codes), dtype=np.uint64), sizes)
    inside = np.arange(len(hashes)) - np.repeat(starts[:-1], sizes) <= np.repeat(sizes - SHINGLE, sizes)
    keys = np.sort((owners[inside] << np.uint64(32)) | mixed(hashes[inside]))
    keys = keys[np.concatenate(([True], keys[1:] != keys[:-1]))] if len(keys) else keys
    ends = np.searchsorted(keys, np.arange(len(codes) + 1, dtype=np.uint64) << np.uint64(32))
    low = keys.astype(np.uint32)
    return [low[a : min(b, a + most)] for a, b in pairwise(ends)]


def mixed(values: U32) -> U32:
    """Every bit of the number depends on every bit of the value (MurmurHash3's last step)."""
    values = values ^ (values >> np.uint32(16))
    values = values * np.uint32(0x85EBCA6B)
    values ^= values >> np.uint32(13)
    values = values * np.uint32(0xC2B2AE35)
    return values ^ (values >> np.uint32(16))


def limit(sketch: U32, most: int) -> np.uint32:
    """The hash up to which the sketch holds all of its text's shingles."""
    return sketch[-1] if len(sketch) >= most else EVERYTHING


def resemblance(a: U32, b: U32, upto: np.uint32) -> float:
    """Jaccard similarity of two ascending sets, as far as both are known: up to the hash ``upto``."""
    if upto != EVERYTHING:
        a, b = a[: np.searchsorted(a, upto, "right")], b[: np.searchsorted(b, upto, "right")]
    if not len(a) or not len(b):
        return 0.0
    small, large = (a, b) if len(a) < len(b) else (b, a)
    at = np.searchsorted(large, small)
    at[at == len(large)] = 0
    shared = int(np.count_nonzero(large[at] == small))
    return shared / (len(a) + len(b) - shared)


def fingerprint(text: str) -> bytes:
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

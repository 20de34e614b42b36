"""What of a text is compared: its normalised form's character 5-grams as numbers, at most so many of each.

Of a long text only the ``WHOLE`` smallest hashes are kept, a sample of its shingles by which two texts of like
length are still comparable (the sketch of Broder, "On the resemblance and containment of documents", 1997), so that
no prompt costs more memory than another.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

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

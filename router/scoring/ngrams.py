"""Hashed n-grams of words and of bytes, all at once in numpy.

One prefix hash serves every n-gram: with ``P[i] = sum_{j<i} b_j p**j`` (mod 2**64, p odd and so
invertible), ``(P[end] - P[start]) * p**-start`` depends on the bytes between only (Karp and Rabin 1987).
A final multiplicative hash takes the top bits (Knuth, TAOCP 6.4). Hashing instead of a vocabulary:
Weinberger et al. 2009, arXiv 0902.2206.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

BITS = 18
BUCKETS = 1 << BITS
BYTE_NGRAMS = (3, 4, 5)
_BASE = 0x9E3779B97F4A7C15  # odd: the golden ratio's bits
_MIX = np.uint64(0xD6E8FEB86659FD93)
_PAIR = np.uint64(0xC2B2AE3D27D4EB4F)
_SHIFT = np.uint64(64 - BITS)

U64 = npt.NDArray[np.uint64]


def hashed_ngrams(user: str, context: str) -> npt.NDArray[np.int64]:
    """The buckets of a request's n-grams, one entry for each occurrence: int64, (n,), in [0, BUCKETS).

    ``user`` counts by words, word pairs and UTF-8 byte 3- to 5-grams; ``context`` by words and pairs,
    in buckets of its own.
    """
    parts = [*_grams(user, salt=1, with_bytes=True), *_grams(context, salt=7, with_bytes=False)]
    if not parts:
        return np.zeros(0, np.int64)
    return ((np.concatenate(parts) * _MIX) >> _SHIFT).astype(np.int64)


def _grams(text: str, salt: int, with_bytes: bool) -> list[U64]:
    """64-bit hashes of the text's n-grams, one array a kind, each kind salted apart."""
    if not text:
        return []
    raw = np.frombuffer(f" {text.lower()} ".encode("utf-8", "replace"), np.uint8)
    powers, inverses = _powers(1 << (len(raw) - 1).bit_length())
    prefix = np.zeros(len(raw) + 1, np.uint64)
    np.cumsum((raw + np.uint64(1)) * powers[: len(raw)], out=prefix[1:])
    edges = np.flatnonzero(np.diff(_word_bytes()[raw]))  # the text begins and ends with a space
    starts, ends = edges[0::2] + 1, edges[1::2] + 1
    words = (prefix[ends] - prefix[starts]) * inverses[starts] + np.uint64(salt)
    kinds = [words, words[:-1] * _PAIR + words[1:]]
    if with_bytes:
        kinds += [
            (prefix[n:] - prefix[:-n]) * inverses[: len(raw) + 1 - n] + np.uint64(salt + n)
            for n in BYTE_NGRAMS
            if len(raw) >= n
        ]
    return [k for k in kinds if len(k)]


@cache
def _powers(size: int) -> tuple[U64, U64]:
    """``p**i`` and ``p**-i`` modulo 2**64 for i < size."""
    return _geometric(_BASE, size), _geometric(pow(_BASE, -1, 1 << 64), size)


def _geometric(base: int, size: int) -> U64:
    steps = np.full(size, base, np.uint64)
    steps[0] = 1
    return np.cumprod(steps, dtype=np.uint64)


@cache
def _word_bytes() -> npt.NDArray[np.int8]:
    """1 for the bytes of words: ASCII letters and digits, and every byte of a non-ASCII character."""
    return np.array([chr(b).isalnum() if b < 128 else True for b in range(256)], np.int8)

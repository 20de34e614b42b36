"""Hashed n-grams of words and of bytes, all at once in numpy.

One prefix hash serves every n-gram: with ``P[i] = sum_{j<i} b_j p**j`` (mod 2**64, p odd and so
invertible), ``(P[end] - P[start]) * p**-start`` depends on the bytes between only (Karp and Rabin 1987).
A final multiplicative hash takes the top bits (Knuth, TAOCP 6.4). Hashing instead of a vocabulary:
Weinberger et al. 2009, arXiv 0902.2206.

A short prompt's cost is that of numpy's calls, a microsecond each, so they are few: results are written
where they belong, and the final hash's factor is multiplied into the constants beforehand, modulo 2**64.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

BITS = 18
BUCKETS = 1 << BITS
BYTE_NGRAMS = (3, 4, 5)
_BASE = 0x9E3779B97F4A7C15  # odd: the golden ratio's bits
_MIX = 0xD6E8FEB86659FD93
_PAIR = np.uint64(0xC2B2AE3D27D4EB4F)
_SHIFT = np.uint64(64 - BITS)
_USER, _CONTEXT = 1, 7
_SALTS = {salt: np.uint64(salt * _MIX % (1 << 64)) for salt in (_USER, _CONTEXT, *(_USER + n for n in BYTE_NGRAMS))}
_TERMS = bytes(min(255, ord(chr(b).lower()) + 1 if b < 128 else b + 1) for b in range(256))
"""Each byte's factor: one more than it (UTF-8 has no byte 255), ASCII letters in lower case."""
_IN_WORD = bytes(chr(b).isalnum() if b < 128 else True for b in range(256))
"""1 for the bytes of words: ASCII letters and digits, and every byte of a non-ASCII character."""

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]


def hashed_ngrams(user: str, context: str) -> I64:
    """The buckets of a request's n-grams, one entry for each occurrence: int64, (n,), in [0, BUCKETS).

    ``user`` counts by words, word pairs and UTF-8 byte 3- to 5-grams; ``context`` by words and pairs,
    in buckets of its own.
    """
    if not context:
        return _buckets(user, _USER, BYTE_NGRAMS)
    if not user:
        return _buckets(context, _CONTEXT, ())
    return np.concatenate([_buckets(user, _USER, BYTE_NGRAMS), _buckets(context, _CONTEXT, ())])


def _buckets(text: str, salt: int, byte_ngrams: tuple[int, ...]) -> I64:
    """The buckets of one text's byte n-grams, words and word pairs, each kind salted apart: int64, (n,)."""
    if not text:
        return np.zeros(0, np.int64)
    data = f" {text if text.isascii() else text.lower()} ".encode("utf-8", "replace")
    size = len(data)
    powers, inverses = _powers(1 << (size - 1).bit_length())
    prefix = np.empty(size + 1, np.uint64)
    prefix[0] = 0
    terms = np.frombuffer(data.translate(_TERMS), np.uint8)
    np.add.accumulate(terms * powers[:size], out=prefix[1:])
    words = _words(data, prefix, inverses)
    words += _SALTS[salt]
    sizes = [max(0, size + 1 - n) for n in byte_ngrams]
    found = np.empty(sum(sizes) + max(0, 2 * len(words) - 1), np.uint64)
    start = 0
    for n, count in zip(byte_ngrams, sizes, strict=True):
        part = found[start : start + count]
        np.subtract(prefix[n:], prefix[:count], out=part)
        np.multiply(part, inverses[:count], out=part)
        np.add(part, _SALTS[salt + n], out=part)
        start += count
    if len(words):
        found[start : start + len(words)] = words
        pairs = found[start + len(words) :]
        np.multiply(words[:-1], _PAIR, out=pairs)
        pairs += words[1:]
    found >>= _SHIFT
    return found.view(np.int64)


def _words(data: bytes, prefix: U64, inverses: U64) -> U64:
    """The unsalted hash of each word, in order; ``data`` begins and ends with a space."""
    inside = np.frombuffer(data.translate(_IN_WORD), np.bool_)
    edges = (inside[1:] != inside[:-1]).nonzero()[0]  # before a word's first byte, at its last, and so on
    edges += 1
    at = prefix.take(edges)
    words: U64 = at[1::2] - at[::2]
    words *= inverses.take(edges[::2])
    return words


@cache
def _powers(size: int) -> tuple[U64, U64]:
    """``p**i``, and ``p**-i`` times the final hash's factor, modulo 2**64 for i < size."""
    return _geometric(1, _BASE, size), _geometric(_MIX, pow(_BASE, -1, 1 << 64), size)


def _geometric(first: int, base: int, size: int) -> U64:
    steps = np.full(size, base, np.uint64)
    steps[0] = first
    return np.cumprod(steps, dtype=np.uint64)

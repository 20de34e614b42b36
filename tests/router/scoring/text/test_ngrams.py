import re
from itertools import pairwise

import numpy as np

from router.scoring.text.ngrams import BITS, BUCKETS, hashed_ngrams
from tests.router.scoring.texts import MARKS, PLAIN, mixtures

WHOLE = 1 << 64
BASE, MIX, PAIR = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xC2B2AE3D27D4EB4F


def by_definition(text: str, salt: int, byte_ngrams: tuple[int, ...]) -> list[int]:
    """Every n-gram hashed on its own, in plain integers."""
    if not text:
        return []
    data = f" {text.lower()} ".encode("utf-8", "replace")

    def hashed(piece: bytes, salt: int) -> int:
        return sum((b + 1) * pow(BASE, i, WHOLE) for i, b in enumerate(piece)) + salt

    words = [hashed(w, salt) for w in re.findall(rb"[a-z0-9\x80-\xff]+", data)]
    pairs = [a * PAIR + b for a, b in pairwise(words)]
    grams = [hashed(data[i : i + n], salt + n) for n in byte_ngrams for i in range(len(data) + 1 - n)]
    return sorted((h * MIX % WHOLE) >> (64 - BITS) for h in [*words, *pairs, *grams])


def test_all_at_once_is_what_one_by_one_is() -> None:
    texts = [*PLAIN, MARKS, "a", ".", "x" * 127, *mixtures(30)]
    for text, context in zip(texts, reversed(texts), strict=True):
        user, around = by_definition(text, 1, (3, 4, 5)), by_definition(context, 7, ())
        assert sorted(hashed_ngrams(text, "").tolist()) == user
        assert sorted(hashed_ngrams("", context).tolist()) == around
        both = hashed_ngrams(text, context)
        assert sorted(both.tolist()) == sorted(user + around) and both.dtype == np.int64
        assert not len(both) or (both.min() >= 0 and both.max() < BUCKETS)

"""What requests share word for word: the frame that an application writes around each message.

"Name the intent, one of: ... Message: where is my card?" differs from the next request in five words of
two hundred. Left in, the frame would drown them (and hide every word that it shares with them), so it is
learnt from the training examples and read apart from the message.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

LEAST_CHARS = 32
LEAST_SHARE = 0.05
LEAST_TEXTS = 8
MOST_FRAMES = 32


@dataclass(frozen=True, slots=True)
class Templates:
    """Beginnings and ends that many texts share, longest first. ``endings`` are stored as they read."""

    beginnings: tuple[str, ...] = ()
    endings: tuple[str, ...] = ()

    @classmethod
    def fit(cls, texts: Sequence[str]) -> Self:
        """Learns what at least ``LEAST_SHARE`` of the texts, and ``LEAST_TEXTS`` of them, begin or end with."""
        beginnings = _shared(texts)
        rests = [t[len(_first(t, beginnings)) :] for t in texts]
        endings = [e[::-1] for e in _shared([r[::-1] for r in rests])]
        return cls(tuple(beginnings), tuple(endings))

    def split(self, text: str) -> tuple[str, str]:
        """The message, and the frame around it; the whole text is the message where no frame is known."""
        beginning = _first(text, self.beginnings)
        rest = text[len(beginning) :]
        ending = next((e for e in self.endings if rest.endswith(e)), "")
        message = rest[: len(rest) - len(ending)] if ending else rest
        return message, f"{beginning}{ending}"


def _first(text: str, beginnings: Sequence[str]) -> str:
    return next((b for b in beginnings if text.startswith(b)), "")


def _shared(texts: Sequence[str]) -> list[str]:
    """Beginnings shared by enough texts, longest first.

    In sorted order, texts with a common beginning are neighbours. A longer beginning counts apart from a
    shorter one that it extends only if it does so by ``LEAST_CHARS``: else it is the frame plus whatever
    words messages often begin with.
    """
    least = max(LEAST_TEXTS, int(LEAST_SHARE * len(texts)))
    ordered = sorted(texts)
    pairs = zip(ordered, ordered[least - 1 :], strict=False)
    found = {_whole_words(_common(a, b)) for a, b in pairs if a[:LEAST_CHARS] == b[:LEAST_CHARS]}
    kept: list[str] = []
    for candidate in sorted(found, key=len):
        shorter = max((len(k) for k in kept if candidate.startswith(k)), default=0)
        if len(candidate) - shorter >= LEAST_CHARS:
            kept.append(candidate)
    return kept[:MOST_FRAMES][::-1]


def _common(a: str, b: str) -> str:
    """The longest common beginning, by bisection: the comparing is done in C."""
    length = bisect_left(range(min(len(a), len(b))), True, key=lambda i: a[: i + 1] != b[: i + 1])
    return a[:length]


def _whole_words(beginning: str) -> str:
    """The beginning up to its last white space, so that no message loses half a word."""
    return beginning[: max(map(beginning.rfind, (" ", "\n", "\t"))) + 1]

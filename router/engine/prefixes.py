"""Prompts of one application begin alike: what many share is computed once and kept."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Shorter prefixes are not worth a group of their own in the packed prefill.
LEAST_TOKENS = 16
#: Matches are rounded down to a multiple, so that prompts that differ a little earlier or later share a group.
GRAIN_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Match:
    """The tokens that need no computing, and their (layers, 2, heads, tokens, size) keys and values."""

    tokens: tuple[int, ...] = ()
    values: torch.Tensor | None = None


NO_MATCH = Match()


class Prefixes:
    """Learns shared beginnings by comparing each prompt with the last few; forgets the least used.

    Keys and values are causal, so any beginning of a kept prefix is as good as the whole.
    """

    def __init__(self, max_tokens: int, recent: int = 8) -> None:
        self.max_tokens = max_tokens
        self._kept: OrderedDict[tuple[int, ...], torch.Tensor] = OrderedDict()
        self._recent: deque[tuple[int, ...]] = deque(maxlen=recent)

    def match(self, prompt: tuple[int, ...]) -> Match:
        """The kept prefix that serves ``prompt`` best. At least one token is left, since its logits are needed."""
        best: tuple[int, ...] = ()
        most = 0
        for tokens in self._kept:
            n = min(common(tokens, prompt), len(prompt) - 1)
            if n > most:
                best, most = tokens, n
        most -= most % GRAIN_TOKENS
        if most < LEAST_TOKENS:
            return NO_MATCH
        self._kept.move_to_end(best)
        return Match(prompt[:most], self._kept[best][:, :, :, :most])

    def to_learn(self, prompt: tuple[int, ...], matched: int) -> int:
        """How many tokens of ``prompt`` are worth keeping after its prefill; 0 for none."""
        shared = max((common(p, prompt) for p in self._recent), default=0)
        self._recent.append(prompt)
        shared = min(shared, len(prompt) - 1, self.max_tokens)
        return shared if shared >= matched + LEAST_TOKENS else 0

    def keep(self, tokens: tuple[int, ...], values: torch.Tensor) -> None:
        """Adds a prefix; drops those it covers, then the least used while all are too long together."""
        for old in [t for t in self._kept if common(t, tokens) == len(t)]:
            del self._kept[old]
        self._kept[tokens] = values
        while sum(map(len, self._kept)) > self.max_tokens:
            self._kept.popitem(last=False)


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common beginning."""
    n = min(len(a), len(b))
    if a[:n] == b[:n]:
        return n
    return next(i for i in range(n) if a[i] != b[i])

"""Token ids to text, piece by piece, and stop strings that may span pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

REPLACEMENT = "�"


@dataclass(slots=True)
class Detokenizer:
    """Gives each token's text as soon as it is whole: a character may be spread over several tokens.

    Each piece is the difference between two decodings that share their first tokens, since many
    tokenizers write a word's leading space only where something stands before it.
    """

    decode: Callable[[Sequence[int]], str]
    ids: list[int] = field(default_factory=list)
    start: int = 0
    done: int = 0

    def push(self, token: int) -> str:
        self.ids.append(token)
        return self._piece(final=False)

    def flush(self) -> str:
        """What is left when no token follows: an unfinished character shows as it is."""
        return self._piece(final=True)

    def _piece(self, *, final: bool) -> str:
        if self.done == len(self.ids):
            return ""
        before = self.decode(self.ids[self.start : self.done])
        now = self.decode(self.ids[self.start :])
        if not final and (now.endswith(REPLACEMENT) or len(now) <= len(before)):
            return ""
        self.start, self.done = self.done, len(self.ids)
        return now[len(before) :]


@dataclass(slots=True)
class StopScanner:
    """Lets text through until a stop string shows; holds back what may be the start of one."""

    stops: tuple[str, ...]
    held: str = ""
    stopped: bool = False

    def push(self, piece: str) -> str:
        """The text that may leave now. ``stopped`` turns true once a stop string was met."""
        if not self.stops:
            return piece
        text = self.held + piece
        cuts = [at for s in self.stops if (at := text.find(s)) >= 0]
        if cuts:
            self.stopped, self.held = True, ""
            return text[: min(cuts)]
        keep = max((overlap(text, s) for s in self.stops), default=0)
        self.held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        text, self.held = self.held, ""
        return text


def overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that ``stop`` begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)

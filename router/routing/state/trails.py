"""Which conversations came by where, in the file that the workers of one machine share.

An entry is three words: a number, when and how it came to be there, and both and the key in one, by exclusive or. Who
reads while another writes finds three words that do not fit together, and so nothing, never a mixture (after Hyatt and
Mann 2002, "A lock-less transposition table implementation for parallel search"). What asks and changes in one step does
so under the file's lock: two that go on from the same place at once are two.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

SETS, WAYS, ENTRY = 131_072, 4, 3
WORDS = SETS * WAYS * ENTRY
MASK = 2**63 - 1
BRANCHES = 8
"""How often one conversation goes on from one place: edits, answers drawn anew, branches. What is gone on from more
often is a beginning that many share, such as examples in a prompt."""
MEMORY_SECONDS = 86_400
WAIT_SECONDS = 600
"""After so long one that waits for its turn is passed over where others wait behind it: most who have not gone on by
then never do."""
_TIMES, _SHARED, _STAMP = 0xFF, 0x100, 16
_END = 0x5851F42D4C957F2D


class MachineTrails:
    """The last ``SETS * WAYS`` places or so, each with the conversation that came by last; a new one replaces the one
    of its set that was longest unused. See ``Trails``."""

    def __init__(self, words: memoryview[int], lock: AbstractContextManager[None], clock: Callable[[], float]) -> None:
        self._words, self._lock, self._clock = words, lock, clock

    def seen(self, place: int, conversation: int) -> None:
        with self._lock:
            at, known, meta = self._find(place)
            shared = meta & _SHARED if known in (0, conversation) else _SHARED
            times = meta & _TIMES if known == conversation else 0
            self._put(at, place, conversation, shared | times)

    def reached(self, place: int, conversation: int) -> None:
        with self._lock:
            at, known, meta = self._find(place)
            if known == conversation:
                return
            end, last, _ = self._find(place ^ _END)
            if known and not meta & _TIMES:  # it may still go on from here, and so do those behind it
                behind = _behind(place, last or known)
                self._put(self._find(behind)[0], behind, conversation, 0)
                self._put(at, place, known, _SHARED, meta >> _STAMP)
            else:
                self._put(at, place, conversation, _SHARED if known else 0)
            if known or last:
                self._put(end, place ^ _END, conversation, 0)

    def gone_on(self, place: int) -> int | None:
        with self._lock:
            at, known, meta = self._find(place)
            times, since = meta & _TIMES, meta >> _STAMP
            if not known or times >= BRANCHES:
                return 0 if known else None
            if not times and meta & _SHARED:
                for _ in range(WAYS):
                    _, follows, then = self._find(_behind(place, known))
                    if not follows or self._clock() - since <= WAIT_SECONDS:
                        break
                    known, since = follows, then >> _STAMP
                if follows:
                    self._put(at, place, follows, _SHARED, then >> _STAMP)
                    return known
            self._put(at, place, known, meta & _SHARED | times + 1)
            return known

    def only(self, place: int, most: int = BRANCHES) -> int | None:
        with self._lock:
            at, known, meta = self._find(place)
            times = meta & _TIMES
            if not known or meta & _SHARED or times >= most:
                return None
            self._put(at, place, known, min(times + 1, _TIMES))
            return known

    def _find(self, place: int) -> tuple[int, int, int]:
        """(where it is or would be, the conversation or 0, its flags)."""
        key = place & MASK or 1
        first = key % SETS * WAYS * ENTRY
        at, oldest = first, MASK
        words = iter(self._words[first : first + WAYS * ENTRY].tolist())
        for check, known, meta in zip(words, words, words, strict=True):
            if check ^ known ^ meta == key:
                fresh = self._clock() - (meta >> _STAMP) <= MEMORY_SECONDS
                return (first, known, meta) if fresh else (first, 0, 0)
            if meta < oldest:
                at, oldest = first, meta
            first += ENTRY
        return at, 0, 0

    def _put(self, at: int, place: int, conversation: int, flags: int, since: int | None = None) -> None:
        key, stamp = place & MASK or 1, int(self._clock()) if since is None else since
        meta = stamp << _STAMP | flags
        self._words[at], self._words[at + 1], self._words[at + 2] = key ^ conversation ^ meta, conversation, meta


def _behind(place: int, conversation: int) -> int:
    """Where the conversation is kept that reached the place after this one did, while this one waited."""
    return place ^ (conversation * 0x9E3779B97F4A7C15 & MASK)

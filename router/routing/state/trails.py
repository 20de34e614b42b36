"""Which conversations came by where, in the file that the workers of one machine share.

An entry is three words: a number, when and how it came to be there, and both and the key in one, by exclusive or. Who
reads while another writes finds three words that do not fit together, and so nothing, never a mixture (after Hyatt and
Mann 2002, "A lock-less transposition table implementation for parallel search"). What asks and changes in one step does
so under the file's lock: two that go on from the same place at once are two.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

SETS, WAYS, ENTRY = 65_536, 8, 3
WORDS = SETS * WAYS * ENTRY
MASK = 2**63 - 1
BRANCHES = 8
"""How often one conversation goes on from one place: edits, answers drawn anew, branches. What is gone on from more
often is a beginning that many share, such as examples in a prompt."""
MEMORY_SECONDS = 86_400
_TIMES, _SHARED, _STAMP = 0xFF, 0x100, 16


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
            if known in (0, conversation):
                self._put(at, place, conversation, meta & (_SHARED | _TIMES))
                return
            if not meta & _TIMES:  # it may still go on from here: it waits below
                below, _, _ = self._find(_below(place, conversation))
                self._put(below, _below(place, conversation), known, 0)
            self._put(at, place, conversation, _SHARED)

    def gone_on(self, place: int) -> int | None:
        with self._lock:
            at, known, meta = self._find(place)
            times = meta & _TIMES
            if not known or times >= BRANCHES:
                return 0 if known else None
            if not times and meta & _SHARED:
                waits = self._find(_below(place, known))[1]
                if waits and waits != known:
                    self._put(at, place, waits, _SHARED)
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
        words = self._words[first : first + WAYS * ENTRY].tolist()
        free, oldest = 0, MASK
        for n in range(0, WAYS * ENTRY, ENTRY):
            check, known, meta = words[n : n + ENTRY]
            if check ^ known ^ meta == key:
                fresh = self._clock() - (meta >> _STAMP) <= MEMORY_SECONDS
                return (first + n, known, meta) if fresh else (first + n, 0, 0)
            if meta < oldest:
                free, oldest = n, meta
        return first + free, 0, 0

    def _put(self, at: int, place: int, conversation: int, flags: int) -> None:
        key, meta = place & MASK or 1, int(self._clock()) << _STAMP | flags
        self._words[at], self._words[at + 1], self._words[at + 2] = key ^ conversation ^ meta, conversation, meta


def _below(place: int, conversation: int) -> int:
    """Where the conversation is kept that had reached the place before this one did."""
    return place ^ (conversation * 0x9E3779B97F4A7C15 & MASK)

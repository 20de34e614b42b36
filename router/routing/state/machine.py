"""What the workers of one machine must know together: a small file that all of them map into memory.

It is made of 64-bit words, and every fact is one aligned word: processors read and write those whole, so
nobody ever sees half a fact, and reading locks nothing. There are two kinds of facts:

- **Money** (``MachineAccount``). Each worker has a region of its own that it alone writes; the sum over all regions
  is what the machine spent. A row is {key, reserved, and the last days, each {day, spent}}: a clock that leaps ahead
  and back finds its day again. ``spent`` is written before ``day``: whoever reads in between takes it for an older
  day's, never old money for today's. A worker that died leaves its region behind, without what it held; the next one
  in its slot goes on counting in it.
  Whether there is money is looked at and it is held in one step, under a lock on the file (1.7 µs), or two workers
  would both take the last of it. The kernel takes the lock from a worker that dies with it.
- **Conversations** (``MachineTable``). Any worker writes any word, so a word is self-contained: the key's tag, a value
  and when it was put there. Two workers that pick the same word for different keys at the same instant lose
  one of them, as if it had been forgotten; no word is ever a mixture. Which conversation a request goes on with is
  kept beside them, in ``router.routing.state.trails``.

One worker alone has the same in memory of its own. Other machines are not reached: that takes a server.

Which backend fails and how scores lie each worker finds out by itself: it sees its part of the same traffic.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import tempfile
import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import IO

from router.backends.breakers import Breakers, ProcessBreakers, ProcessRests, Rests
from router.errors import PolicyError
from router.routing.state.base import NANO, VALUE_BITS, VALUES, Quantile, Table, Trails
from router.routing.state.trails import WORDS as TRAIL_WORDS
from router.routing.state.trails import MachineTrails
from router.scoring.statistics.thresholds import ShareThreshold

MOST = 10**15
"""Nano-dollars that one amount counts as at most, a million dollars: sums of a few thousand of them fit into a word."""

HEADER = 8  # words: slots, nanoseconds of unix time at creation, two of the hash's key, and one; the rest is free
SLOTS, BEGAN, KEY, UNKNOWN = 0, 1, 2, 4
RESERVED, FIRST, DAYS = 1, 2, 7
ROWS, ROW = 1024, FIRST + 2 * DAYS  # rows of one worker's region, words of a row

SETS, WAYS = 16_384, 8
TABLES = 2
STAMP_BITS, TICK_SECONDS = 20, 16  # half a year, after which an old entry passes for a new one
TAG_BITS, TAG_SHIFT = 23, VALUE_BITS + STAMP_BITS  # the sign bit stays free
STAMPS = (1 << STAMP_BITS) - 1


class Lock:
    """A context manager that one worker at a time is in; without ``file`` there is but one."""

    __slots__ = ("_file",)

    def __init__(self, file: int | None) -> None:
        self._file = file

    def __enter__(self) -> None:
        if self._file is not None:
            fcntl.lockf(self._file, fcntl.LOCK_EX)  # a process's own, where ``flock`` would be all inheritors'

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            fcntl.lockf(self._file, fcntl.LOCK_UN)


class MachineAccount:
    """One sum of money by UTC day, in whole nano-dollars: what this worker adds, what all of them spent.

    A ``day`` is the clock's word. Where it goes back, what was spent on later days counts beside what was spent on
    this one, and what is spent now counts on the latest: nothing is forgotten, whichever of the two was wrong. Once it
    goes on to a day that is not the latest, that one had not come, and its money is of the past.
    """

    def __init__(self, words: memoryview[int], regions: int, slot: int, key: int, lock: Lock) -> None:
        self._words, self._key, self._lock = words, key, lock
        self._seen: list[int] = []  # the rows of those regions that have one: it never moves
        self._unseen = list(range(regions))
        self._own = self._claim(1 + slot)
        self._told = 0  # the day that this worker was told last

    def spent_before(self, day: int, nano: int) -> None:
        """Sets what was spent that day before the first worker began; saying it again changes nothing."""
        self._add(self._claim(0), day, min(nano, MOST), anew=True)

    def fits(self, day: int, nano: int, cap: int) -> bool:
        """Whether so much could be held now: it and all that is spent or held stay within the cap; or nothing is
        held and the cap is not reached, so that no request is too dear for ever, and at most one goes over. Nothing
        fits before it is known what was spent before the start."""
        self._follow(day)
        return self._fits(day, nano, cap)

    def reserve(self, day: int, nano: int, cap: int) -> bool:
        """Holds money for an answer under way, if it ``fits``."""
        self._follow(day)
        with self._lock:
            if not self._fits(day, nano, cap):
                return False
            self._words[self._own + RESERVED] += min(nano, MOST)
            return True

    def settle(self, day: int, held: int, spent: int) -> None:
        """Books what was spent and gives back what was held for it: nobody sees less than the truth in between."""
        self._follow(day)
        with self._lock:
            self._add(self._own, self._latest(day), min(spent, MOST))
            self._words[self._own + RESERVED] -= min(held, MOST)

    def spent(self, day: int) -> int:
        """By all workers, that day."""
        self._follow(day)
        return self._sums(day)[0]

    def reserved(self) -> int:
        """By all workers."""
        return self._sums(0)[1]

    def _fits(self, day: int, nano: int, cap: int) -> bool:
        if self._words[UNKNOWN]:
            return False
        spent, held = self._sums(day)
        return spent + held + nano <= cap or (not held and spent < cap)

    def _sums(self, day: int) -> tuple[int, int]:
        """(spent that day and on later ones, held): of all workers."""
        spent = held = 0
        for row in self._rows():
            words = self._words[row + RESERVED : row + ROW].tolist()
            held += words[0]
            for n in range(1, 1 + 2 * DAYS, 2):
                if words[n] >= day:
                    spent += words[n + 1]
        return spent, held

    def _follow(self, day: int) -> None:
        """Where the clock goes on to a day, all later ones that it told before had not come: what was booked on them
        was spent before this day."""
        if 0 < self._told < day and self._latest(day) > day:
            with self._lock:
                for row in self._rows():
                    for place in _days(row):
                        if self._words[place] > day:
                            spent = self._words[place + 1]
                            self._words[place] = self._words[place + 1] = 0
                            self._add(row, self._told, spent)
        self._told = day

    def _latest(self, day: int) -> int:
        return max(day, *(self._words[place] for row in self._rows() for place in _days(row)))

    def _add(self, row: int, day: int, nano: int, *, anew: bool = False) -> None:
        """In the place of that day, or of the earliest. ``anew``: instead of what was there."""
        words, places = self._words, _days(row)
        place = next((at for at in places if words[at] == day), -1)
        if place >= 0:
            words[place + 1] = min((0 if anew else words[place + 1]) + nano, MOST)
            return
        place = min(places, key=words.__getitem__)
        words[place] = 0
        words[place + 1] = nano
        words[place] = day

    def _rows(self) -> list[int]:
        for region in self._unseen.copy() if self._unseen else ():
            row, taken = self._find(region)
            if taken:
                self._seen.append(row)
                self._unseen.remove(region)
        return self._seen

    def _claim(self, region: int) -> int:
        row, taken = self._find(region)
        if not taken:
            self._words[row] = self._key
        return row

    def _find(self, region: int) -> tuple[int, bool]:
        """The key's row in a region, or the free one where it would be."""
        first = HEADER + region * ROWS * ROW
        for n in range(ROWS):
            row = first + (self._key + n) % ROWS * ROW
            if (key := self._words[row]) in (0, self._key):
                return row, key != 0
        raise PolicyError(f"more than {ROWS} budgets were counted since the start; start anew")


def _days(row: int) -> range:
    """Where a row has its days; behind each is what was spent on it."""
    return range(row + FIRST, row + ROW, 2)


class MachineTable:
    """The last ``SETS * WAYS`` keys or so, each with a value of ``VALUE_BITS`` bits.

    A key belongs to one set of words and is told from others there by its tag: two keys are taken for one
    another once in a million full sets. A new key replaces the oldest of its set.
    """

    def __init__(self, words: memoryview[int], clock: Callable[[], float]) -> None:
        self._words, self._clock = words, clock

    def get(self, key: int, within_seconds: float | None = None) -> int | None:
        """The value that was put last, or None where the key is unknown, or was put longer ago than that."""
        tag, first = _place(key)
        for word in self._words[first : first + WAYS].tolist():
            if word >> TAG_SHIFT == tag:
                late = within_seconds is not None and (self._now() - word & STAMPS) * TICK_SECONDS > within_seconds
                return None if late else word >> STAMP_BITS & VALUES
        return None

    def put(self, key: int, value: int = 0) -> None:
        tag, first = _place(key)
        now = self._now()
        chosen, oldest = 0, -1
        for way, word in enumerate(self._words[first : first + WAYS].tolist()):
            if word >> TAG_SHIFT == tag:
                chosen = way
                break
            age = STAMPS + 1 if word == 0 else (now - word) & STAMPS
            if age > oldest:
                chosen, oldest = way, age
        self._words[first + chosen] = ((tag << VALUE_BITS | value) << STAMP_BITS) | now & STAMPS

    def _now(self) -> int:
        return int(self._clock()) // TICK_SECONDS


def _place(key: int) -> tuple[int, int]:
    """(tag, the set's first word). No tag is 0, which is what an empty word has."""
    return (key >> (64 - TAG_BITS)) or 1, key % SETS * WAYS


class MachineState:
    """One worker's view of what all of them know. Without ``file`` it is this process's own.

    Args:
        file: the descriptor of what ``create`` made.
        slot: this worker's own place, which no other living worker has.
    """

    def __init__(self, file: int | None = None, slot: int = 0, clock: Callable[[], float] = time.time) -> None:
        self.slot, self.alone = slot, file is None
        self.breakers: Breakers = ProcessBreakers()
        self.rests: Rests = ProcessRests()
        if file is None:
            self._map = mmap.mmap(-1, 8 * _size(1))
            self._words = memoryview(self._map).cast("q")
            _write_header(self._words, 1)
        else:
            self._map = mmap.mmap(file, 0)
            self._words = memoryview(self._map).cast("q")
        self._slots, self._lock = self._words[SLOTS], Lock(file)
        self._keyed = blake2b(digest_size=8, key=self._words[KEY : KEY + 2].tobytes())
        _let_go(self._words, slot)
        first = HEADER + (1 + self._slots) * ROWS * ROW
        self.escalated: Table
        self.cached_share: Table
        self.escalated, self.cached_share = (
            MachineTable(self._words[first + n * SETS * WAYS : first + (n + 1) * SETS * WAYS], clock)
            for n in range(TABLES)
        )
        last = first + TABLES * SETS * WAYS
        self.trails: Trails = MachineTrails(self._words[last : last + TRAIL_WORDS], self._lock, clock)

    @property
    def began_at(self) -> float:
        """Unix time at which counting began: what was spent earlier no worker's region holds."""
        return self._words[BEGAN] / NANO

    @property
    def knows_spending(self) -> bool:
        """Whether all that was spent before the start is counted (``Account.spent_before``)."""
        return not self._words[UNKNOWN]

    def know_spending(self, known: bool = True) -> None:
        """Until it is known, no money is held."""
        self._words[UNKNOWN] = not known

    @property
    def workers(self) -> int:
        """How many workers there are to spend and to serve."""
        return self._slots

    def account(self, *name: str) -> MachineAccount:
        """The money counted under a name. Raises PolicyError where there are too many."""
        return MachineAccount(self._words, 1 + self._slots, self.slot, self.key(*name) >> 1 or 1, self._lock)

    def quantile(self, *name: str) -> Quantile:
        """Of this worker's part of the traffic, whatever the name."""
        return ShareThreshold()

    def key(self, *parts: str) -> int:
        """64 bits that stand for these words. Keyed, so that no client can aim at another's conversation."""
        digest = self._keyed.copy()
        digest.update("\0".join(parts).encode())
        return int.from_bytes(digest.digest())


def create(folder: Path, slots: int) -> IO[bytes]:
    """A fresh file for so many workers at once, that does not know what was spent before. It has no name: it is gone
    with the last who holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (the caller's to close)
    os.truncate(file.fileno(), 8 * _size(slots))
    with mmap.mmap(file.fileno(), 0) as mapped, memoryview(mapped) as view, view.cast("q") as words:
        _write_header(words, slots)
        words[UNKNOWN] = 1
    return file


def let_go(file: int, slot: int) -> None:
    """Gives back what the worker in a slot held for answers under way: it is dead, and they with it. Its successor
    may be in another slot."""
    with mmap.mmap(file, 0) as mapped, memoryview(mapped) as view, view.cast("q") as words:
        _let_go(words, slot)


def _let_go(words: memoryview[int], slot: int) -> None:
    first = HEADER + (1 + slot) * ROWS * ROW
    for row in range(first, first + ROWS * ROW, ROW):
        words[row + RESERVED] = 0


def _size(slots: int) -> int:
    return HEADER + (1 + slots) * ROWS * ROW + TABLES * SETS * WAYS + TRAIL_WORDS


def _write_header(words: memoryview[int], slots: int) -> None:
    words[SLOTS], words[BEGAN] = slots, time.time_ns()
    words[KEY], words[KEY + 1] = secrets.randbits(63), secrets.randbits(63)

"""Which prompts are nearly the same: MinHash signatures, banded, then the sets themselves.

Broder, "On the resemblance and containment of documents" (1997), banded for look-up (Leskovec, Rajaraman and Ullman,
"Mining of Massive Datasets", ch. 3.4). Traffic of one application shares a template, often longer than what varies, so
plain similarity would call every prompt of it a copy of every other. Shingles that more than 10 prompts and 5% of
them all share, or of those that begin or end alike, are therefore left out before two prompts are compared.

Prompts are given in the order in which they are to be preferred; sketches wait in a file and are read in pieces.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from distiller.data.shingles import ASKED, U32, U64, WHOLE, Sketch, limit, mixed, resemblance

FEWEST = 8
"""Below this many telling shingles only equal texts count as copies."""
EDGE_CHARS = 32
"""Prompts whose first or last so many characters are the same may be one application's."""
COMMON_MIN, COMMON_SHARE = 10, 0.05
BANDS, BAND_ROWS = 20, 4
"""At a similarity of 0.8 all but 3 pairs of 100,000 share a band; at 0.3, 15 of 100 are looked at for nothing."""

_SAMPLE = 2000
_AT_ONCE = 256
_A, _B = np.random.default_rng(1997).integers(0, 1 << 32, (2, BANDS * BAND_ROWS), dtype=np.uint32)
_A |= np.uint32(1)

Step = Callable[[int, int], None]
"""Is told how many of how many are done."""
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


class SketchFile:
    """Sketches on disk, by number. A context manager, which removes the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w+b", buffering=1 << 20)
        self._sizes: list[NDArray[np.uint16]] = []
        self._at: Ints = np.zeros(1, np.int64)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        self._path.unlink()

    def add(self, batch: list[Sketch]) -> None:
        self._sizes.append(np.array([[len(s.whole), len(s.asked)] for s in batch], np.uint16).reshape(-1, 2))
        for sketch in batch:
            self._file.write(sketch.whole.tobytes())
            self._file.write(sketch.asked.tobytes())

    def finish(self) -> None:
        """Call once, after the last ``add`` and before the first ``read``."""
        self._file.flush()
        sizes = np.concatenate(self._sizes) if self._sizes else np.zeros((0, 2), np.uint16)
        self._sizes = [sizes]
        self._at = np.concatenate(([0], np.cumsum(sizes.sum(axis=1, dtype=np.int64))))

    def read(self, number: int) -> Sketch:
        first, last = int(self._at[number]), int(self._at[number + 1])
        both = np.frombuffer(os.pread(self._file.fileno(), 4 * (last - first), 4 * first), np.uint32)
        whole = int(self._sizes[0][number, 0])
        return Sketch(both[:whole], both[whole:])


@dataclass(frozen=True, slots=True)
class Copies:
    """``leaks``: this prompt is nearly one of the kept ones. ``group``: the first prompt that this one is, through
    others or not, nearly a copy of; its own number where it is a copy of none. Both by prompt's place."""

    leaks: Bools
    group: Ints


@dataclass(frozen=True, slots=True)
class Prompts:
    """What is compared. ``sketch``: each prompt's number in ``file``; ``head`` and ``tail``: digests of its first and
    last characters; ``numbers``: a digest of the numbers it asks about. uint64, (n,). The first ``kept`` are those
    that no other may be like."""

    file: SketchFile
    sketch: Ints
    head: U64
    tail: U64
    numbers: U64
    kept: int


def find_copies(prompts: Prompts, frames: Frames, similarity: float, tell: Step = lambda done, of: None) -> Copies:
    """Prompts at least ``similarity`` alike, by Jaccard similarity of what tells them apart.

    Two that are not kept are copies only where all of their text is as alike as what tells it apart, and their last
    user turns too, and both ask about the same numbers: else they are two turns of a conversation, one message in two
    applications, or one sum with other figures.
    """
    frames = Frames(prompts)
    bands, n = _bands(len(prompts.sketch), frames, tell), len(prompts.sketch)
    found = Copies(np.zeros(n, np.bool_), np.arange(n))
    for band in bands.T:
        pairs = _pairs(band, prompts.kept)
        pairs = pairs[_open(pairs, found, prompts)]
        for first in range(0, len(pairs), _AT_ONCE):
            _settle(pairs[first : first + _AT_ONCE], found, prompts, frames, similarity)
    for place in range(n):
        found.group[place] = _root(found.group, place)
    return found


class Frames:
    """What prompts share that does not tell them apart: all of them, and those that begin or end alike."""

    def __init__(self, prompts: Prompts) -> None:
        self._prompts = prompts
        n = len(prompts.sketch)
        found = [self._common(np.arange(n), 0)]
        self._group: list[U64] = []
        number = 1
        for key in (prompts.head, prompts.tail):
            members, starts, sizes = _grouped(key)
            mine = np.zeros(n, np.uint64)
            for start, size in zip(starts, sizes, strict=True):
                if size > COMMON_MIN:
                    own = members[start : start + size]
                    mine[own] = number
                    found.append(self._common(own, number))
                    number += 1
            self._group.append(mine)
        self._known: U64 = np.concatenate(found)  # sorted: groups ascend, and shingles within each

    def _common(self, members: Ints, number: int) -> U64:
        """Shingles of more than the limit of these prompts, or of an even sample, each with the group's number."""
        if len(members) > _SAMPLE:
            members = members[np.linspace(0, len(members) - 1, _SAMPLE).astype(np.int64)]
        file, at = self._prompts.file, self._prompts.sketch
        if not len(members):
            return np.zeros(0, np.uint64)
        shingles, times = np.unique(np.concatenate([file.read(at[i]).whole for i in members]), return_counts=True)
        common = shingles[times > max(COMMON_MIN, COMMON_SHARE * len(members))]
        return (np.uint64(number) << np.uint64(32)) | common.astype(np.uint64)

    def uncommon(self, shingles: U32) -> U32:
        """Those that not all prompts share."""
        if not len(self._known):
            return shingles
        return shingles[~_in(self._known, shingles.astype(np.uint64))]

    def telling(self, places: Ints) -> list[Sketch]:
        """The prompts' sketches with, as ``whole``, only what tells them apart; limits are ``limit``'s of all."""
        sketches = [self._prompts.file.read(at) for at in self._prompts.sketch[places]]
        sizes = np.array([len(s.whole) for s in sketches], np.int64)
        if not sizes.sum() or not len(self._known):
            return sketches
        every = np.concatenate([s.whole for s in sketches]).astype(np.uint64)
        common = _in(self._known, every)
        for group in self._group:
            owner = np.repeat(group[places], sizes)
            grouped = owner > 0
            common[grouped] |= _in(self._known, (owner[grouped] << np.uint64(32)) | every[grouped])
        ends = np.cumsum(sizes)
        return [
            Sketch(s.whole[~common[end - size : end]], s.asked)
            for s, size, end in zip(sketches, sizes, ends, strict=True)
        ]


def _in(known: U64, values: U64) -> Bools:
    at = np.searchsorted(known, values)
    at[at == len(known)] = 0
    found: Bools = known[at] == values
    return found


def _grouped(keys: U64) -> tuple[Ints, Ints, Ints]:
    """(places in the order of their keys, where each key's begin, how many there are)."""
    order = np.argsort(keys, kind="stable")
    _, starts, sizes = np.unique(keys[order], return_index=True, return_counts=True)
    return order, starts, sizes


def _bands(n: int, frames: Frames, tell: Step) -> NDArray[np.uint32]:
    """Each prompt's band keys: uint32, (n, BANDS); 0 in all where too little tells it apart."""
    keys = np.zeros((n, BANDS), np.uint32)
    for first in range(0, n, _AT_ONCE):
        places = np.arange(first, min(first + _AT_ONCE, n))
        sets = [s.whole for s in frames.telling(places)]
        enough = np.array([len(s) >= FEWEST for s in sets])
        if enough.any():
            keys[places[enough]] = _keys([s for s, e in zip(sets, enough, strict=True) if e])
        tell(int(places[-1]) + 1, n)
    return keys


def _keys(sets: list[U32]) -> NDArray[np.uint32]:
    """Band keys of non-empty sets: the smallest value of each hash function, ``BAND_ROWS`` of them in a key."""
    values = np.concatenate(sets)
    starts = np.concatenate(([0], np.cumsum([len(s) for s in sets])[:-1]))
    keys = np.zeros((len(sets), BANDS), np.uint32)
    for i, (a, b) in enumerate(zip(_A, _B, strict=True)):
        least = np.minimum.reduceat(values * a + b, starts)
        band = i // BAND_ROWS
        keys[:, band] = mixed(keys[:, band] * np.uint32(31) + least)
    keys[keys == 0] = 1
    return keys


def _pairs(band: NDArray[np.uint32], kept: int) -> Ints:
    """Pairs of places that share a key, smaller first: int64, (pairs, 2). Of many that share one, each with the first,
    with the last that is kept, and with its neighbour: those that are alike meet in other bands too."""
    order = np.argsort(band, kind="stable")  # within a key places ascend
    order = order[np.searchsorted(band[order], 1) :]
    keys = band[order]
    if len(order) < 2:
        return np.zeros((0, 2), np.int64)
    new = np.concatenate(([True], keys[1:] != keys[:-1]))
    starts = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
    last_kept = np.where(order < kept, np.arange(len(order)), starts)
    last_kept = np.maximum(np.maximum.accumulate(last_kept), starts)
    before = np.maximum(np.arange(len(order)) - 1, starts)
    firsts = np.concatenate([order[starts], order[last_kept], order[before]])
    pairs = np.stack([firsts, np.tile(order, 3)], axis=1)
    found: Ints = np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)
    return found


def _open(pairs: Ints, found: Copies, prompts: Prompts) -> Bools:
    """Which pairs are still to be looked at."""
    one, other = pairs[:, 0], pairs[:, 1]
    leaks, group = found.leaks, found.group
    against_kept = (one < prompts.kept) & (other >= prompts.kept)
    apart = (one >= prompts.kept) & (group[one] != group[other]) & (prompts.numbers[one] == prompts.numbers[other])
    return np.where(against_kept, ~leaks[other], apart & ~leaks[one] & ~leaks[other])


def _settle(pairs: Ints, found: Copies, prompts: Prompts, frames: Frames, similarity: float) -> None:
    """Looks at the sets of each pair, and notes in ``found`` those that are copies."""
    places, at = np.unique(pairs, return_inverse=True)
    telling = frames.telling(places)
    whole = [prompts.file.read(number) for number in prompts.sketch[places]]
    for (one, other), (i, j) in zip(pairs, at.reshape(-1, 2), strict=True):
        upto = min(limit(whole[i].whole, WHOLE), limit(whole[j].whole, WHOLE))
        if resemblance(telling[i].whole, telling[j].whole, upto) < similarity:
            continue
        if one < prompts.kept:
            found.leaks[other] = True
            continue
        asked = min(limit(whole[i].asked, ASKED), limit(whole[j].asked, ASKED))
        if (
            resemblance(whole[i].asked, whole[j].asked, asked) >= similarity
            and resemblance(whole[i].whole, whole[j].whole, upto) >= similarity
        ):
            a, b = _root(found.group, one), _root(found.group, other)
            found.group[max(a, b)] = min(a, b)


def _root(group: Ints, place: Any) -> int:
    """The first of the group; the way there is halved for who comes next (Tarjan and van Leeuwen, 1984)."""
    while group[place] != place:
        group[place] = group[group[place]]
        place = group[place]
    return int(place)

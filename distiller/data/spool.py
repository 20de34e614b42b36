"""Rows that wait on disk while it is decided which of them a dataset has; in memory a hundred bytes of each."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from distiller.data.copies import EDGE_CHARS, SketchFile
from distiller.data.rows import DatasetRow, Skip
from distiller.data.shingles import digest, normalise, numbers, sketches

SLIP = np.dtype(
    [
        ("at", "f8"), ("request", "u8"), ("offset", "i8"), ("length", "u4"), ("sketch", "i8"),
        ("prompt", "u8"), ("asked", "u8"), ("numbers", "u8"), ("head", "u8"), ("tail", "u8"),
        ("conversation", "u8"), ("user", "u8"), ("owner", "u8"), ("source", "u4"),
        ("fault", "u1"), ("student_ok", "i1"), ("trainable", "?"), ("audited", "?"), ("synthetic", "?"),
    ]
)  # fmt: skip
"""A slip: what is kept in memory of a row. Digests are of normalised texts; ``user`` (of its
key: two keys' users are two) and ``owner`` are 0 where there is none;
``source`` is a number of ``Spool.sources``; ``fault`` is its reason's ``code``; ``student_ok`` is -1 where it is not
known."""

Slips = NDArray[np.void]
REASONS = tuple(Skip)
_BATCH = 256


def code(reason: Skip | None) -> int:
    """The reason as a number that a slip can hold."""
    return 0 if reason is None else REASONS.index(reason) + 1


class Spool:
    """A context manager, which removes its files. ``sources`` are the teachers with their rights and sources, by
    number."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "spool.jsonl"
        self._file = self._path.open("w+b", buffering=1 << 20)
        self.sketches = SketchFile(folder / "spool.sketches")
        self.sources: dict[tuple[str, str, str], int] = {}
        self._at = 0
        self._waiting: list[tuple[DatasetRow, Skip | None, bool]] = []
        self._slips: list[Slips] = []
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        self._path.unlink()
        self.sketches.__exit__(kind, e, at)

    def add(self, row: DatasetRow, fault: Skip | None, audited: bool) -> None:
        self._waiting.append((row, fault, audited))
        if len(self._waiting) == _BATCH:
            self._write()

    def finish(self) -> Slips:
        """All slips, oldest first. Call it once, after the last ``add`` and before the first ``row``."""
        self._write()
        self._file.flush()
        self.sketches.finish()
        slips = np.concatenate(self._slips) if self._slips else np.zeros(0, SLIP)
        self._slips = []
        return slips[np.lexsort((slips["request"], slips["at"]))]

    def row(self, slip: np.void) -> DatasetRow:
        return DatasetRow.from_json(os.pread(self._file.fileno(), int(slip["length"]), int(slip["offset"])))

    def _write(self) -> None:
        turns = [tuple(map(normalise, row.turns)) for row, _, _ in self._waiting]
        self.sketches.add(sketches([(before, asked) for before, asked in turns]))
        slips = np.zeros(len(turns), SLIP)
        for i, ((row, fault, audited), (before, asked)) in enumerate(zip(self._waiting, turns, strict=True)):
            line = row.to_json()
            self._file.write(line)
            whole = f"{before} {asked}" if before else asked
            slips[i] = (
                row.created_at, digest(row.request_id), self._at, len(line), self._count + i,
                digest(whole), digest(asked), digest(numbers(asked)),
                *(crc32(edge.encode("utf-8", "replace")) for edge in (whole[:EDGE_CHARS], whole[-EDGE_CHARS:])),
                digest(row.conversation_id),
                digest(f"{row.owner or ''}/{row.user}") if row.user else 0, digest(row.owner) if row.owner else 0,
                self.sources.setdefault((row.teacher, row.rights, row.source), len(self.sources)),
                code(fault), -1 if row.student_ok is None else int(row.student_ok),
                row.trainable, audited, row.synthetic,
            )  # fmt: skip
            self._at += len(line)
        self._slips.append(slips)
        self._count += len(turns)
        self._waiting = []


def fractions(keys: NDArray[np.uint64]) -> NDArray[np.float64]:
    """A uniform number in [0, 1) of each hash."""
    found: NDArray[np.float64] = keys / 2.0**64
    return found

"""What waits to be written, bounded in number and in bytes; and the count of what was lost or left out."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson

from router.contracts.records import Answer, Audit, Record, ReductionReason
from router.store.repair import reduced, reduced_audit

ODD_BYTES = 2**20
"""What is reckoned for what no JSON can hold."""
TOLD_BYTES = 4096
"""What a token takes with the likeliest ones in its place, as they were told."""


class Drop(StrEnum):
    """Why a record, or what came to one later, was lost. A closed set: it is a metric label.

    ``gone``: it was written to a file that was deleted or replaced under the proxy. ``unwritten``: the disk did not
    take it before the proxy ended.
    """

    QUEUE_FULL = "queue_full"
    UNWRITTEN = "unwritten"
    UNFIT = "unfit"
    TWICE = "twice"
    GONE = "gone"


@dataclass(slots=True)
class Losses:
    """Counts, each cause from 0 on. ``unspelled``: answers without what was told of their tokens."""

    drops: Counter[Drop] = field(default_factory=lambda: Counter(dict.fromkeys(Drop, 0)))
    reduced: Counter[ReductionReason] = field(default_factory=lambda: Counter(dict.fromkeys(ReductionReason, 0)))
    unspelled: int = 0

    def add(self, other: Losses) -> None:
        self.drops.update(other.drops)
        self.reduced.update(other.reduced)
        self.unspelled += other.unspelled


@dataclass(frozen=True, slots=True)
class Amendment:
    """What became known of a record later: an audit's outcome, or else feedback."""

    request_id: str
    kind: str
    created_at: float
    audit: Audit | None = None
    feedback: float | None = None


Item = Record | Amendment | Future[None]


class WaitingRecords:
    """A queue that any thread adds to and one takes from: first ``first``, then ``release`` once it is written.

    ``most``: items; one more is lost. ``most_bytes``: of texts; what goes beyond keeps its money and decision alone.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._items: deque[tuple[Item, int]] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self._losses = Losses()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def losses(self) -> Losses:
        return self._losses

    def put(self, item: Record | Amendment) -> bool:
        """Whether there was room for it."""
        size = _size(item)
        with self._lock:
            if len(self._items) >= self._most:
                self._losses.drops[Drop.QUEUE_FULL] += 1
                return False
            if self._bytes + size > self._most_bytes and self._bytes:
                item, size = _small(item), 0
                self._losses.reduced[ReductionReason.ROOM] += 1
            self._bytes += size
            self._items.append((item, size))
            return True

    def mark(self, flush: Future[None]) -> None:
        """Puts the end of a flush behind all that waits, whatever the bounds."""
        self._items.append((flush, 0))

    def first(self, most: int) -> list[Item]:
        """The first items, which go on waiting. Like ``release``, for one thread alone."""
        return [self._items[n][0] for n in range(min(most, len(self._items)))]

    def release(self, count: int) -> None:
        freed = sum(self._items.popleft()[1] for _ in range(count))
        with self._lock:
            self._bytes -= freed

    def flushes(self) -> Iterator[Future[None]]:
        """The ends of flushes that wait."""
        return (item for item in self.first(len(self)) if isinstance(item, Future))

    def count(self, losses: Losses) -> None:
        with self._lock:  # appenders may be several threads
            self._losses.add(losses)

    def lose(self, cause: Drop, count: int) -> None:
        self.count(Losses(drops=Counter({cause: count})))


def _size(item: Record | Amendment) -> int:
    """About how many bytes its texts take: writing them is five times quicker than walking them."""
    if isinstance(item, Record):
        return _bytes(item.request) + sum(map(_answer_size, item.answers))
    return _answer_size(item.audit.answer) if item.audit and item.audit.answer else 0


def _answer_size(answer: Answer) -> int:
    told = answer.top_logprobs
    return _bytes(answer.message) + (len(told) * (1 if isinstance(told, str) else TOLD_BYTES) if told else 0)


def _bytes(text: Any) -> int:
    try:
        return len(orjson.dumps(text))
    except (TypeError, ValueError, RecursionError):
        return ODD_BYTES


def _small(item: Record | Amendment) -> Record | Amendment:
    if isinstance(item, Record):
        return reduced(item, ReductionReason.ROOM)
    audit = reduced_audit(item.audit) if item.audit else None
    return Amendment(item.request_id, item.kind, item.created_at, audit, item.feedback)


def resolve(flush: Future[None]) -> None:
    """Ends a flush, unless it was cancelled or ended before."""
    if not flush.done() and flush.set_running_or_notify_cancel():
        flush.set_result(None)

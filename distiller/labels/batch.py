"""The label teacher's calls by batches: one file up, a wait, one file down.

A killed run finds its batch again, and pays for none twice.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from distiller.labels.calls import CallFailures, LabelCall, Told
from distiller.labels.filters import LabelFault
from distiller.payments import FORGOTTEN, Journal, PendingBatch, Purse, bounded, most_usd
from router.backends.base import Backend
from router.backends.batches import (
    MISSING,
    MOST_BYTES,
    MOST_REQUESTS,
    TIER,
    BatchAnswer,
    BatchState,
    BatchWire,
    answers,
    request_line,
)
from router.errors import UpstreamError, UpstreamRefused, UpstreamUnusable

POLL_SECONDS = (0.0, 1.0, 2.0, 5.0, 15.0, 30.0, 60.0)
"""Between looks at a batch; the last one again and again."""
LONGEST_SECONDS = 25 * 3600.0
"""After which a batch is cancelled: the day that it may take, and an hour."""
CANCEL_SECONDS = 900.0
"""How long a cancelled one may take to end."""
LEAST_REQUESTS = 50
"""Where a provider has room for fewer than so many at once, it has none."""
NO_ROOM = frozenset({"token_limit_exceeded", "rate_limit_exceeded", "batch_limit_exceeded"})


@dataclass(slots=True)
class BatchedCalls:
    """One run's. ``folder`` is for the files on their way; ``faults`` says what became of calls without an answer."""

    wire: BatchWire
    backend: Backend
    purse: Purse
    journal: Journal
    folder: Path
    told: Told
    longest_seconds: float = LONGEST_SECONDS
    faults: dict[str, LabelFault] = field(default_factory=dict)

    async def ask(self, calls: Sequence[LabelCall]) -> CallFailures:
        """Takes in what earlier runs left under way, then has the rest answered, batch after batch.

        Raises:
            BatchesMissing: the server has none.
        """
        stopped = ""
        try:
            for left in list(self.journal.batches.values()):
                if left.backend == self.backend.name:
                    await self._resume(left)
            stopped = await self._all([c for c in calls if self._is_open(c)])
        except (UpstreamError, UpstreamRefused) as e:
            stopped = str(e)
        return CallFailures(stopped, self.faults)

    def _is_open(self, call: LabelCall) -> bool:
        if call.name in self.journal.lost:
            self.faults[call.name] = LabelFault.LOST
        return self.journal.known(call.name) is None and call.name not in self.faults

    async def _all(self, calls: Sequence[LabelCall]) -> str:
        """Why it ended before all were asked, "" where it did not."""
        queue, most = deque(calls), MOST_REQUESTS
        while queue:
            batch, lines, taken = (
                PendingBatch(uuid.uuid4().hex, self.backend.name, {}),
                self.folder / "batch.jsonl",
                list[LabelCall](),
            )
            await self._filled(batch, lines, queue, taken, most)
            if not taken:
                return "the budget is spent"
            ended = await self._handed_over(batch, lines, {c.name: c.row.request_id for c in taken})
            if ended.code in NO_ROOM and len(taken) > LEAST_REQUESTS:
                most = max(LEAST_REQUESTS, len(taken) // 2)
                queue.extendleft(reversed(taken))
                for call in taken:
                    del self.faults[call.name]
            elif ended.status == "failed":
                return f"{self.backend.label} failed a batch: {ended.why or ended.code or 'it does not say why'}"
            elif ended.status != "completed":
                return f"a batch of {self.backend.label} {ended.status} before all was answered"
        return ""

    async def _filled(
        self, batch: PendingBatch, lines: Path, queue: deque[LabelCall], taken: list[LabelCall], most: int
    ) -> None:
        """As many of the queue as one batch holds and the budget has room for, each held for."""
        assert self.backend.price is not None
        size = 0
        with lines.open("wb") as file:
            while queue and len(taken) < most:
                call = queue[0]
                body, room = bounded(self.backend, call.body, call.room_tokens)
                line = request_line(call.name, self.backend, body)
                if taken and size + len(line) > MOST_BYTES:
                    return
                held = most_usd(body, room, self.backend.price, TIER)
                if held > self.purse.room:
                    return
                await self.purse.hold(held)
                file.write(line)
                size += len(line)
                batch.held[call.name] = held
                taken.append(queue.popleft())

    async def _handed_over(self, batch: PendingBatch, lines: Path, of: dict[str, str]) -> BatchState:
        held = sum(batch.held.values(), Decimal(0))
        try:
            file = await self.wire.upload(self.backend, await asyncio.to_thread(_taken, lines))
        except BaseException:
            await self.purse.settle(held, Decimal(0))
            raise
        self.journal.batch_begins(batch, of)
        await self.purse.settle(held, held)  # whatever it will have cost is told once it is over
        made = await self._made(batch, file)
        self.journal.batch_made(batch, made.batch_id)
        return await self._over(batch, made)

    async def _made(self, batch: PendingBatch, file: str) -> BatchState:
        try:
            return await self.wire.make(self.backend, file, batch.name)
        except UpstreamRefused:
            await self._closed(batch)
            raise
        except UpstreamError:  # it may have been made all the same
            if (found := await self.wire.find(self.backend, batch.name)) is not None:
                return found
            await self._closed(batch)
            raise

    async def _resume(self, batch: PendingBatch) -> None:
        """What a killed run had handed over, or was about to."""
        if batch.batch_id is None:
            found = await self.wire.find(self.backend, batch.name)
            if found is None:
                await self._closed(batch)
                return
            self.journal.batch_made(batch, found.batch_id)
        else:
            try:
                found = await self.wire.look(self.backend, batch.batch_id)
            except UpstreamUnusable as e:
                if e.status in MISSING:
                    self._gave_up(batch)
                    return
                raise
        await self._over(batch, found)

    async def _over(self, batch: PendingBatch, found: BatchState) -> BatchState:
        """Waits for the batch's end, and takes in what came of it."""
        begun, looks, cancelled = time.monotonic(), 0, False
        while not found.is_over:
            self.told(found.done, len(batch.held))
            late = time.monotonic() - begun - self.longest_seconds
            if late > 0 and not cancelled:
                await self.wire.cancel(self.backend, found.batch_id)
                cancelled = True
            elif late > CANCEL_SECONDS:
                raise UpstreamError(f"a batch of {self.backend.label} does not end; it is looked at in the next round")
            await asyncio.sleep(min(POLL_SECONDS[min(looks, len(POLL_SECONDS) - 1)], max(0.05, self.longest_seconds)))
            looks += 1
            found = await self._looked(found)
        for file in found.files:
            answered = self.folder / "answers.jsonl"
            await self.wire.download(self.backend, file, answered)
            for one in answers(self.backend, answered):
                await self._take(batch, one)
            answered.unlink()
        for call in batch.held:
            self.faults.setdefault(call, LabelFault.FAILED if found.status == "failed" else LabelFault.EXPIRED)
        await self._closed(batch)
        return found

    async def _looked(self, before: BatchState) -> BatchState:
        """How it stands; as before where the provider does not say just now: a day is long."""
        try:
            return await self.wire.look(self.backend, before.batch_id)
        except UpstreamError as e:
            if not e.passing:
                raise
            return before

    async def _take(self, batch: PendingBatch, one: BatchAnswer) -> None:
        held = batch.held.pop(one.call, None)
        if held is None and self.journal.known(one.call) is not None:
            return  # told twice, or taken in before a kill
        most = held or Decimal(0)
        if one.found is None:
            self.faults[one.call] = _fault(one)
            spent = most if one.paid else Decimal(0)
            self.journal.failed(one.call, spent)
        else:
            spent = most if one.found.usd is None else one.found.usd
            if held is None:
                self.journal.failed(FORGOTTEN, spent)
            else:
                self.journal.ended(one.call, one.found, spent)
        await self.purse.settle(Decimal(0), spent - most)

    def _gave_up(self, batch: PendingBatch) -> None:
        """The provider knows of it no more; nobody knows whether it was paid, so it counts as if it were."""
        for call, usd in batch.held.items():
            self.journal.failed(call, usd)
            self.faults[call] = LabelFault.LOST
        batch.held.clear()
        self.journal.batch_over(batch)

    async def _closed(self, batch: PendingBatch) -> None:
        """Nothing more comes of it, and what it still holds was not paid."""
        await self.purse.settle(Decimal(0), -sum(batch.held.values(), Decimal(0)))
        self.journal.batch_over(batch)


def _taken(lines: Path) -> bytes:
    """What is in the file, which goes: it holds what users wrote."""
    content = lines.read_bytes()
    lines.unlink()
    return content


def _fault(one: BatchAnswer) -> LabelFault:
    match one.status:
        case None:
            return LabelFault.EXPIRED
        case 429:
            return LabelFault.LIMITED
        case 408 | 504:
            return LabelFault.STALLED
        case status if 400 <= status < 500:
            return LabelFault.TURNED_AWAY
        case _:
            return LabelFault.FAILED

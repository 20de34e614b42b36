"""Continuous batching: every step decodes one token for all rows, and rows join and leave between steps.

The scheme is iteration-level scheduling (Orca, Yu et al., OSDI 2022) with packed prefill. One thread runs
torch for all versions; everybody else talks to it through ``submit``, ``add`` and ``remove``.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import accumulate

import structlog

from router.engine import cpu
from router.engine.generation import BatchRow, Delta, Job
from router.engine.kv import Slots
from router.engine.model import Model
from router.engine.prefixes import Match, Prefixes
from router.engine.sampler import generator_for, pick
from router.engine.text import Detokenizer, StopScanner
from router.errors import NotFound

log = structlog.get_logger(__name__)

MAX_ROWS = 32
#: Tokens that one prefill packs at most. Its attention costs the square of them: at 512 a third of all time, at
#: 128 the padding and the many small products cost as much.
PACK_TOKENS = 256
#: Tokens prefilled between two decoding steps, so that running answers do not stall behind new ones.
ADMIT_TOKENS = 1024
#: Slots' memory: rows times the longest row's prompt and answer.
KV_BYTES = 2 << 30
PREFIX_TOKENS = 4096
#: How long a job that yields is passed over at most: kept longer, an audit would time out, and a student that
#: is only busy would count as broken.
PATIENCE_SECONDS = 10.0


class Batch:
    """One version's running rows and those that wait, ``yielding`` behind ``waiting``. Used on the torch thread
    alone, but for these two."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.waiting: deque[BatchRow] = deque()
        self.yielding: deque[BatchRow] = deque()
        self.rows: list[BatchRow] = []
        self._slots = Slots(model.shape)
        self._prefixes = Prefixes(min(PREFIX_TOKENS, model.context))
        self._most_tokens = KV_BYTES // model.shape.bytes_per_token

    @property
    def busy(self) -> bool:
        return bool(self.rows or self.waiting or self.yielding)

    def queue(self, row: BatchRow) -> None:
        (self.yielding if row.job.yields else self.waiting).append(row)

    def turn(self) -> None:
        """Admits what fits, then one token for everybody."""
        self._forget()
        for match, rows in self._admit():
            self._prefill(match, rows)
        self._forget()
        if self.rows:
            logits = self.model.step([row.last for row in self.rows], self._slots)
            for row, token in zip(self.rows, pick(logits, self.rows), strict=True):
                row.push(token, is_end=token.id in self.model.ends)

    def fail(self) -> None:
        """Ends every row with an error: whatever broke, those that come next start clean."""
        for row in self.rows:
            row.fail()
        while queue := self._next():
            queue.popleft().fail()
        self.rows, self._slots = [], Slots(self.model.shape)

    def _forget(self) -> None:
        """Drops rows that finished or whose client left; the last row moves up, as in ``Slots.drop``."""
        for i in reversed(range(len(self.rows))):
            if self.rows[i].finished or self.rows[i].cancelled:
                self._slots.drop(i)
                last = self.rows.pop()
                if i < len(self.rows):
                    self.rows[i] = last

    def _next(self) -> deque[BatchRow] | None:
        """The queue whose first row is next; None where both are empty."""
        late = time.monotonic() - PATIENCE_SECONDS
        overdue = self.yielding and self.yielding[0].since < late
        return self.yielding if overdue else self.waiting or self.yielding or None

    def _admit(self) -> list[tuple[Match, list[BatchRow]]]:
        """First come, first served, what yields last, as long as slots and this turn's tokens last; grouped by
        shared prefix."""
        groups: dict[tuple[int, ...], tuple[Match, list[BatchRow]]] = {}
        rows, tokens = len(self.rows), 0
        longest = max((_room(row) for row in self.rows), default=0)
        while rows < MAX_ROWS and tokens < ADMIT_TOKENS and (queue := self._next()):
            row = queue[0]
            longest = max(longest, _room(row))
            if rows and (rows + 1) * longest > self._most_tokens:
                break
            queue.popleft()
            if row.cancelled:
                continue
            match = self._prefixes.match(row.job.prompt)
            groups.setdefault(match.tokens, (match, []))[1].append(row)
            rows, tokens = rows + 1, tokens + len(row.job.prompt) - len(match.tokens)
        return [(match, part) for match, group in groups.values() for part in _packs(group, len(match.tokens))]

    def _prefill(self, match: Match, rows: list[BatchRow]) -> None:
        matched = len(match.tokens)
        own = [row.job.prompt[matched:] for row in rows]
        logits, packed = self.model.prefill(own, match.values)
        ends = list(accumulate(map(len, own)))
        for row, token, mine, end in zip(rows, pick(logits, rows), own, ends, strict=True):
            begin = end - len(mine)
            learn = self._prefixes.to_learn(row.job.prompt, matched)
            if learn:
                self._prefixes.keep(row.job.prompt[:learn], packed.head(begin, learn))
            row.push(token, is_end=token.id in self.model.ends)
            if not row.finished:
                self._slots.append(packed, begin, end)
                self.rows.append(row)


def _room(row: BatchRow) -> int:
    return len(row.job.prompt) + row.job.max_tokens


def _packs(rows: list[BatchRow], matched: int) -> list[list[BatchRow]]:
    """Splits a group so that no packed row is longer than it must be."""
    packs: list[list[BatchRow]] = [[]]
    size = 0
    for row in rows:
        length = len(row.job.prompt) - matched
        if packs[-1] and size + length > PACK_TOKENS:
            packs.append([])
            size = 0
        packs[-1].append(row)
        size += length
    return packs


class Scheduler:
    """Owns the torch thread and the batches of all versions."""

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or cpu.cores()
        self._batches: dict[str, Batch] = {}
        self._leaving: list[Batch] = []
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="torch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after the step it is in."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def versions(self) -> tuple[str, ...]:
        return tuple(self._batches)

    def model(self, version: str) -> Model:
        """Raises NotFound where the version is not loaded."""
        return self._batch(version).model

    def add(self, model: Model) -> None:
        """Serves a version from now on; one of the same name is replaced, its answers on their way finished."""
        with self._wake:
            if model.name in self._batches:
                self._leaving.append(self._batches[model.name])
            self._batches = {**self._batches, model.name: Batch(model)}

    def remove(self, version: str) -> None:
        """Takes no more jobs for a version; answers on their way are finished. Raises NotFound."""
        with self._wake:
            gone = self._batch(version)
            self._batches = {name: b for name, b in self._batches.items() if b is not gone}
            self._leaving.append(gone)

    def submit(self, version: str, job: Job, emit: Callable[[Delta], None]) -> BatchRow:
        """Queues a job; ``emit`` gets its deltas on the torch thread. Raises NotFound."""
        with self._wake:
            batch = self._batch(version)
            row = BatchRow(
                job,
                emit,
                Detokenizer(batch.model.decode),
                StopScanner(job.stops),
                generator_for(job.sampling, batch.model.shape.device),
            )
            batch.queue(row)
            self._wake.notify()
        return row

    def _batch(self, version: str) -> Batch:
        batch = self._batches.get(version)
        if batch is None:
            raise NotFound(f"the model {version!r} does not exist here", param="model")
        return batch

    def _busy(self) -> list[Batch]:
        self._leaving = [b for b in self._leaving if b.busy]
        return [b for b in [*self._batches.values(), *self._leaving] if b.busy]

    def _run(self) -> None:
        import torch

        torch.set_num_threads(self._threads)
        with torch.inference_mode():
            while True:
                with self._wake:
                    self._wake.wait_for(lambda: self._stopping or self._busy())
                    if self._stopping:
                        return
                    busy = self._busy()
                for batch in busy:
                    _turn(batch)


def _turn(batch: Batch) -> None:
    """The thread's top level: a step that breaks costs its own rows, never the engine."""
    try:
        batch.turn()
    except Exception:
        log.exception("step_broke", version=batch.model.name)
        batch.fail()

"""Files of logs into the home's records: each line is kept or counted with its reason, and a cut-off import goes on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from distiller.data.rights import Ledger, right_to
from distiller.history.records import record_of
from distiller.logs.calls import HalfCall, LoggedCall, SkipReason, Source
from distiller.logs.files import STDIN, Line, LogFile
from distiller.logs.reader import HalfCalls, calls_in
from distiller.progress import Progress
from router.contracts.records import Record
from router.errors import DatasetError
from router.policy.policy import Policy
from router.settings import Settings
from router.store.imports import ADDED, KNOWN, ImportJournal, ImportStore

RECORDS_AT_ONCE, LINES_AT_ONCE = 256, 4096
BYTES_AT_ONCE = 16 * 2**20
"""Of records, lines and the file between two commits: a proxy that writes beside it waits for one at most."""
MEGA = 10**6
LINES = "lines"


@dataclass(slots=True)
class ImportSummary:
    """What became of the lines of all files. ``earlier`` of the calls kept were so by an import before, which this one
    went on with; ``ledger`` says by which right what is new may be trained on, ``changed`` what redaction changed."""

    counts: Counter[str] = field(default_factory=Counter)
    earlier: int = 0
    pruned: int = 0
    ledger: Ledger = field(default_factory=Ledger)


class LogImport:
    """One import into a policy's history. ``dry_run``: everything but writing it."""

    def __init__(
        self, policy: Policy, settings: Settings, tell: Progress, only: Source | None = None, *, dry_run: bool = False
    ) -> None:
        self._policy, self._settings, self._tell, self._only = policy, settings, tell, only
        self._halves = HalfCalls()
        self._target: ImportStore | _Nowhere = _Nowhere()
        self._dry_run = dry_run
        self.summary = ImportSummary()

    def run(self, files: Sequence[Path]) -> ImportSummary:
        """Raises DatasetError where a file cannot be read, StoreError where the records cannot be written."""
        with closing(self._halves):
            if self._dry_run:
                self._all(files)
            else:
                with ImportStore(self._settings.records_db, self._policy) as store:
                    self._target = store
                    self.summary.pruned = store.prune()
                    self._all(files)
            self.summary.counts.update({why.value: times for why, times in self._halves.left().items()})
        return self.summary

    def _all(self, files: Sequence[Path]) -> None:
        for path in files:
            self._tell.stage("importing", str(path))
            journal = self._file(path, go_on=True) or self._file(path, go_on=False)
            if journal is not None:
                self.summary.counts.update(journal.counts)

    def _file(self, path: Path, *, go_on: bool) -> ImportJournal | None:
        """The journal at the file's end; None where it began as one that is known, and then went on otherwise."""
        with closing(LogFile(path)) as file:
            known = self._target.journal(file.head) if go_on else None
            if known is None and not go_on and path == STDIN:
                raise DatasetError("what came by standard input began as an earlier log did, and then differed")
            journal = known or ImportJournal(file.head, at=time.time())
            batch, is_same = _Batch(), not journal.bytes
            for line, before in _placed(file, journal.bytes):
                is_same = is_same or (line.end == journal.bytes and file.digest == journal.digest)
                if not before and not is_same:
                    return None
                for found in calls_in(line.content, self._only):
                    self._take(found, batch, again=before)
                if before:
                    continue
                batch.counts[LINES] += 1
                batch.bytes += line.end - (batch.end or journal.bytes)
                batch.end, batch.digest = line.end, file.digest
                if batch.is_full:
                    journal, batch = self._commit(batch, journal), _Batch()
                    kept = journal.counts.get(ADDED, 0)
                    self._tell.step(file.done // MEGA, file.size // MEGA, f"MB, {kept:,} calls kept")
            if not is_same:
                return None
            self.summary.earlier += known.counts.get(ADDED, 0) if known else 0
            return self._commit(batch, journal) if batch.end or batch.again else journal

    def _take(self, found: LoggedCall | HalfCall | SkipReason, batch: _Batch, *, again: bool) -> None:
        """``again``: it was settled by an earlier import, but for halves of calls."""
        if again and not isinstance(found, HalfCall):
            return
        joined = self._halves.joined(found)
        if isinstance(joined, LoggedCall):
            (batch.again if again else batch.records).append(record_of(joined, self._policy, time.time()))
        elif isinstance(joined, SkipReason) and not again:
            batch.counts[joined.value] += 1

    def _commit(self, batch: _Batch, journal: ImportJournal) -> ImportJournal:
        counts = Counter(journal.counts)
        counts.update(batch.counts)
        at = batch.end or journal.bytes
        before = replace(journal, bytes=at, digest=batch.digest or journal.digest, counts=counts)
        after = self._target.commit(batch.records, batch.again, before)
        for record in batch.records:
            answer = record.answers[0]
            if right := right_to(answer, self._policy):
                self.summary.ledger.use(answer.model, right)
            else:
                self.summary.ledger.refuse(answer)
        return after


@dataclass(slots=True)
class _Batch:
    """What waits for a commit; ``end`` and ``digest`` are those behind its last line."""

    records: list[Record] = field(default_factory=list)
    again: list[Record] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    end: int = 0
    bytes: int = 0
    digest: str = ""

    @property
    def is_full(self) -> bool:
        many = len(self.records) >= RECORDS_AT_ONCE or self.counts[LINES] >= LINES_AT_ONCE
        return many or self.bytes >= BYTES_AT_ONCE


def _placed(file: LogFile, known: int) -> Iterator[tuple[Line, bool]]:
    """Each line, and whether it lies among the first ``known`` bytes."""
    for line in file.lines():
        yield line, line.end <= known


class _Nowhere:
    """In the store's place, where nothing is to be written: it knows what it was shown."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def journal(self, head: str) -> ImportJournal | None:
        return None

    def commit(self, records: Sequence[Record], again: Sequence[Record], journal: ImportJournal) -> ImportJournal:
        counts = Counter(journal.counts)
        for record in records:
            key = hash(record.request_id)
            counts[KNOWN if key in self._seen else ADDED] += 1
            self._seen.add(key)
        return replace(journal, counts=dict(counts))

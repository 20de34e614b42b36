"""What a store of records does, whatever it keeps them in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import structlog

from router.contracts.records import Audit, Record, ReductionReason
from router.policy.policy import Policy
from router.store.damage import UnreadRows
from router.store.queue import Drop
from router.store.tables import FIRST_IMPORTED

log = structlog.get_logger(__name__)


class ScoredRecord(NamedTuple):
    """Of one record that tells of the traffic (``Record.is_traffic``) what the live scorer said; None where none was
    fitted. ``at`` is unix time."""

    seq: int
    request_id: str
    at: float
    bundle: str | None
    score: float | None
    novelty: float | None


class Traces(NamedTuple):
    """What there is of a user or of a conversation: records by id, and conversations that are nobody else's.
    ``names``: by which records call them."""

    request_ids: tuple[str, ...] = ()
    conversations: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()


class Records(Protocol):
    """The reading side; safe beside any number of writers, in this process or another. A row that cannot be read
    hides no other: it is passed over, and ``unread`` tells of it."""

    @property
    def unread(self) -> UnreadRows: ...

    def records(
        self, policy: str | None = None, after: int = 0, since: float = 0.0, *, embeddings: bool = False
    ) -> Iterator[tuple[int, Record]]:
        """Yields ``(seq, record)`` in the order written, audits and feedback joined in.

        ``after`` is the last ``seq`` already seen, ``since`` a unix time. ``seq`` only ever grows. ``embeddings``: with
        those of embeddings, which only who counts money needs.
        """
        ...

    def history(self, policy: str, after: int = FIRST_IMPORTED) -> Iterator[tuple[int, Record]]:
        """Yields ``(seq, record)`` of what was imported, in the order written. Every ``seq`` of theirs is below 0, and
        ``records`` has none of them: they may be learnt from, and tell nothing else."""
        ...

    def audits(self, policy: str, after: int = 0, since: float = 0.0) -> Iterator[tuple[int, Record]]:
        """Yields ``(id, record)`` for each audit's outcome, missed ones included, in the order these were written,
        which need not be the requests'. What followed an audit, such as feedback, is not joined in, and a second
        outcome for one request is passed over: who reads on from ``after`` sees what who reads all sees.

        ``after`` is the last ``id`` already seen, ``since`` the unix time from which on an outcome counts.
        """
        ...

    def get(self, request_id: str) -> Record | None:
        """One record, or None where it is not (yet) there, or cannot be read."""
        ...

    def scored(self, policy: str, after: int = 0, since: float = 0.0) -> Iterator[ScoredRecord]:
        """Yields what was scored of the traffic, in the order written, at a tenth of the cost of reading whole records;
        of a policy's past only what lies among the last records. Arguments as for ``records``."""
        ...

    def close(self) -> None: ...


class Store(Records, Protocol):
    """The writing side too. ``append`` and ``amend`` never block and never raise."""

    @property
    def dropped(self) -> int:
        """Records and amendments that were lost, whatever the cause."""
        ...

    @property
    def drops(self) -> Mapping[Drop, int]:
        """The same by cause, each of them from 0 on."""
        ...

    @property
    def errors(self) -> int:
        """Writes that the disk refused; they are tried again, so an error is not yet a loss."""
        ...

    @property
    def unspelled(self) -> int:
        """Answers recorded without what was told of their tokens: it spells what was redacted, or too much waited."""
        ...

    @property
    def reduced(self) -> Mapping[ReductionReason, int]:
        """Records of which money and decision alone were kept, by why."""
        ...

    @property
    def problems(self) -> Sequence[str]:
        """For people: what keeps records from being written or read now, and what was lost since the start."""
        ...

    @property
    def depth(self) -> int:
        """What waits to be written."""
        ...

    def append(self, record: Record) -> None: ...

    def amend(self, request_id: str, *, audit: Audit | None = None, feedback: float | None = None) -> None:
        """Adds what became known later. The record itself may still be waiting to be written."""
        ...

    def follow(self, policies: Sequence[Policy]) -> None:
        """From now on these are the policies' words on text, redaction and retention."""
        ...

    async def flush(self) -> None:
        """Returns once everything handed over before is on disk, or was refused by it (see ``errors``)."""
        ...


class Eraser(Protocol):
    """Takes records away for good, beside any number of writers and readers."""

    def find(self, *, user: str | None = None, conversation: str | None = None) -> Traces:
        """All that is there of a user, by the client's word for them, or else of a conversation."""
        ...

    def erase(self, traces: Traces) -> int:
        """Erases the records with all that was added to them, and what clients asked to be kept of the conversations;
        returns how many records there were. What the disk held of them is overwritten."""
        ...

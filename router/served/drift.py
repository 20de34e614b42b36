"""Drift: what kinds of requests are new to the live scorer, and whether its scores have moved.

Strange requests go to the teacher by themselves, since their score is discounted; this says what they are.
All of it is computed from the records, redacted as the policy says and without text where it keeps none, so the
running proxy's metrics and ``locum status`` say the same, whoever looks. Only what the live bundle scored
counts: to the next one, fitted on their labels, the same requests may be nothing new.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import structlog
from pydantic import ValidationError

from router.contracts.bundles import read_manifest
from router.contracts.decision import NOVEL
from router.contracts.records import Record
from router.errors import StoreError
from router.metrics.metrics import Metrics
from router.scoring.statistics.clusters import Cluster, StrangeRequest, clusters
from router.scoring.statistics.shift import Shift, Shifts, Spread
from router.scoring.text.encoder import Encoder
from router.scoring.text.features import extract
from router.settings import Settings
from router.store.base import Records, ScoredRecord

log = structlog.get_logger(__name__)

DAY_SECONDS = 86_400.0
EVERY_SECONDS = 30.0
STRANGE_KEPT, USUAL_KEPT = 1024, 512
USUAL_FIRST, USUAL_EACH = 256, 64
"""Of usual requests the first ones are kept for contrast, then one in so many."""


class _Hour(NamedTuple):
    requests: int = 0
    strange: int = 0


class _Wanted(NamedTuple):
    request_id: str
    at: float
    place: int


@dataclass(frozen=True, slots=True)
class DriftFinding:
    """What has drifted under one bundle. ``requests`` and ``strange`` are of the last day; ``shift`` is None until
    a block of scores is whole, or where the bundle does not say how its scores were spread (``comparable``)."""

    bundle: str
    requests: int
    strange: int
    clusters: tuple[Cluster, ...]
    shift: Shift | None
    comparable: bool

    @property
    def strange_share(self) -> float:
        return self.strange / max(1, self.requests)


class Drift:
    """One policy's recent traffic under one bundle: ``count`` every request, then ``report``."""

    def __init__(self, bundle: str, reference: Spread | None) -> None:
        self.bundle = bundle
        self._shifts = Shifts(reference) if reference else None
        self._requests = 0
        self._hours: dict[int, _Hour] = {}
        self._strange: deque[_Wanted] = deque(maxlen=STRANGE_KEPT)
        self._usual: deque[_Wanted] = deque(maxlen=USUAL_KEPT)
        self._seen: dict[str, StrangeRequest | None] = {}
        self._unjudged: set[str] = set()

    def count(self, request: ScoredRecord) -> None:
        """Takes one request into account, in the order of the traffic; another bundle's are passed over."""
        if request.bundle != self.bundle or request.score is None:
            return
        self._requests += 1
        if self._shifts:
            self._shifts.add(request.score)
        wanted = _Wanted(request.request_id, request.at, self._requests)
        strange = request.novelty is not None and request.novelty >= NOVEL
        hour = int(request.at // 3600)
        before = self._hours.get(hour, _Hour())
        self._hours[hour] = _Hour(before.requests + 1, before.strange + strange)
        if strange:
            self._strange.append(wanted)
        elif len(self._usual) < USUAL_FIRST or self._requests % USUAL_EACH == 0:
            self._usual.append(wanted)

    def report(
        self, get: Callable[[str], Record | None], encoder: Callable[[], Encoder | None], now: float
    ) -> DriftFinding:
        """What there is to say now. ``get`` finds a record, of which each is read once, or until its audit is in;
        ``encoder`` is asked for only where something is strange."""
        strange, usual = ([w for w in kept if w.at >= now - DAY_SECONDS] for kept in (self._strange, self._usual))
        known = self._seen
        self._seen = {w.request_id: self._see(w, known, get) for w in (*strange, *usual)}
        self._unjudged &= self._seen.keys()
        found = clusters(self._texts(strange), self._texts(usual), self._requests, encoder()) if strange else []
        self._hours = {hour: n for hour, n in self._hours.items() if 3600 * (hour + 1) > now - DAY_SECONDS}
        return DriftFinding(
            bundle=self.bundle,
            requests=sum(n.requests for n in self._hours.values()),
            strange=sum(n.strange for n in self._hours.values()),
            clusters=tuple(found),
            shift=self._shifts.last if self._shifts else None,
            comparable=self._shifts is not None,
        )

    def _texts(self, wanted: Iterable[_Wanted]) -> list[StrangeRequest]:
        return [seen for w in wanted if (seen := self._seen[w.request_id]) is not None]

    def _see(
        self, wanted: _Wanted, known: dict[str, StrangeRequest | None], get: Callable[[str], Record | None]
    ) -> StrangeRequest | None:
        if wanted.request_id in known and wanted.request_id not in self._unjudged:
            return known[wanted.request_id]
        record = get(wanted.request_id)
        if record is None or record.request is None:
            return None
        if record.decision.audited and record.audit is None:
            self._unjudged.add(wanted.request_id)
        else:
            self._unjudged.discard(wanted.request_id)
        return StrangeRequest(
            request_id=record.request_id,
            at=record.created_at,
            text=extract(record.request).user_window,
            source=record.user or record.conversation_id,
            place=wanted.place,
            tier=record.tier,
            acceptable=record.audit.acceptable if record.audit else None,
        )


def drift_of(settings: Settings, policy: str, bundle: str) -> Drift:
    """An empty one, to be compared with how the bundle's scores were spread when it was made."""
    try:
        evaluation = read_manifest(settings.bundles(policy), bundle).evaluation
    except (OSError, ValidationError):  # it is gone, or another version's: there is nothing to compare with
        return Drift(bundle, None)
    said = evaluation.get("scores")
    return Drift(bundle, Spread.read(said) if isinstance(said, dict) else None)


def look(
    records: Records,
    settings: Settings,
    policy: str,
    bundle: str,
    *,
    encoder: Callable[[], Encoder | None],
    now: float,
) -> DriftFinding:
    """What has drifted in the day before ``now`` (unix time). Raises StoreError where records cannot be read."""
    drift = drift_of(settings, policy, bundle)
    for request in records.scored(policy, since=now - DAY_SECONDS):
        drift.count(request)
    return drift.report(records.get, encoder, now)


class DriftWatch:
    """Looks at the records in the background, and tells metrics. Of a machine's workers one does it for all.

    Args:
        live: each policy's name and live bundle, now.
        encoder: called off the event loop, once.
    """

    def __init__(
        self,
        records: Records,
        metrics: Metrics,
        settings: Settings,
        live: Callable[[], Mapping[str, str | None]],
        encoder: Callable[[], Encoder | None],
    ) -> None:
        self._records, self._metrics, self._settings, self._live = records, metrics, settings, live
        self._encoder = cache(encoder)
        self._lock: int | None = None
        self._drifts: dict[str, Drift] = {}
        self._read: dict[str, int] = {}

    async def run(self, every_seconds: float = EVERY_SECONDS) -> None:
        """Until cancelled."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(every_seconds)
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    async def look(self) -> None:
        """Looks once, if no other worker does."""
        if not self._mine():
            return
        for policy, bundle in self._live().items():
            if bundle is None:
                continue
            try:
                found = await asyncio.to_thread(self._look_at, policy, bundle)
            except StoreError as e:
                log.warning("drift_unknown", policy=policy, why=str(e))
                continue
            self._metrics.observe_drift(
                policy,
                strange_share=found.strange_share,
                clusters={c.name: c.requests for c in found.clusters},
                shift=(abs(found.shift.gap), found.shift.bound) if found.shift else None,
            )

    def _mine(self) -> bool:
        """Whether this worker looks: the first that holds the lock, until it ends. It lies on the folder itself, so
        that nothing is left there afterwards."""
        if self._lock is not None:
            return True
        self._settings.run.mkdir(parents=True, exist_ok=True)
        folder = os.open(self._settings.run, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(folder)
            return False
        self._lock = folder
        return True

    def _look_at(self, policy: str, bundle: str) -> DriftFinding:
        drift = self._drifts.get(policy)
        if drift is None or drift.bundle != bundle:
            drift = self._drifts[policy] = drift_of(self._settings, policy, bundle)
            self._read.pop(policy, None)  # its first requests may have been read as another's
        now = time.time()
        for request in self._records.scored(policy, self._read.get(policy, 0), now - DAY_SECONDS):
            drift.count(request)
            self._read[policy] = request.seq
        return drift.report(self._records.get, self._encoder, now)

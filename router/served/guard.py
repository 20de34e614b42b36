"""Holds what serves to the policy's promise: thresholds and audit rate follow the audits as they come in.

One guard stands over each policy and its live bundle. It follows the audits in the order in which their verdicts
were written down; bundles are never pooled. With a ``parity`` objective it replaces the bundle's thresholds by those
that its ``Monitor`` holds; under any other it only watches and tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog
from pydantic import ValidationError

from router.bundles.watcher import LiveBundle
from router.cascade.audit import MissReason
from router.contracts.bundles import NEVER, Thresholds, read_manifest
from router.contracts.decision import Deferral, Reason, Tier
from router.contracts.guard_report import CANARY_GUARDED, GUARDED, GuardReport, read_guarded, write_guarded
from router.contracts.records import Record
from router.errors import StoreError
from router.metrics.metrics import Metrics
from router.policy.policy import Policy
from router.routing.decision import audit_rate
from router.scoring.scorer import Scorer
from router.scoring.statistics.monitor import AuditedRequest, Monitor, RunningParity
from router.served.audits import AuditReader
from router.settings import Settings

log = structlog.get_logger(__name__)

CONFIDENCE = 0.95
"""Of the bounds that are shown where the objective names none."""
BY_TEACHER = frozenset({Reason.CAPABILITY, Reason.AFFINITY})
"""These leave a request to the teacher whatever the threshold."""


class Stage:
    """Where the threshold stands that the guard moves: on the cascade's acceptance, or on the routing score."""

    def __init__(self, policy: Policy, scorer: Scorer, thresholds: Thresholds) -> None:
        self._scorer = scorer
        self.cascade = policy.accept.cascade and thresholds.accept > 0
        self.start = thresholds.accept if self.cascade else max(thresholds.route, thresholds.accept)
        self._route = thresholds.route if thresholds.route <= 1 else 0.0
        self._tools = thresholds.tools

    def final(self, record: Record) -> float | None:
        """The score that decided in the end, or would have; -1 where no threshold lets the student serve, None
        where none was asked."""
        decision = record.decision
        by_rule = Reason.RULE in (decision.reason, record.reason)  # the policy's own word, not a threshold's
        if decision.score is None or by_rule or not record.is_traffic or decision.reason is Reason.CAPABILITY:
            return None
        broken = record.deferral not in (None, Deferral.CONFIDENCE)
        if broken or {decision.reason, record.reason} & BY_TEACHER:
            return -1.0
        if not self.cascade:
            return decision.score
        if decision.score < self._route:
            return -1.0
        if record.acceptance is not None:
            return record.acceptance
        student = record.answer_of(Tier.STUDENT)
        signals = student.signals if student else None
        if signals is not None and record.streamed:
            signals = signals.held or signals  # acceptance goes by a stream's first tokens
        return self._scorer.accept(decision.score, signals)

    def thresholds(self, threshold: float) -> Thresholds:
        """What routes and lets out by this threshold, certified by audits alone."""
        if threshold > 1:
            return Thresholds(route=NEVER, accept=NEVER)
        if self.cascade:
            return Thresholds(route=self._route, accept=threshold, tools=self._tools)
        return Thresholds(route=threshold, accept=0, tools=self._tools)


class AuditSampling:
    """Turns audited records into outcomes that are a uniform sample, as far as any audit happened.

    While the day's money for audits is spent, only what the teacher served still gets its verdict, which tells
    nothing of what the student served. So from the first audit missed for money, which counts as unknown, until the
    next verdict on what the student served all are passed over.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._unpaid = False

    def outcome(self, record: Record) -> AuditedRequest | None:
        """None where the record says nothing."""
        audit, final = record.audit, self._stage.final(record)
        if audit is None or final is None:
            return None
        before = self._unpaid
        if audit.missed == MissReason.BUDGET:
            self._unpaid = True
            return None if before else AuditedRequest(final, None)
        if audit.acceptable is None:
            return None
        self._unpaid = before and record.tier is not Tier.STUDENT
        return None if before else AuditedRequest(final, audit.acceptable)


class BundleWatch:
    """One bundle's audits; of its policy's it was told as many as ``seen``. Without a ``parity`` objective it counts
    what the client got, and holds nothing to it."""

    def __init__(self, policy: Policy, live: LiveBundle, since: float) -> None:
        assert live.bundle and live.scorer and live.thresholds
        goal = policy.objective.floor
        self.bundle, self.since, self.seen = live.bundle, since, 0
        self.changed_at = 0.0
        self.stage = Stage(policy, live.scorer, live.thresholds)
        self._sampling = AuditSampling(self.stage)
        self._running = RunningParity(goal.at_least if goal else CONFIDENCE, CONFIDENCE)
        self.monitor = None
        if goal is not None:
            spare = _spare(live.thresholds, goal.at_least, goal.confidence)
            self.monitor = Monitor(goal.at_least, goal.confidence, start=self.stage.start, spare=spare)

    @property
    def running(self) -> RunningParity:
        return self.monitor.running if self.monitor else self._running

    @property
    def thresholds(self) -> Thresholds | None:
        """What holds instead of the bundle's own; None where that stands."""
        if self.monitor is None or self.monitor.threshold == self.stage.start:
            return None
        return self.stage.thresholds(self.monitor.threshold)

    def observe(self, record: Record) -> None:
        """Takes the next audited record of the policy into account."""
        self.seen += 1
        if record.bundle != self.bundle:
            return
        if self.monitor is None:
            if record.is_traffic and record.audit is not None and record.audit.acceptable is not None:
                self._running.update(record.tier is Tier.STUDENT and not record.audit.acceptable)
        elif (outcome := self._sampling.outcome(record)) is not None:
            alarms = self.monitor.alarms
            self.monitor.observe(outcome)
            if self.monitor.alarms > alarms:
                self.changed_at = record.created_at


class Guard:
    """Keeps ``live`` true to the bundle that serves and to what its audits have shown.

    Args:
        base: what serves by the bundle's own word.
        canary: that is a canary's: what is found goes to a file of its own, and to no metric.
        audits: the policy's, which others read along with it.
        changed: told every ``live`` that differs from the one before.
    """

    def __init__(
        self,
        policy: Policy,
        settings: Settings,
        *,
        base: Callable[[], LiveBundle],
        audits: AuditReader,
        metrics: Metrics,
        changed: Callable[[LiveBundle], None] = lambda live: None,
        canary: bool = False,
    ) -> None:
        self._policy, self._settings = policy, settings
        self._canary = canary
        self._base, self._audits, self._metrics, self._changed = base, audits, metrics, changed
        self._from, self._live = LiveBundle(), LiveBundle()
        self._watch: BundleWatch | None = None
        self._told: GuardReport | None = None
        self._told_of = 0
        self._problem = ""

    @property
    def live(self) -> LiveBundle:
        """What serves now, as far as it may."""
        base = self._base()
        if base is not self._from:
            self._from, self._live = base, self._held(base)
        return self._live

    @property
    def found(self) -> GuardReport | None:
        """What the audits of the bundle that serves have shown; None before any was read."""
        return self._told if self._told and self._told.bundle == self._base().bundle else None

    async def run(self, poll_seconds: float = 1.0) -> None:
        """Refreshes every ``poll_seconds`` until cancelled."""
        while True:
            await asyncio.sleep(poll_seconds)
            await self.refresh()

    async def refresh(self) -> None:
        """Reads the audits that came since the last time. Call it once before serving. Where the log cannot be
        read, what was known before stays, and the log says why."""
        base = self._base()
        try:
            if base.bundle is None or base.scorer is None or base.thresholds is None:
                self._leave()
                return
            if self._watch is None or self._watch.bundle != base.bundle:
                self._leave()
                watch = await asyncio.to_thread(self._begin, base, base.bundle)
                await self._audits.follow(watch, watch.since)
                self._watch = watch
            async with self._audits.up_to_date():
                told, seen = self._told, self._watch.seen
                if told is None or seen != self._told_of or told.bundle != self._watch.bundle:
                    await self._publish(self._watch)
                    self._told_of = seen
            self._problem = ""
        except (StoreError, OSError, ValidationError) as e:
            if str(e) != self._problem:
                log.error("audits_unread", policy=self._policy.name, why=str(e))
            self._problem = str(e)

    def _begin(self, live: LiveBundle, bundle: str) -> BundleWatch:
        """No audit of a bundle is older than it."""
        return BundleWatch(
            self._policy, live, read_manifest(self._settings.bundles(self._policy.name), bundle).created_at
        )

    def _leave(self) -> None:
        if self._watch is not None:
            self._audits.leave(self._watch)
            self._watch = None

    def _held(self, base: LiveBundle) -> LiveBundle:
        """What the bundle says, with what its audits say instead."""
        watch = self._watch
        if watch is None or watch.bundle != base.bundle or watch.monitor is None:
            return base
        return replace(base, thresholds=watch.thresholds or base.thresholds, wary=watch.monitor.wary)

    async def _publish(self, watch: BundleWatch) -> None:
        """Makes what was found hold, and tells of it: log, metrics, the file for other processes."""
        base = self._base()
        before = self._live if base is self._from else base
        self._from, self._live = base, self._held(base)
        if self._live != before:
            self._changed(self._live)
        found, told = _found(watch, self._live), self._told
        kept = await asyncio.to_thread(self._keep, found)
        self._told = found
        if not self._canary:
            rate = audit_rate(self._policy, self._live.thresholds, self._live.wary)
            self._metrics.observe_guard(self._policy.name, found, rate)
        if found.alarm == (told is not None and told.bundle == found.bundle and told.alarm):
            return
        if found.alarm:
            log.warning("parity_below_floor", policy=self._policy.name, **kept.model_dump(exclude={"wary"}))
        else:
            log.info("parity_recovered", policy=self._policy.name, **kept.model_dump(exclude={"wary"}))

    def _keep(self, found: GuardReport) -> GuardReport:
        """Writes the file; an earlier bundle's alarm is still the last change of the traffic."""
        folder = self._settings.bundles(self._policy.name)
        file = CANARY_GUARDED if self._canary else GUARDED
        before = read_guarded(folder, file)
        kept = found.model_copy(update={"changed_at": max(found.changed_at, before.changed_at if before else 0.0)})
        write_guarded(folder, kept, file)
        return kept


def _found(watch: BundleWatch, live: LiveBundle) -> GuardReport:
    monitor, thresholds = watch.monitor, live.thresholds
    assert thresholds is not None
    return GuardReport(
        bundle=watch.bundle,
        alarm=monitor is not None and monitor.alarm,
        alarms=monitor.alarms if monitor else 0,
        changed_at=watch.changed_at,
        audits=watch.running.audits,
        lower=watch.running.lower,
        estimate=watch.running.estimate,
        upper=watch.running.upper,
        route=thresholds.route,
        accept=thresholds.accept,
        wary=live.wary,
    )


def _spare(thresholds: Thresholds, target: float, confidence: float) -> float:
    """The doubt that the bundle's own certificate left over."""
    evidence = thresholds.evidence
    if evidence is None or evidence.target < target:
        return 0.0
    return max(0.0, evidence.confidence - confidence)

"""Every Prometheus metric, under one object with a registry of its own: nothing is global.

Labels are closed sets: policies, tiers, reasons, kinds of spend, causes; bundles too, of which there
is one per promoted round, and the names of the few new kinds of requests. Never a prompt, a user or a
request. With several workers (``PROMETHEUS_MULTIPROC_DIR`` set before the process starts) each writes its
own files and a scrape of any of them adds all up.

What every request counts is summed up in plain Python and reaches the client library, and with it the
files, every ``FLUSH_SECONDS``, at a scrape of the same process and at its orderly end: counting in the
library would cost each request several times as much. So a scrape may miss what other workers counted in
the last quarter of a second, until the next one; a worker that is killed takes that much of its counts
with it for good. The records hold the truth.

Student share, parity and saving are ``router.contracts.definitions``', by the recording rules, from counters here:
``locum_traffic_total``, ``locum_audit_weight_total`` with its squares, ``locum_counterfactual_usd_total``,
``locum_spend_usd_total`` and ``locum_trained_usd``. A saving may be negative, which is why it is no counter itself.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter as Counts
from collections import defaultdict
from collections.abc import Mapping, Sized
from decimal import Decimal
from typing import Any, Protocol, get_args

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from router.contracts.decision import Deferral, Fallback, Reason, Tier
from router.contracts.guard_report import GuardReport
from router.contracts.records import Answer, AnswerKind, Audit, Record
from router.metrics.files import MetricFiles
from router.metrics.labels import (
    MISSED,
    NO_BUNDLE,
    NO_TIER,
    TOO_HARD,
    Born,
    FeedbackWord,
    Rejection,
    of_bundle,
    of_policy,
)
from router.metrics.tally import LATENCY_BUCKETS, OVERHEAD_BUCKETS, FinishedRequests, TierSpend

FLUSH_SECONDS = 0.25
_Ending = tuple[str, Tier | None, Reason, Deferral | None, Fallback | None, int]  # policy first, status // 100 last
_Purpose = tuple[str, Tier, AnswerKind]


class WatchedStore(Protocol):
    """The store, as far as metrics care."""

    @property
    def drops(self) -> Mapping[Any, int]: ...

    @property
    def errors(self) -> int: ...

    @property
    def unspelled(self) -> int: ...

    @property
    def reduced(self) -> Mapping[Any, int]: ...

    @property
    def unread(self) -> Sized: ...

    @property
    def depth(self) -> int: ...


class Metrics:
    """One process's metrics. Methods take finished facts and never raise for their content."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, files: MetricFiles | None = None) -> None:
        self.registry, self._files = CollectorRegistry(), files
        self._store: WatchedStore | None = None
        self._seen_drops: dict[str, int] = {}
        self._seen_errors = 0
        self._seen_unspelled = 0
        self._seen_reduced: dict[str, int] = {}
        self._live_bundles: dict[str, str] = {}
        self._clusters: dict[str, frozenset[str]] = {}
        self._finished: defaultdict[_Ending, FinishedRequests] = defaultdict(FinishedRequests)
        self._spent: defaultdict[_Purpose, TierSpend] = defaultdict(TierSpend)
        self._traffic = Counts[tuple[str, str, Tier]]()
        self._make_counters()
        self._make_histograms()
        self._make_gauges()
        for cause in get_args(Rejection):
            self.rejected.labels(cause).inc(0)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"locum_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str, mode: Any = "livemostrecent") -> Gauge:
        return Gauge(f"locum_{name}", text, labels, registry=self.registry, multiprocess_mode=mode)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"locum_{name}", text, labels, registry=self.registry, buckets=buckets)

    def _make_counters(self) -> None:
        c = self._counter
        self.requests = c("requests", "Requests finished.", "policy", "tier", "reason", "status_class")
        self.traffic = c("traffic", "Answered, and neither forced nor moved by a failure.", "policy", "bundle", "tier")
        self.deferrals = c("deferrals", "Student answers not let out.", "policy", "cause")
        self.fallbacks = c("fallbacks", "Requests moved by a failure.", "policy", "cause")
        self.teacher_failures = c("teacher_failures", "Requests that every teacher failed of.", "policy", "cause")
        self.escalations = c("escalations", "Requests the teacher answered as too hard.", "policy", "reason")
        self.spend = c("spend_usd", "Spent on answers, in USD.", "policy", "tier", "kind")
        self.estimated = c("spend_estimated_usd", "Of it what no bill tells, in USD.", "policy", "tier")
        self.counterfactual = c("counterfactual_usd", "What the teacher alone would have cost, in USD.", "policy")
        self.tokens = c("tokens", "Tokens; cached_input is part of input.", "policy", "tier", "direction")
        self.audits = c("audits", "Audits by outcome.", "policy", "bundle", "served_tier", "result")
        self.risk = c(
            "audit_weight", "Requests that judged audits stand for.", "policy", "bundle", "served_tier", "result"
        )
        self.squares = c("audit_weight_squares", "Their squares, audit by audit.", "policy", "bundle", "served_tier")
        self.broken_streams = c("streams_broken", "Streams that died after their first bytes.", "policy", "tier")
        self.rejected = c("rejected", "Requests refused before any policy saw them.", "cause")
        self.feedback = c("feedback", "Verdicts that clients sent.", "policy", "verdict")
        self.embeddings = c("embeddings", "Requests for embeddings.", "policy", "status_class")
        self.embeddings_usd = c("embeddings_usd", "Spent on embeddings, in USD.", "policy")
        self.dropped = c("records_dropped", "Records, or what came to one later, that were lost.", "cause")
        self.reduced = c("records_reduced", "Records of which only money and decision were kept.", "cause")
        self.store_errors = c("store_errors", "Writes of records that the disk refused (tried again).")
        self.unspelled = c("logprobs_dropped", "Answers whose token probabilities were not kept.")

    def _make_histograms(self) -> None:
        h = self._histogram
        self.request_seconds = h("request_seconds", "Whole request.", LATENCY_BUCKETS, "policy", "tier")
        self.first_token_seconds = h("first_token_seconds", "To the first token.", LATENCY_BUCKETS, "policy", "tier")
        self.overhead_seconds = h("overhead_seconds", "Request less upstreams.", OVERHEAD_BUCKETS, "policy")

    def _make_gauges(self) -> None:
        g = self._gauge
        self.store_depth = g("store_queue_depth", "Records waiting to be written.", mode="livesum")
        self.unread = g("records_unreadable", "Rows of the log that were passed over, being unreadable.", mode="max")
        self.home_lost = g("home_lost", "Times the home was deleted or replaced under the running proxy.", mode="max")
        self.student_up = g("student_up", "1 where the live student answers.", "policy")
        self.teacher_up = g("teacher_up", "1 where some teacher's circuit is closed.", "policy", mode="min")
        self.threshold = g("threshold", "Score (route) or probability (accept) to pass.", "policy", "stage")
        self.bundle_info = g("bundle_info", "1 for the live bundle, 0 for one that was.", "policy", "bundle")
        self.canary_share = g("canary_share", "Share of the conversations that a canary serves; 0: none.", "policy")
        self.objective = g("objective", "What routing aims at: the target of its kind.", "policy", "kind")
        self.strange_share = g("strange_share", "Share of requests that are strange to the live scorer.", "policy")
        self.new_cluster = g("new_cluster_requests", "Requests of a new kind, by its name.", "policy", "cluster")
        self.score_shift = g("score_shift", "Largest gap of the scores' distribution to its reference.", "policy")
        self.score_shift_bound = g("score_shift_bound", "The gap beyond which it is no chance.", "policy")
        self.parity = g("parity", "Running parity since the last alarm: estimate, lower, upper.", "policy", "bound")
        self.guard_alarm = g(
            "guard_alarm", "1 while parity is proven below its floor and nothing is certified.", "policy"
        )
        self.guard_alarms = g("guard_alarms", "Alarms that the live bundle's audits raised.", "policy")
        self.audit_rate = g("audit_rate", "Probability with which a request is audited.", "policy")
        self.budget = g("budget_usd", "A day's cap (UTC), what of it is spent and what is held.", "policy", "part")
        self.trained_usd = g("trained_usd", "What training this home's bundles cost, in USD.", "policy")

    def observe_policy(self, policy: str, *, objective: str, target: float) -> None:
        """Announces a policy at start-up: its objective (parity, student_share, usd_per_day, threshold), and all that
        it can count at 0."""
        self.objective.labels(policy, objective).set(target)
        self.canary_share.labels(policy).set(0)
        self._bear(of_policy(policy))

    def _bear(self, born: Born) -> None:
        for name, labels in born:
            getattr(self, name).labels(*labels).inc(0)

    def observe(self, record: Record) -> None:
        """Counts one finished request: all but its audit, which comes later (``observe_audit``)."""
        policy, answers = record.policy, record.answers
        if (tier := record.counts_for) is not None:
            self._traffic[policy, record.bundle or NO_BUNDLE, tier] += 1
        ending = policy, record.tier, record.reason, record.deferral, record.fallback, record.status // 100
        finished = self._finished[ending]
        finished.count += 1
        finished.counterfactual_usd += record.counterfactual_usd
        finished.seconds.add(record.seconds)
        finished.overhead_seconds.add(record.overhead_seconds if record.overhead_seconds > 0 else 0.0)
        for answer in answers:
            self._count_answer(policy, answer)
        if answers and (first := answers[0].first_token_seconds) is not None:
            finished.first_token_seconds.add(first)

    def _count_answer(self, policy: str, answer: Answer) -> None:
        spent, usage = self._spent[policy, answer.tier, answer.kind], answer.usage
        spent.usd += answer.cost_usd
        if usage.estimated:
            spent.estimated_usd += answer.cost_usd
        spent.input_tokens += usage.input_tokens
        spent.cached_input_tokens += usage.cached_input_tokens
        spent.output_tokens += usage.output_tokens

    def observe_audit(self, record: Record, audit: Audit) -> None:
        """Counts the outcome of one audit of ``record``, a missed one included, and what it cost."""
        if audit.missed is not None:
            result = f"missed_{audit.missed if audit.missed in MISSED else 'other'}"
        elif audit.acceptable is None:
            result = "unjudged"
        else:
            result = "acceptable" if audit.acceptable else "unacceptable"
        served = record.tier.value if record.tier else NO_TIER
        of = record.policy, record.bundle or NO_BUNDLE, served
        self.audits.labels(*of, result).inc()
        if audit.acceptable is not None and audit.missed is None and record.counts_for is not None:
            self.risk.labels(*of, result).inc(record.stands_for)
            self.squares.labels(*of).inc(record.stands_for**2)
        if audit.answer:
            self._count_answer(record.policy, audit.answer)
        if audit.judge_usd:  # paid to a provider, as the teacher is
            judged = self._spent[record.policy, Tier.TEACHER, AnswerKind.JUDGED]
            judged.usd += audit.judge_usd
            judged.estimated_usd += audit.judge_usd if audit.judge_estimated else 0

    def observe_teacher_failure(self, policy: str, cause: Fallback) -> None:
        """Counts a request that every teacher failed of, whoever answered it then; ``cause`` is the first one's."""
        self.teacher_failures.labels(policy, cause.value).inc()

    def observe_teacher(self, policy: str, up: bool) -> None:
        """Whether any of the policy's teachers would be asked now, as this worker knows it."""
        self.teacher_up.labels(policy).set(up)

    def observe_broken_stream(self, policy: str, tier: Tier | None) -> None:
        """Counts a stream that died after the client had its first bytes."""
        self.broken_streams.labels(policy, tier.value if tier else NO_TIER).inc()

    def observe_rejected(self, cause: Rejection) -> None:
        """Counts a request that was refused before any policy saw it."""
        self.rejected.labels(cause).inc()

    def observe_feedback(self, policy: str, verdict: FeedbackWord) -> None:
        """Counts a client's word on an answer that it had."""
        self.feedback.labels(policy, verdict).inc()

    def observe_embeddings(self, record: Record) -> None:
        """Counts one request for embeddings, and what it cost, which is beside what answers do."""
        self.embeddings.labels(record.policy, f"{record.status // 100}xx").inc()
        self.embeddings_usd.labels(record.policy).inc(float(record.cost_usd))
        self.estimated.labels(record.policy, Tier.TEACHER.value).inc(float(record.estimated_usd))

    def observe_live(
        self, policy: str, *, bundle: str | None, route: float | None, accept: float | None, student_up: bool
    ) -> None:
        """What serves now. Cheap; call it whenever it may have changed. None: no threshold yet."""
        name = bundle or NO_BUNDLE
        before = self._live_bundles.get(policy)
        self._live_bundles[policy] = name
        if before != name:
            if before is not None:
                self.bundle_info.labels(policy, before).set(0)
            self._bear(of_bundle(policy, name))
        self.bundle_info.labels(policy, name).set(1)
        self.student_up.labels(policy).set(student_up)
        for stage, threshold in (("route", route), ("accept", accept)):
            self.threshold.labels(policy, stage).set(float("nan") if threshold is None else threshold)

    def observe_canary(self, policy: str, bundle: str | None, share: float) -> None:
        """Which bundle serves a ``share`` of the conversations beside the live one; None: none does."""
        self.canary_share.labels(policy).set(share)
        if bundle is not None:
            self._bear(of_bundle(policy, bundle))

    def observe_guard(self, policy: str, found: GuardReport, audit_rate: float) -> None:
        """What the audits of the live bundle have shown, and how often there is one now; idempotent."""
        estimate = float("nan") if found.estimate is None else found.estimate
        for bound, value in (("estimate", estimate), ("lower", found.lower), ("upper", found.upper)):
            self.parity.labels(policy, bound).set(value)
        self.guard_alarm.labels(policy).set(found.alarm)
        self.guard_alarms.labels(policy).set(found.alarms)
        self.audit_rate.labels(policy).set(audit_rate)

    def observe_trained(self, policy: str, usd: float) -> None:
        """What the home's bundles cost to train, all together; idempotent, so any worker may say it."""
        self.trained_usd.labels(policy).set(usd)

    def observe_budget(self, policy: str, cap_usd: Decimal | None, spent_usd: Decimal, held_usd: Decimal) -> None:
        """A day's budget as it is now, by all workers; one without a cap is none."""
        if cap_usd is not None:
            for part, usd in (("cap", cap_usd), ("spent", spent_usd), ("held", held_usd)):
                self.budget.labels(policy, part).set(float(usd))

    def observe_home(self, times_lost: int) -> None:
        """How often the home was deleted or replaced since the start; idempotent, so any worker may say it."""
        self.home_lost.set(times_lost)

    def observe_drift(
        self, policy: str, *, strange_share: float, clusters: Mapping[str, int], shift: tuple[float, float] | None
    ) -> None:
        """What has drifted: ``clusters`` are requests by a new kind's name, a few at most, whose words no single
        user wrote; ``shift`` is (gap, bound) of the scores, None where it is not known yet."""
        self.strange_share.labels(policy).set(strange_share)
        for gone in self._clusters.get(policy, frozenset()) - clusters.keys():
            self.new_cluster.labels(policy, gone).set(0)
            if not _several_processes():  # where there are several, the library cannot remove
                self.new_cluster.remove(policy, gone)
        self._clusters[policy] = frozenset(clusters)
        for name, requests in clusters.items():
            self.new_cluster.labels(policy, name).set(requests)
        gap, bound = shift or (float("nan"), float("nan"))
        self.score_shift.labels(policy).set(gap)
        self.score_shift_bound.labels(policy).set(bound)

    def watch(self, store: WatchedStore) -> None:
        """From now on the store's queue depth, losses and errors are shown too."""
        self._store = store
        self._refresh_store()

    async def keep_fresh(self, every_seconds: float = FLUSH_SECONDS) -> None:
        """Until cancelled: a scrape may be answered by another worker, which sees of this one what was
        flushed last."""
        while True:
            await asyncio.sleep(every_seconds)
            self.flush()

    def flush(self) -> None:
        """Hands over what was summed up since the last time, and what the store says now. On the same thread
        as all else here: nothing locks."""
        if self._files is not None:
            self._files.keep()
        traffic, self._traffic = self._traffic, Counts()
        for of, requests in traffic.items():
            self.traffic.labels(*of).inc(requests)
        finished, self._finished = self._finished, defaultdict(FinishedRequests)
        for ending, ended in finished.items():
            self._flush_finished(ending, ended)
        spent, self._spent = self._spent, defaultdict(TierSpend)
        for purpose, answers in spent.items():
            self._flush_spent(purpose, answers)
        self._refresh_store()

    def _flush_finished(self, ending: _Ending, requests: FinishedRequests) -> None:
        policy, tier, reason, deferral, fallback, hundreds = ending
        served = tier.value if tier else NO_TIER
        self.requests.labels(policy, served, reason.value, f"{hundreds}xx").inc(requests.count)
        if deferral:
            self.deferrals.labels(policy, deferral.value).inc(requests.count)
        if fallback:
            self.fallbacks.labels(policy, fallback.value).inc(requests.count)
        if tier is Tier.TEACHER and reason in TOO_HARD:
            self.escalations.labels(policy, reason.value).inc(requests.count)
        if requests.counterfactual_usd:
            self.counterfactual.labels(policy).inc(float(requests.counterfactual_usd))
        requests.seconds.pour(self.request_seconds, policy, served)
        requests.first_token_seconds.pour(self.first_token_seconds, policy, served)
        requests.overhead_seconds.pour(self.overhead_seconds, policy)

    def _flush_spent(self, purpose: _Purpose, answers: TierSpend) -> None:
        policy, tier, kind = purpose
        if answers.usd:
            self.spend.labels(policy, tier.value, kind.value).inc(float(answers.usd))
        if answers.estimated_usd:
            self.estimated.labels(policy, tier.value).inc(float(answers.estimated_usd))
        self.tokens.labels(policy, tier.value, "input").inc(answers.input_tokens)
        self.tokens.labels(policy, tier.value, "output").inc(answers.output_tokens)
        if answers.cached_input_tokens:
            self.tokens.labels(policy, tier.value, "cached_input").inc(answers.cached_input_tokens)

    def _refresh_store(self) -> None:
        if self._store is None:
            return
        errors, unspelled = self._store.errors, self._store.unspelled
        self.store_errors.inc(errors - self._seen_errors)
        self.unspelled.inc(unspelled - self._seen_unspelled)
        self._seen_errors, self._seen_unspelled = errors, unspelled
        _tell(self.dropped, self._store.drops, self._seen_drops)
        _tell(self.reduced, self._store.reduced, self._seen_reduced)
        self.store_depth.set(self._store.depth)
        self.unread.set(len(self._store.unread))

    def expose(self) -> bytes:
        """The text a scrape gets (``content_type`` goes with it); all workers' where there are several, unless the
        disk keeps their files from it."""
        self.flush()
        if not _several_processes() or (self._files is not None and not self._files.keep()):
            return generate_latest(self.registry)
        merged = CollectorRegistry()
        MultiProcessCollector(merged)  # type: ignore[no-untyped-call]
        return generate_latest(merged)


def _tell(counter: Counter, causes: Mapping[Any, int], seen: dict[str, int]) -> None:
    """Counts by each cause what came since it was ``seen``; the first time from 0 on, so that increase() sees all."""
    for cause, count in list(causes.items()):
        counter.labels(str(cause)).inc(count - seen.get(cause, 0))
        seen[cause] = count


def _several_processes() -> bool:
    return "PROMETHEUS_MULTIPROC_DIR" in os.environ

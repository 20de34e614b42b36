"""Every Prometheus metric, under one object with a registry of its own: nothing is global.

Labels are closed sets: policies, tiers, reasons, kinds of spend, causes; bundles too, of which there
is one per promoted round. Never a prompt, a user or a request. With several workers
(``PROMETHEUS_MULTIPROC_DIR`` set before the process starts) each writes its own files and a scrape
of any of them adds all up.

Net saving is ``locum_counterfactual_usd_total - sum(locum_spend_usd_total) - locum_trained_usd``; it
may be negative, which is why it is no counter itself.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Literal, Protocol, get_args

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from router.contracts.decision import Reason, Tier
from router.contracts.records import Answer, Audit, Kind, Record

OVERHEAD_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)
LATENCY_BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120)
MISSED = frozenset(
    (
        "queue_full",
        "budget",
        "capability",
        "student_unready",
        "unanswered",
        "upstream_error",
        "internal_error",
        "shutdown",
    )
)
TOO_HARD = frozenset({Reason.SCORE, Reason.DEFERRAL, Reason.AFFINITY, Reason.CAPABILITY})
Rejection = Literal[
    "unauthorized", "body_too_large", "headers_too_large", "too_many_streams", "bad_request", "not_found"
]
Verdict = Literal["good", "bad", "neutral"]
NO_TIER = "none"
NO_BUNDLE = "base"


class Watched(Protocol):
    """The store, as far as metrics care."""

    @property
    def dropped(self) -> int: ...

    @property
    def errors(self) -> int: ...

    @property
    def depth(self) -> int: ...


class _Children(dict[tuple[str, ...], Callable[[float], None]]):
    """Label values -> the bound method that counts under them, made at first use: looking children up in
    the client library costs more than counting does."""

    def __init__(self, metric: Counter | Histogram) -> None:
        super().__init__()
        self._metric = metric

    def __missing__(self, labels: tuple[str, ...]) -> Callable[[float], None]:
        child = self._metric.labels(*labels)
        bound = self[labels] = child.inc if isinstance(child, Counter) else child.observe
        return bound


class Metrics:
    """One process's metrics. Methods take finished facts and never raise for their content."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._store: Watched | None = None
        self._seen_dropped = 0
        self._seen_errors = 0
        self._live_bundles: dict[str, str] = {}
        self._make_counters()
        self._make_histograms()
        self._make_gauges()
        self._bind()
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
        self.deferrals = c("deferrals", "Student answers not let out.", "policy", "cause")
        self.fallbacks = c("fallbacks", "Requests moved by a failure.", "policy", "cause")
        self.escalations = c("escalations", "Requests the teacher answered as too hard.", "policy", "reason")
        self.spend = c("spend_usd", "Spent on answers, in USD.", "policy", "tier", "kind")
        self.counterfactual = c("counterfactual_usd", "What the teacher alone would have cost, in USD.", "policy")
        self.tokens = c("tokens", "Tokens; cached_input is part of input.", "policy", "tier", "direction")
        self.audits = c("audits", "Audits by outcome.", "policy", "bundle", "served_tier", "result")
        self.broken_streams = c("streams_broken", "Streams that died after their first bytes.", "policy", "tier")
        self.rejected = c("rejected", "Requests refused before any policy saw them.", "cause")
        self.feedback = c("feedback", "Verdicts that clients sent.", "policy", "verdict")
        self.embeddings = c("embeddings", "Requests for embeddings.", "policy", "status_class")
        self.embeddings_usd = c("embeddings_usd", "Spent on embeddings, in USD.", "policy")
        self.dropped = c("records_dropped", "Records that were lost.")
        self.store_errors = c("store_errors", "Writes of records that the disk refused (tried again).")

    def _make_histograms(self) -> None:
        h = self._histogram
        self.request_seconds = h("request_seconds", "Whole request.", LATENCY_BUCKETS, "policy", "tier")
        self.first_token_seconds = h(
            "first_token_seconds", "To the answer's first token.", LATENCY_BUCKETS, "policy", "tier"
        )
        self.overhead_seconds = h(
            "overhead_seconds", "Request less the wait for upstreams.", OVERHEAD_BUCKETS, "policy"
        )

    def _make_gauges(self) -> None:
        g = self._gauge
        self.store_depth = g("store_queue_depth", "Records waiting to be written.", mode="livesum")
        self.student_up = g("student_up", "1 where the live student answers.", "policy")
        self.threshold = g("threshold", "Score (route) or probability (accept) to pass.", "policy", "stage")
        self.bundle_info = g("bundle_info", "1 for the live bundle, 0 for one that was.", "policy", "bundle")
        self.objective = g("objective", "What routing aims at: the target of its kind.", "policy", "kind")
        self.trained_usd = g("trained_usd", "What training this home's bundles cost, in USD.", "policy")

    def _bind(self) -> None:
        """What every request counts."""
        self._requests, self._tokens = _Children(self.requests), _Children(self.tokens)
        self._spend, self._counterfactual = _Children(self.spend), _Children(self.counterfactual)
        self._request_seconds = _Children(self.request_seconds)
        self._first_token_seconds = _Children(self.first_token_seconds)
        self._overhead_seconds = _Children(self.overhead_seconds)

    def observe_policy(self, policy: str, *, objective: str, target: float) -> None:
        """Announces a policy at start-up: its objective (parity, student_share, usd_per_day, threshold), and
        its money at 0. A counter born at its first increment is one that Prometheus' increase() never sees."""
        self.objective.labels(policy, objective).set(target)
        self.counterfactual.labels(policy).inc(0)
        self.embeddings_usd.labels(policy).inc(0)
        for verdict in get_args(Verdict):
            self.feedback.labels(policy, verdict).inc(0)
        for tier in Tier:
            self.broken_streams.labels(policy, tier.value).inc(0)
            for direction in ("input", "cached_input", "output"):
                self.tokens.labels(policy, tier.value, direction).inc(0)
            for kind in (Kind.SERVED, Kind.AUDITED):
                self.spend.labels(policy, tier.value, kind.value).inc(0)

    def observe(self, record: Record) -> None:
        """Counts one finished request: all but its audit, which comes later (``observe_audit``)."""
        policy, tier, reason = record.policy, record.tier.value if record.tier else NO_TIER, record.reason.value
        self._requests[policy, tier, reason, f"{record.status // 100}xx"](1)
        if record.deferral:
            self.deferrals.labels(policy, record.deferral.value).inc()
        if record.fallback:
            self.fallbacks.labels(policy, record.fallback.value).inc()
        if record.tier is Tier.TEACHER and record.reason in TOO_HARD:
            self.escalations.labels(policy, reason).inc()
        for answer in record.answers:
            self._count_answer(policy, answer)
        if record.counterfactual_usd:
            self._counterfactual[policy,](float(record.counterfactual_usd))
        self._request_seconds[policy, tier](record.seconds)
        self._overhead_seconds[policy,](max(0.0, record.overhead_seconds))
        if record.answers and (first := record.answers[0].first_token_seconds) is not None:
            self._first_token_seconds[policy, tier](first)

    def _count_answer(self, policy: str, answer: Answer) -> None:
        tier, usage = answer.tier.value, answer.usage
        if answer.cost_usd:
            self._spend[policy, tier, answer.kind.value](float(answer.cost_usd))
        self._tokens[policy, tier, "input"](usage.input_tokens)
        self._tokens[policy, tier, "output"](usage.output_tokens)
        if usage.cached_input_tokens:
            self._tokens[policy, tier, "cached_input"](usage.cached_input_tokens)

    def observe_audit(self, record: Record, audit: Audit) -> None:
        """Counts the outcome of one audit of ``record``, a missed one included, and what it cost."""
        if audit.missed is not None:
            result = f"missed_{audit.missed if audit.missed in MISSED else 'other'}"
        elif audit.acceptable is None:
            result = "unjudged"
        else:
            result = "acceptable" if audit.acceptable else "unacceptable"
        served = record.tier.value if record.tier else NO_TIER
        self.audits.labels(record.policy, record.bundle or NO_BUNDLE, served, result).inc()
        if audit.answer:
            self._count_answer(record.policy, audit.answer)

    def observe_broken_stream(self, policy: str, tier: Tier | None) -> None:
        """Counts a stream that died after the client had its first bytes."""
        self.broken_streams.labels(policy, tier.value if tier else NO_TIER).inc()

    def observe_rejected(self, cause: Rejection) -> None:
        """Counts a request that was refused before any policy saw it."""
        self.rejected.labels(cause).inc()

    def observe_feedback(self, policy: str, verdict: Verdict) -> None:
        """Counts a client's word on an answer that it had."""
        self.feedback.labels(policy, verdict).inc()

    def observe_embeddings(self, policy: str, status: int, usd: Decimal) -> None:
        """Counts one request for embeddings, its HTTP status and what it cost in US dollars."""
        self.embeddings.labels(policy, f"{status // 100}xx").inc()
        self.embeddings_usd.labels(policy).inc(float(usd))

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
            for tier in Tier:
                for result in ("acceptable", "unacceptable"):  # born at 0, or increase() would miss the first
                    self.audits.labels(policy, name, tier.value, result).inc(0)
        self.bundle_info.labels(policy, name).set(1)
        self.student_up.labels(policy).set(student_up)
        for stage, threshold in (("route", route), ("accept", accept)):
            self.threshold.labels(policy, stage).set(float("nan") if threshold is None else threshold)

    def observe_trained(self, policy: str, usd: float) -> None:
        """What the home's bundles cost to train, all together; idempotent, so any worker may say it."""
        self.trained_usd.labels(policy).set(usd)

    def watch(self, store: Watched) -> None:
        """From now on the store's queue depth, losses and errors are shown too."""
        self._store = store
        self._refresh_store()

    async def keep_fresh(self, every_seconds: float = 1.0) -> None:
        """Until cancelled: a scrape may be answered by another worker, which sees of this one's store
        what was written down last."""
        while True:
            await asyncio.sleep(every_seconds)
            self._refresh_store()

    def _refresh_store(self) -> None:
        if self._store is None:
            return
        dropped, errors = self._store.dropped, self._store.errors
        self.dropped.inc(dropped - self._seen_dropped)
        self.store_errors.inc(errors - self._seen_errors)
        self._seen_dropped, self._seen_errors = dropped, errors
        self.store_depth.set(self._store.depth)

    def expose(self) -> bytes:
        """The text a scrape gets (``content_type`` goes with it); all workers' where there are several."""
        self._refresh_store()
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        merged = CollectorRegistry()
        MultiProcessCollector(merged)  # type: ignore[no-untyped-call]
        return generate_latest(merged)

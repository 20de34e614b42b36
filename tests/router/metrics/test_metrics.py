"""One object counts everything, alone or among several workers."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from router.cascade.audit import MissReason
from router.contracts.decision import Deferral, Fallback, Reason, Tier
from router.contracts.records import Answer, AnswerKind, Audit, Record, Usage
from router.metrics.labels import MISSED
from router.metrics.metrics import Metrics
from router.metrics.tally import LATENCY_BUCKETS, OVERHEAD_BUCKETS
from router.store.record_json import kept_record
from tests.fakes import until, world

MakeRecord = Callable[..., Record]


def samples(text: bytes) -> dict[str, float]:
    """``name{label=value,...}`` -> value, as a scrape reads it."""
    return {
        f"{s.name}{{{','.join(f'{k}={v}' for k, v in sorted(s.labels.items()))}}}": s.value
        for family in text_string_to_metric_families(text.decode())
        for s in family.samples
    }


def test_a_request_is_counted_whole(make_record: MakeRecord) -> None:
    metrics = Metrics()
    metrics.observe(make_record())
    got = samples(metrics.expose())
    assert got["locum_requests_total{policy=default,reason=score,status_class=2xx,tier=student}"] == 1
    assert got["locum_spend_usd_total{kind=served,policy=default,tier=student}"] == pytest.approx(0.0005)
    assert got["locum_counterfactual_usd_total{policy=default}"] == pytest.approx(0.002)
    assert got["locum_tokens_total{direction=input,policy=default,tier=student}"] == 100
    assert got["locum_tokens_total{direction=cached_input,policy=default,tier=student}"] == 40
    assert got["locum_tokens_total{direction=output,policy=default,tier=student}"] == 10
    assert got["locum_request_seconds_sum{policy=default,tier=student}"] == 0.25
    assert got["locum_overhead_seconds_bucket{le=0.001,policy=default}"] == 1
    assert got["locum_first_token_seconds_count{policy=default,tier=student}"] == 1


def test_a_deferral_costs_both_tiers_and_is_an_escalation(make_record: MakeRecord) -> None:
    metrics = Metrics()
    record = make_record(tier=Tier.TEACHER, reason=Reason.DEFERRAL, deferral=Deferral.CONFIDENCE)
    thrown = Answer(tier=Tier.STUDENT, kind=AnswerKind.DISCARDED, model="s", cost_usd=Decimal("0.0001"))
    record.answers.append(thrown)
    metrics.observe(record)
    got = samples(metrics.expose())
    assert got["locum_deferrals_total{cause=confidence,policy=default}"] == 1
    assert got["locum_escalations_total{policy=default,reason=deferral}"] == 1
    assert got["locum_spend_usd_total{kind=discarded,policy=default,tier=student}"] == pytest.approx(0.0001)


def test_histograms_show_what_observing_one_by_one_would(make_record: MakeRecord) -> None:
    def reference(name: str, amounts: list[float], buckets: tuple[float, ...], **labels: str) -> bytes:
        registry = CollectorRegistry()
        histogram = Histogram(f"locum_{name}_seconds", "", labels, registry=registry, buckets=buckets)
        for amount in amounts:
            histogram.labels(**labels).observe(amount)
        return generate_latest(registry)

    metrics = Metrics()
    amounts = sorted({0.0, *OVERHEAD_BUCKETS, *(b + 1e-6 for b in OVERHEAD_BUCKETS), *LATENCY_BUCKETS, 120.5, 1e4})
    for round_ in range(2):  # what was handed over already stays
        for amount in amounts:
            record = make_record(seconds=amount, overhead_seconds=amount)
            record.answers[0] = replace(record.answers[0], first_token_seconds=amount)
            metrics.observe(record)
        got, seen = samples(metrics.expose()), amounts * (round_ + 1)
        for expected in (
            samples(reference("request", seen, LATENCY_BUCKETS, policy="default", tier="student")),
            samples(reference("first_token", seen, LATENCY_BUCKETS, policy="default", tier="student")),
            samples(reference("overhead", seen, OVERHEAD_BUCKETS, policy="default")),
        ):
            shown = {name: value for name, value in expected.items() if "_created{" not in name}
            assert len(shown) > len(OVERHEAD_BUCKETS)
            assert {name: got[name] for name in shown} == pytest.approx(shown)


def test_requests_are_added_up_by_how_they_ended(make_record: MakeRecord) -> None:
    metrics = Metrics()
    for _ in range(3):
        metrics.observe(make_record())
    metrics.observe(make_record(status=400))
    metrics.observe(make_record(policy="other"))
    metrics.observe(make_record(overhead_seconds=-1e-9))  # clocks are read one after the other
    once = samples(metrics.expose())
    ended = "locum_requests_total{{policy={},reason=score,status_class={},tier=student}}"
    assert once[ended.format("default", "2xx")] == 4
    assert once[ended.format("default", "4xx")] == 1
    assert once[ended.format("other", "2xx")] == 1
    assert once["locum_tokens_total{direction=input,policy=default,tier=student}"] == 500
    assert once["locum_spend_usd_total{kind=served,policy=default,tier=student}"] == pytest.approx(0.0025)
    assert once["locum_overhead_seconds_sum{policy=default}"] == pytest.approx(4 * 0.0008)
    assert samples(metrics.expose()) == once


def test_what_was_counted_is_handed_over_in_time_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_record: MakeRecord
) -> None:
    def handed_over(metrics: Metrics) -> float:
        """Requests that a scrape of another worker would find."""
        got = samples(generate_latest(metrics.registry))
        return sum(value for name, value in got.items() if name.startswith("locum_requests_total"))

    alone, serving = Metrics(), Metrics()
    alone.observe(make_record())
    assert handed_over(alone) == 0
    monkeypatch.setattr("router.app.Metrics", lambda **_: serving)
    with world(tmp_path) as proxy:
        ask = {"model": "locum/teacher", "messages": [{"role": "user", "content": "hi"}]}
        assert httpx.post(f"{proxy.url}/v1/chat/completions", json=ask).status_code == 200
        until(lambda: handed_over(serving) == 1)
        assert httpx.post(f"{proxy.url}/v1/chat/completions", json=ask).status_code == 200
    assert handed_over(serving) == 2


def test_a_request_nobody_answered_is_counted_too(make_record: MakeRecord) -> None:
    metrics = Metrics()
    metrics.observe(make_record(tier=None, status=502, reason=Reason.FALLBACK, fallback=Fallback.TIMEOUT))
    got = samples(metrics.expose())
    assert got["locum_requests_total{policy=default,reason=fallback,status_class=5xx,tier=none}"] == 1
    assert got["locum_fallbacks_total{cause=timeout,policy=default}"] == 1


def test_audits_are_counted_by_bundle_and_outcome_and_cost_money(make_record: MakeRecord) -> None:
    metrics = Metrics()
    teacher = Answer(
        tier=Tier.TEACHER, kind=AnswerKind.AUDITED, model="t", cost_usd=Decimal("0.01"), usage=Usage(output_tokens=7)
    )
    metrics.observe_audit(make_record(), Audit(answer=teacher, acceptable=False, judge="exact"))
    metrics.observe_audit(make_record(bundle=None), Audit(answer=teacher))
    metrics.observe_audit(make_record(), Audit(missed="budget"))
    metrics.observe_audit(make_record(), Audit(missed="something a future version says"))
    got = samples(metrics.expose())
    assert got["locum_audits_total{bundle=b-1,policy=default,result=unacceptable,served_tier=student}"] == 1
    assert got["locum_audits_total{bundle=base,policy=default,result=unjudged,served_tier=student}"] == 1
    assert got["locum_audits_total{bundle=b-1,policy=default,result=missed_budget,served_tier=student}"] == 1
    assert got["locum_audits_total{bundle=b-1,policy=default,result=missed_other,served_tier=student}"] == 1
    assert got["locum_spend_usd_total{kind=audited,policy=default,tier=teacher}"] == pytest.approx(0.02)


def test_every_cause_an_audit_can_miss_by_has_its_label() -> None:
    assert set(MissReason) == MISSED


def test_what_no_answered_request_tells_is_counted_too(make_record: MakeRecord) -> None:
    metrics = Metrics()
    metrics.observe_policy("default", objective="parity", target=0.9)
    metrics.observe_broken_stream("default", Tier.TEACHER)
    metrics.observe_rejected("unauthorized")
    metrics.observe_feedback("default", "bad")
    paid = Answer(tier=Tier.TEACHER, kind=AnswerKind.EMBEDDED, model="v", cost_usd=Decimal("0.0001"))
    metrics.observe_embeddings(make_record(tier=None, embedding=True, answers=[paid]))
    metrics.observe_embeddings(make_record(tier=None, embedding=True, status=429))
    got = samples(metrics.expose())
    assert got["locum_streams_broken_total{policy=default,tier=teacher}"] == 1
    assert got["locum_streams_broken_total{policy=default,tier=student}"] == 0
    assert got["locum_rejected_total{cause=unauthorized}"] == 1
    assert got["locum_rejected_total{cause=not_found}"] == 0
    assert got["locum_feedback_total{policy=default,verdict=bad}"] == 1
    assert got["locum_embeddings_total{policy=default,status_class=2xx}"] == 1
    assert got["locum_embeddings_total{policy=default,status_class=4xx}"] == 1
    assert got["locum_embeddings_usd_total{policy=default}"] == pytest.approx(0.0001)


def test_what_is_live_replaces_what_was() -> None:
    metrics = Metrics()
    metrics.observe_live("default", bundle=None, route=None, accept=None, student_up=False)
    metrics.observe_live("default", bundle="b-2", route=0.7, accept=0.4, student_up=True)
    metrics.observe_trained("default", 0.25)
    got = samples(metrics.expose())
    assert got["locum_bundle_info{bundle=base,policy=default}"] == 0
    assert got["locum_bundle_info{bundle=b-2,policy=default}"] == 1
    assert got["locum_threshold{policy=default,stage=route}"] == 0.7
    assert got["locum_threshold{policy=default,stage=accept}"] == 0.4
    assert got["locum_student_up{policy=default}"] == 1
    assert got["locum_trained_usd{policy=default}"] == 0.25


def test_lost_records_show_without_being_counted_twice(make_record: MakeRecord) -> None:
    class Store:
        errors, depth, unspelled, unread = 1, 5, 2, (1, 2)
        drops, reduced = Counter(queue_full=3, gone=0), Counter(room=2, unfit=0)

    metrics = Metrics()
    metrics.watch(Store())
    metrics.observe(make_record())
    metrics.expose()
    Store.drops["queue_full"] = 4
    got = samples(metrics.expose())
    assert got["locum_records_dropped_total{cause=queue_full}"] == 4
    assert got["locum_store_errors_total{}"] == 1
    assert got["locum_store_queue_depth{}"] == 5
    assert got["locum_logprobs_dropped_total{}"] == 2
    assert got["locum_records_reduced_total{cause=room}"] == 2
    assert got["locum_records_reduced_total{cause=unfit}"] == 0
    assert got["locum_records_unreadable{}"] == 2


def test_two_objects_share_nothing(make_record: MakeRecord) -> None:
    one, other = Metrics(), Metrics()
    one.observe(make_record())
    assert "locum_requests_total{policy=default,reason=score,status_class=2xx,tier=student}" not in samples(
        other.expose()
    )


WORKER = """
import sys
from router.contracts.records import read_record
from router.metrics.metrics import Metrics

metrics = Metrics()
for _ in range(int(sys.argv[1])):
    metrics.observe(read_record(sys.argv[2]))
metrics.observe_live("default", bundle=sys.argv[3], route=0.5, accept=0.5, student_up=True)
sys.stdout.buffer.write(metrics.expose())
"""


def test_several_workers_are_added_up(tmp_path: Path, make_record: MakeRecord) -> None:
    env = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def worker(count: int, bundle: str) -> dict[str, float]:
        args = [sys.executable, "-c", WORKER, str(count), kept_record(make_record(), None), bundle]
        return samples(subprocess.run(args, env=env, capture_output=True, check=True).stdout)

    worker(3, "b-1")
    got = worker(4, "b-2")
    assert got["locum_requests_total{policy=default,reason=score,status_class=2xx,tier=student}"] == 7
    assert got["locum_request_seconds_count{policy=default,tier=student}"] == 7
    assert got["locum_bundle_info{bundle=b-2,policy=default}"] == 1
    assert not any("pid=" in name for name in got)


def test_every_metric_has_a_panel_or_a_rule() -> None:
    folder = Path(__file__).parents[3] / "dashboards"
    shown = (folder / "grafana" / "locum.json").read_text() + (folder / "prometheus" / "rules.yml").read_text()
    names = {family.name for family in Metrics().registry.collect()}
    assert {name for name in names if name not in shown} == set()

"""Prometheus' rules: what they compute from known series, and which alerts they raise."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

PROMETHEUS = Path(__file__).parent.parent / "dashboards" / "prometheus"
AUDITED = 'locum_audits_total{policy="%s",bundle="b1",served_tier="%s",result="%s"}'
WEIGHT = 'locum_audit_weight_total{policy="%s",bundle="b1",served_tier="%s",result="%s"}'
SQUARES = 'locum_audit_weight_squares_total{policy="%s",bundle="b1",served_tier="%s"}'
TRAFFIC = 'locum_traffic_total{policy="%s",bundle="b1",tier="%s"}'
REQUESTS = 'locum_requests_total{policy="%s",tier="%s",reason="score",status_class="2xx"}'

pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None and "LOCUM_CI" not in os.environ,
    reason="needs Prometheus (apt-get install prometheus)",
)


def promtool(*arguments: str) -> str:
    ran = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def grown(series: str, per_minute: float) -> dict[str, str]:
    return {"series": series, "values": f"0+{per_minute}x600"}


def policy_under_traffic(name: str, *, unacceptable: float) -> list[dict[str, str]]:
    """Ten hours: 80 of 100 requests a minute to the student, one of them audited."""
    return [
        grown(REQUESTS % (name, "student"), 80),
        grown(REQUESTS % (name, "teacher"), 20),
        *(grown(TRAFFIC % (name, tier), n) for tier, n in (("student", 80), ("teacher", 20))),
        grown(AUDITED % (name, "student", "acceptable"), 1 - unacceptable),
        grown(AUDITED % (name, "student", "unacceptable"), unacceptable),
        grown(WEIGHT % (name, "student", "acceptable"), 80 * (1 - unacceptable)),
        grown(WEIGHT % (name, "student", "unacceptable"), 80 * unacceptable),
        grown(SQUARES % (name, "student"), 80**2),
        grown(WEIGHT % (name, "teacher", "acceptable"), 5),
        grown(WEIGHT % (name, "teacher", "unacceptable"), 15),
        {"series": f'locum_bundle_info{{policy="{name}",bundle="b1"}}', "values": "1x600"},
        grown(f'locum_counterfactual_usd_total{{policy="{name}"}}', 0.60),
        grown(f'locum_spend_usd_total{{policy="{name}",tier="teacher",kind="served"}}', 0.12),
        grown(f'locum_spend_usd_total{{policy="{name}",tier="student",kind="served"}}', 0.06),
        {"series": f'locum_objective{{policy="{name}",kind="parity"}}', "values": "0.95x600"},
        {"series": f'locum_student_up{{policy="{name}"}}', "values": "1x600"},
    ]


def check(tmp_path: Path, series: list[dict[str, str]], expected: dict[str, dict[str, float]]) -> None:
    """``expected``: query -> {labels: value}, ten hours in, to three digits."""
    tests = [
        {
            "expr": f"round({query}, 0.001)",
            "eval_time": "10h",
            "exp_samples": [{"labels": labels, "value": value} for labels, value in samples.items()],
        }
        for query, samples in expected.items()
    ]
    unit: dict[str, Any] = {
        "rule_files": [str(PROMETHEUS / "rules.yml")],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": tests}],
    }
    file = tmp_path / "unit.yml"
    file.write_text(json.dumps(unit))
    promtool("test", "rules", str(file))


def test_rules_and_configuration_are_valid() -> None:
    promtool("check", "rules", str(PROMETHEUS / "rules.yml"))
    promtool("check", "config", str(PROMETHEUS / "prometheus.yml"))


def test_quality_and_saving_come_out_as_reckoned_by_hand(tmp_path: Path) -> None:
    labels, bundle, audits = '{policy="a"}', '{policy="a", bundle="b1"}', 600
    check(
        tmp_path,
        policy_under_traffic("a", unacceptable=0.1),
        {
            "locum:student_share:ratio24h": {labels: 0.8},
            "locum:student_audits:increase24h": {bundle: audits},
            "locum:student_audits:effective24h": {bundle: audits},
            "locum:selective_risk:ratio24h": {bundle: 0.1},
            "locum:parity:estimate24h": {bundle: 0.92},
            "locum:over_escalation:ratio24h": {bundle: 0.25},
            "locum:net_saving_usd:increase24h": {labels: 252.0},
            "3600 * locum:net_saving_usd:rate1h": {labels: 25.2},
        },
    )


def test_training_counts_against_the_saving(tmp_path: Path) -> None:
    trained = {"series": 'locum_trained_usd{policy="a"}', "values": "0x570 2x29"}
    series = [*policy_under_traffic("a", unacceptable=0.1), trained]
    check(tmp_path, series, {"3600 * locum:net_saving_usd:rate1h": {'{policy="a"}': 23.2}})


def test_while_the_teacher_answers_everything_parity_is_one_and_the_share_zero(tmp_path: Path) -> None:
    series = [grown(TRAFFIC % ("new", tier), n) for tier, n in (("student", 0), ("teacher", 100))]
    parity = {"locum:parity:estimate24h": {'{policy="new", bundle="b1"}': 1.0}}
    check(tmp_path, series, {"locum:student_share:ratio24h": {'{policy="new"}': 0.0}, **parity})


def test_parity_is_unknown_where_the_student_serves_and_nothing_was_audited(tmp_path: Path) -> None:
    check(tmp_path, [grown(TRAFFIC % ("dark", "student"), 100)], {"locum:parity:estimate24h": {}})


def test_alerts_fire_for_the_policy_whose_floor_is_broken_and_for_no_other(tmp_path: Path) -> None:
    """By the guard's own bound: Prometheus has no interval of its own."""
    series = policy_under_traffic("broken", unacceptable=0.12) + policy_under_traffic("sound", unacceptable=0.02)
    for name, upper in (("broken", 0.93), ("sound", 0.99)):
        series.append({"series": f'locum_parity{{policy="{name}",bound="upper"}}', "values": f"{upper}x600"})
    firing = 'count by (alertname, policy) (ALERTS{alertstate="firing"})'
    alerts = ("LocumParityBelowFloor", "LocumParityAtRisk")
    check(tmp_path, series, {firing: {f'{{alertname="{a}", policy="broken"}}': 1 for a in alerts}})


def test_the_guards_alarm_is_told_at_once(tmp_path: Path) -> None:
    series = [
        {"series": 'locum_guard_alarm{policy="a"}', "values": "0x599 1x1"},
        {"series": 'locum_guard_alarm{policy="b"}', "values": "0x600"},
        {"series": 'up{job="locum",instance="proxy:8080"}', "values": "1x600"},
    ]
    firing = 'count by (alertname, policy) (ALERTS{alertstate="firing"})'
    check(tmp_path, series, {firing: {'{alertname="LocumGuardAlarm", policy="a"}': 1}})


def test_shifted_scores_and_a_new_kind_of_requests_raise_their_alerts(tmp_path: Path) -> None:
    series = [
        {"series": 'locum_score_shift{policy="a"}', "values": "0.2x600"},
        {"series": 'locum_score_shift{policy="b"}', "values": "0.1x600"},
        *({"series": f'locum_score_shift_bound{{policy="{p}"}}', "values": "0.15x600"} for p in "ab"),
        {"series": 'locum_new_cluster_requests{policy="b",cluster="kubernetes pod"}', "values": "12x600"},
        {"series": 'locum_new_cluster_requests{policy="b",cluster="gone"}', "values": "0x600"},
        {"series": 'up{job="locum",instance="proxy:8080"}', "values": "1x600"},
    ]
    firing = 'count by (alertname, policy) (ALERTS{alertstate="firing"})'
    alerts = ('{alertname="LocumScoresShifted", policy="a"}', '{alertname="LocumNewKindOfRequests", policy="b"}')
    check(tmp_path, series, {firing: dict.fromkeys(alerts, 1)})


def test_a_student_that_is_down_and_a_record_that_is_lost_raise_their_alerts(tmp_path: Path) -> None:
    series = [
        {"series": 'locum_student_up{policy="a"}', "values": "1x590 0x9"},
        {"series": 'locum_records_dropped_total{instance="proxy:8080"}', "values": "0x597 3x2"},
        {"series": 'up{job="locum",instance="proxy:8080"}', "values": "1x600"},
    ]
    firing = 'count by (alertname) (ALERTS{alertstate="firing"})'
    alerts = ("LocumStudentDown", "LocumRecordsDropped")
    check(tmp_path, series, {firing: {f'{{alertname="{a}"}}': 1 for a in alerts}})


def test_what_befalls_the_log_and_the_money_raises_its_alert(tmp_path: Path) -> None:
    series = [
        {"series": 'locum_store_errors_total{instance="proxy:8080"}', "values": "0x580 1+1x20"},
        {"series": 'locum_records_reduced_total{instance="proxy:8080",cause="queue_full"}', "values": "0x597 3x2"},
        {"series": 'locum_records_unreadable{instance="proxy:8080"}', "values": "0x500 2x100"},
        {"series": 'locum_home_lost{instance="proxy:8080"}', "values": "0x595 1x5"},
        {"series": 'locum_home_lost{instance="other:8080"}', "values": "1x600"},
        *(
            {"series": f'locum_budget_usd{{policy="{policy}",part="{part}"}}', "values": f"{usd}x600"}
            for policy, spent in (("spent", 9.9), ("thrifty", 1))
            for part, usd in (("cap", 10), ("spent", spent), ("held", 0.1))
        ),
        {"series": 'up{job="locum",instance="proxy:8080"}', "values": "1x600"},
    ]
    firing = 'count by (alertname, instance, policy) (ALERTS{alertstate="firing"})'
    names = ("RecordsRefused", "RecordsReduced", "RecordsUnreadable", "HomeLost")
    alerts = {f'{{alertname="Locum{name}", instance="proxy:8080"}}': 1.0 for name in names}
    check(tmp_path, series, {firing: alerts | {'{alertname="LocumBudgetSpent", policy="spent"}': 1.0}})


def test_a_teacher_that_is_down_raises_its_alert_and_one_that_fails_now_and_then_does_not(tmp_path: Path) -> None:
    failures = 'locum_teacher_failures_total{policy="%s",cause="%s"}'
    series = [
        *(grown(REQUESTS % (name, "teacher"), 20) for name in ("a", "b", "c")),
        grown(failures % ("a", "unreachable"), 30),
        grown(failures % ("b", "unreachable"), 2),
        grown(failures % ("c", "unable"), 30),  # too long for it: the requests' own fault
        {"series": 'up{job="locum",instance="proxy:8080"}', "values": "1x600"},
    ]
    firing = 'count by (alertname, policy) (ALERTS{alertstate="firing"})'
    check(tmp_path, series, {firing: {'{alertname="LocumTeacherDown", policy="a"}': 1}})


def test_what_clients_forced_and_what_failures_moved_breaks_no_parity(tmp_path: Path) -> None:
    forced = 'locum_requests_total{policy="sound",tier="student",reason="%s",status_class="2xx"}'
    series = policy_under_traffic("sound", unacceptable=0.02)
    series += [grown(forced % reason, 500) for reason in ("override", "fallback")]
    shares = {"locum:student_share:ratio24h": {'{policy="sound"}': 0.8}}
    check(tmp_path, series, {**shares, "locum:parity:estimate24h": {'{policy="sound", bundle="b1"}': 0.984}})


def test_a_bundle_that_is_gone_raises_no_alarm_and_no_bundles_audits_are_pooled(tmp_path: Path) -> None:
    gone = [
        {**line, "series": line["series"].replace("b1", "b0")} for line in policy_under_traffic("a", unacceptable=0.5)
    ]
    gone = [line for line in gone if "b0" in line["series"] and "bundle_info" not in line["series"]]
    series = [*policy_under_traffic("a", unacceptable=0.02), *gone]
    firing = 'count by (alertname, policy) (ALERTS{alertstate="firing"})'
    told = {f'{{policy="a", bundle="{bundle}"}}': parity for bundle, parity in (("b0", 0.6), ("b1", 0.984))}
    check(tmp_path, series, {firing: {}, "locum:parity:estimate24h": told})

"""One number for one thing: headers, ``locum status``, metrics by the recording rules, replay and economics."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from distiller.economics.flow import Rates, flow_of
from distiller.replay.log import read_log
from distiller.replay.report import outlook_of
from distiller.replay.traffic import traffic_of
from router.contracts.bundles import activate
from router.contracts.definitions import parity, saved_usd
from router.contracts.records import Record
from router.policy.policy import load_policy
from router.reports.status import figures_of
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.text.features import extract
from router.settings import Settings
from tests.fakes import FakeUpstream, Script, World, served, until, world
from tests.manifests import complete
from tests.test_rules import PROMETHEUS, promtool

VECTORS = {"data": [{"embedding": [0.5], "index": 0}], "usage": {"prompt_tokens": 40, "total_tokens": 40}}
PRICE = "2"
BUNDLE = "b1"


@dataclass
class Mixed:
    """A proxy after mixed traffic, and what its clients were told in headers."""

    proxy: World
    settings: Settings
    told: list[httpx.Headers] = field(default_factory=list)

    @property
    def records(self) -> list[Record]:
        """All but what was embedded."""
        return [r for r in self.proxy.records() if not r.embedding]

    def status(self) -> dict[str, Any]:
        return figures_of([self.proxy.policy_file], hours=1, settings=self.settings)["default"]

    def ask(self, text: str, model: str = "gpt-4o", *, stream: bool = False, **headers: str) -> None:
        body = {"model": model, "messages": [{"role": "user", "content": text}], "stream": stream}
        answer = httpx.post(f"{self.proxy.url}/v1/chat/completions", json=body, headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text
        self.told.append(answer.headers)

    def leave(self, text: str) -> None:
        """Begins to read a stream, and goes."""
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], "stream": True}
        with httpx.stream("POST", f"{self.proxy.url}/v1/chat/completions", json=body, timeout=60) as answer:
            next(answer.iter_bytes())
        until(lambda: any(r.status == 499 for r in self.records))

    def embed(self) -> None:
        answer = httpx.post(f"{self.proxy.url}/v1/embeddings", json={"model": "embed", "input": "hello"}, timeout=60)
        assert answer.status_code == 200
        self.told.append(answer.headers)


def student(body: dict[str, Any]) -> Script:
    text = str(body["messages"][-1]["content"])
    odd = {"fee": Script(text="wrong"), "crash": Script(status=500), "long": Script(text="a b c d e f", hang_after=5)}
    return next((script for word, script in odd.items() if word in text), Script(text="right"))


def publish(settings: Settings) -> None:
    """A bundle that keeps the student for all but proofs."""
    folder = settings.bundles("default")
    texts = [(f"what is my {word} {n}", True) for n in range(40) for word in ("balance", "fee", "crash", "long story")]
    texts += [(f"prove the theorem {n}", False) for n in range(160)]
    examples = [Example(extract({"messages": [{"role": "user", "content": t}]}), None, ok) for t, ok in texts]
    Scorer.fit(examples, encoder=None).save(folder / BUNDLE / "scorer")
    complete(folder, BUNDLE, created_at=time.time(), cost_usd="0.01")
    activate(folder, BUNDLE)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mixed]:
    folder = tmp_path_factory.mktemp("mixed")
    settings = Settings(home=folder / "home", cache=folder / "cache")
    publish(settings)
    vectors = FakeUpstream("embed")
    vectors.always(raw=orjson.dumps(VECTORS))
    with served(vectors) as url:
        embeddings = {"model": "embed", "url": f"{url}/v1", "usd_per_million": PRICE}
        audit = {"rate": 0.7, "warmup_rate": 0, "explore": 0, "usd_per_day": 1000}
        changes = {"objective": {"threshold": 0.5}, "accept": {"cascade": False}, "embeddings": embeddings}
        with world(folder, audit=audit, judge="exact", **changes) as proxy:
            proxy.student.answer, proxy.teacher.answer = student, lambda body: Script(text="right")
            live = f'locum_bundle_info{{bundle="{BUNDLE}",policy="default"}} 1'
            until(lambda: live in httpx.get(f"{proxy.url}/metrics").text)
            found = Mixed(proxy, settings)
            for n in range(8):
                for ask in ("balance", "fee", "balance of a@example.com"):
                    found.ask(f"what is my {ask} {n}")
                found.ask(f"what is my balance by now {n}", stream=True)
                found.ask(f"prove the theorem {n}", stream=n % 2 == 0)
            for model in ("locum/student", "locum/teacher"):
                found.ask("what is my fee", model)
            found.ask("what is my fee", **{"x-locum-tier": "student"})
            found.ask("what is my crash")
            found.leave("what is my long story")
            found.embed()
            until(lambda: any(r.embedding for r in proxy.records()))
            until(lambda: all(r.audit for r in found.records if r.decision.audited and r.is_traffic))
            yield found


def test_the_traffic_was_mixed(mixed: Mixed) -> None:
    records = mixed.records
    assert sum(not r.is_traffic for r in records) == 4
    assert {r.status for r in records} == {200, 499}
    said = mixed.status()
    assert said["embeddings"] == 1 and said["spend_usd"]["teacher/audited"] != "0"
    assert 0 < said["student_share"] < 1
    assert 0 < said["parity"][BUNDLE]["estimate"] < 1


def test_what_clients_were_told_adds_up_to_what_status_says(mixed: Mixed) -> None:
    """But for what comes after an answer: what was audited and trained, and money of what was streamed."""
    records = {r.request_id: r for r in mixed.records}
    told = [h for h in mixed.told if "x-locum-saved-usd" in h]
    rest = records.keys() - {h["x-locum-request-id"] for h in told}
    saved = sum((Decimal(h["x-locum-saved-usd"]) for h in told), Decimal(0))
    for request_id in rest:
        record = records[request_id]
        saved += saved_usd(record.counterfactual_usd, sum((a.cost_usd for a in record.answers), Decimal(0)))
    said = mixed.status()
    spent = {kind: Decimal(usd) for kind, usd in said["spend_usd"].items()}
    later = sum(
        (usd for kind, usd in spent.items() if kind.split("/")[1] in ("audited", "judged", "trained")), Decimal(0)
    )
    assert len(told) > 20 and 0 < len(rest) < len(records)
    assert saved - later == Decimal(said["saved_usd"])
    costs = sum((Decimal(h["x-locum-cost-usd"]) for h in mixed.told if "x-locum-cost-usd" in h), Decimal(0))
    costs += sum((a.cost_usd for name in rest for a in records[name].answers), Decimal(0))
    assert costs + later == Decimal(said["spent_usd"]) + Decimal(said["embeddings_usd"])


@pytest.mark.skipif(shutil.which("promtool") is None and "LOCUM_CI" not in os.environ, reason="needs Prometheus")
def test_the_recording_rules_give_what_status_says(mixed: Mixed, tmp_path: Path) -> None:
    said, quality = mixed.status(), mixed.status()["parity"][BUNDLE]
    series = []
    for family in text_string_to_metric_families(httpx.get(f"{mixed.proxy.url}/metrics").text):
        for s in family.samples:
            if s.name.endswith(("_total", "_usd")) and s.labels.get("policy") == "default":
                labels = ",".join(f'{k}="{v}"' for k, v in s.labels.items())
                series.append({"series": f"{s.name}{{{labels}}}", "values": f"0 {s.value!r}x600"})
    expected = {
        "locum:student_share:ratio24h": said["student_share"],
        "locum:net_saving_usd:increase24h": float(said["saved_usd"]),
        f'locum:parity:estimate24h{{bundle="{BUNDLE}"}}': quality["estimate"],
        f'locum:student_audits:increase24h{{bundle="{BUNDLE}"}}': quality["student_audits"],
        "sum(increase(locum_counterfactual_usd_total[24h]))": float(said["teacher_alone_usd"]),
    }
    near = [  # a gauge's delta is stretched to the window's ends, a counter's increase from 0 is not
        {"expr": f"abs(sum({query}) - ({value!r})) < bool 1e-5", "eval_time": "10h", "exp_samples": [{"value": 1}]}
        for query, value in expected.items()
    ]
    unit = {
        "rule_files": [str(PROMETHEUS / "rules.yml")],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": near}],
    }
    (tmp_path / "unit.yml").write_text(json.dumps(unit))
    assert "SUCCESS" in promtool("test", "rules", str(tmp_path / "unit.yml"))


def test_economics_and_replay_reckon_with_what_status_says(mixed: Mixed) -> None:
    policy, said = load_policy(mixed.proxy.policy_file), mixed.status()
    flow = flow_of(mixed.records, Rates(policy.student.usd_per_million))
    assert {tier.value: n for tier, n in flow.served.items()} == said["traffic"]
    assert flow.share == said["student_share"]
    aside = sum((r.saved_usd for r in mixed.records if not r.is_traffic), Decimal(0))
    trained = Decimal(said["spend_usd"]["student/trained"])
    assert saved_usd(flow.alone, flow.spent) + aside - trained == Decimal(said["saved_usd"])
    rows, _ = read_log(mixed.records, [policy])
    assert len(rows) == sum(said["traffic"].values())
    scorer = Scorer.load(mixed.settings.bundles("default") / BUNDLE / "scorer", None)
    traffic = traffic_of(rows, 0, policy, scorer, BUNDLE)
    mine = outlook_of("default", traffic, policy, None, ahead=1000)
    assert mine.lasting["share"].estimate == pytest.approx(said["student_share"])
    risk = mine.by_audits["risk"].estimate
    assert parity(said["student_share"], risk) == pytest.approx(said["parity"][BUNDLE]["estimate"])

"""Every query of the Grafana dashboard returns data: a real Prometheus scrapes a real proxy under traffic."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from router.contracts.bundles import activate
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.text.features import extract
from router.settings import Settings
from tests.fakes import Script, until, world
from tests.manifests import complete

DASHBOARDS = Path(__file__).parent.parent / "dashboards"
DASHBOARD = json.loads((DASHBOARDS / "grafana" / "locum.json").read_text())
QUERIES = [
    pytest.param(target["expr"], id=f"{panel['title']}-{target['refId']}")
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", [])
]
GRAFANA = {"$__rate_interval": "15s", "$__range": "5m", "$policy": ".*"}
LIVE = re.compile(r'^locum_bundle_info\{bundle="b1",policy="default"\} 1', re.M)
PATIENCE_SECONDS = 60.0

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None and "LOCUM_CI" not in os.environ,
    reason="needs Prometheus (apt-get install prometheus)",
)


def get(url: str, **parameters: str) -> Any:
    with urllib.request.urlopen(f"{url}?{urllib.parse.urlencode(parameters)}", timeout=10) as answer:
        body = answer.read()
    return json.loads(body) if body.startswith(b"{") else body.decode()


def free_port() -> int:
    with closing(socket.socket()) as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def process(log: Path, *command: str) -> Iterator[None]:
    with log.open("wb") as out:
        running = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            yield
        finally:
            running.terminate()
            try:
                running.wait(20)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


def student(body: Mapping[str, Any]) -> Script:
    """Right on most; wrong on fees, silent on riddles, failing on demand."""
    text = str(body["messages"][-1]["content"])
    odd = {"fee": Script(text="wrong"), "riddle": Script(text=""), "crash": Script(status=500)}
    return next((script for word, script in odd.items() if word in text), Script(text="right"))


def publish_bundle(settings: Settings) -> None:
    """A bundle that keeps the student and sends proofs to the teacher."""
    folder = settings.bundles("default")
    texts = [(f"what is my {word} {n}", True) for n in range(40) for word in ("balance", "fee", "riddle", "crash")]
    texts += [(f"prove the theorem {n}", False) for n in range(160)]
    examples = [Example(extract({"messages": [{"role": "user", "content": t}]}), None, ok) for t, ok in texts]
    Scorer.fit(examples, encoder=None).save(folder / "b1" / "scorer")
    complete(folder, "b1", created_at=time.time(), cost_usd="0.01")
    activate(folder, "b1")


@dataclass
class Traffic:
    """A client of the proxy at ``url`` that counts what it was answered."""

    url: str
    answered: int = 0

    def __post_init__(self) -> None:
        self._client = openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)
        self._numbers = itertools.count()

    def send(self) -> None:
        """One of each kind: served, served badly, deferred, failed over, escalated by score, unfit, streamed."""
        n = next(self._numbers)
        picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
        for ask in ("balance", "balance", "balance", "fee", "riddle", "crash"):
            self._ask(f"what is my {ask} {n}")
        self._ask(f"prove the theorem {n}")
        self._ask([{"type": "text", "text": f"what is on this {n}"}, picture])
        self._ask(f"what is my balance by now {n}", stream=True)
        self._ask(f"prove the theorem by now {n}", stream=True)

    def _ask(self, content: Any, stream: bool = False) -> None:
        answer: Any = self._client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": content}], stream=stream
        )
        assert list(answer)
        self.answered += 1


@dataclass(frozen=True)
class Prometheus:
    url: str

    def scraped(self) -> bool:
        """Whether it is up, and has scraped the proxy once."""
        try:
            return self.query('up{job="locum"} == 1') == [1]
        except OSError:
            return False

    def query(self, expression: str) -> list[float]:
        """The samples that an instant query gives now."""
        result = get(f"{self.url}/api/v1/query", query=expression)["data"]["result"]
        return [float(sample["value"][1]) for sample in result]


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traffic]:
    folder = tmp_path_factory.mktemp("proxy")
    settings = Settings(home=folder / "home", cache=folder / "cache")
    publish_bundle(settings)
    objective = {"parity": {"at_least": 0.6, "confidence": 0.95}}
    audit = {"rate": 0.8, "usd_per_day": 1000, "concurrency": 4}
    with world(folder, objective=objective, audit=audit, judge="exact") as running:
        running.student.answer, running.teacher.answer = student, lambda body: Script(text="right")
        until(lambda: LIVE.search(get(f"{running.url}/metrics")), PATIENCE_SECONDS)
        yield Traffic(running.url)


@pytest.fixture(scope="module")
def prometheus(traffic: Traffic, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    config = yaml.safe_load((DASHBOARDS / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(DASHBOARDS / "prometheus" / name) for name in config["rule_files"]]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [urllib.parse.urlsplit(traffic.url).netloc]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    flags = {
        "config.file": folder / "prometheus.yml",
        "storage.tsdb.path": folder / "data",
        "web.listen-address": f"127.0.0.1:{port}",
    }
    with process(folder / "log", "prometheus", *(f"--{flag}={value}" for flag, value in flags.items())):
        found = Prometheus(f"http://127.0.0.1:{port}")
        until(found.scraped, PATIENCE_SECONDS)
        yield found


@pytest.mark.parametrize("expression", QUERIES)
def test_the_query_returns_data(prometheus: Prometheus, traffic: Traffic, expression: str) -> None:
    for variable, value in GRAFANA.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression
    until(lambda: any(map(math.isfinite, prometheus.query(expression))) or traffic.send(), PATIENCE_SECONDS)


def test_prometheus_counts_what_the_client_was_answered(prometheus: Prometheus, traffic: Traffic) -> None:
    traffic.send()
    until(lambda: prometheus.query("sum(locum_requests_total)") == [traffic.answered])


def test_figures_stay_within_what_they_mean(prometheus: Prometheus, traffic: Traffic) -> None:
    def told() -> object:
        figures = [prometheus.query(f"locum:{x}24h > 0 < 1") for x in ("student_share:ratio", "parity:estimate")]
        return all(len(found) == 1 for found in figures) or traffic.send()

    until(told, PATIENCE_SECONDS)
    assert prometheus.query("sum(locum_records_dropped_total)") == [0]


def test_the_dashboards_variables_find_their_values(prometheus: Prometheus) -> None:
    (variable,) = (v for v in DASHBOARD["templating"]["list"] if v["type"] == "query")
    metric, label = re.findall(r"\w+", variable["definition"])[1:]
    assert get(f"{prometheus.url}/api/v1/label/{label}/values", **{"match[]": metric})["data"] == ["default"]


def test_panels_use_the_chosen_data_source_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not taken & cells, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
        for target in panel.get("targets", []):
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}

"""`locum distill ...` as a user types it, on real bundles and a real log."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from distiller.bundles import Draft, write_bundle
from distiller.cli import app
from distiller.data.dataset import read
from distiller.home import Work, remember
from router.contracts.bundles import DatasetRef, Evidence, Thresholds, activate, read_active
from router.contracts.decision import Decision, Reason, Tier
from router.contracts.records import Answer, AnswerKind, Record, Rights
from router.errors import BundleError
from router.policy.policy import load_policy
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.text.features import extract
from router.settings import Settings
from router.store.access import open_store

POLICY = {
    "name": "p",
    "student": {"model": "small", "engine": "embedded", "usd_per_million": {"input": 0, "output": 0}},
    "teacher": {"model": "t", "training_rights": "allowed"},
    "objective": {"parity": {"at_least": 0.95}},
    "distil": {"min_new_records": 100},
}


class Home:
    """A home with a policy file, and the command line in it."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(home=folder / "home")
        self.policy_file = folder / "policy.yaml"
        self.policy_file.write_text(yaml.safe_dump(POLICY))
        self.policy = load_policy(self.policy_file)
        self.bundles = self.settings.bundles("p")

    def __call__(self, command: str, *more: str) -> Result:
        env = {"LOCUM_HOME": str(self.settings.home), "COLUMNS": "200"}
        return CliRunner().invoke(app, [*command.split(), "-p", str(self.policy_file), *more], env=env)

    def bundle(self, at: float, student: Path | None = None, parent: str | None = None) -> str:
        features = [extract({"messages": [{"role": "user", "content": f"say {i}"}]}) for i in range(20)]
        draft = Draft(
            scorer=Scorer.fit([Example(f, None, i % 2 == 0) for i, f in enumerate(features)], None),
            thresholds=Thresholds(route=0.5, accept=0.5, evidence=evidence()),
            dataset=DatasetRef(sha256="d" * 64, train=321, dev=1, holdout=1),
            student=student,
            parent=parent,
            evaluation={"holdout": {"acceptable_rate": 0.875}},
            gate={"reasons": ["cheaper: much"]},
        )
        return write_bundle(self.bundles, self.policy, draft, now=at).bundle_id

    def log(self, n: int, audited: int, rights: Rights = Rights.ALLOWED) -> None:
        store = open_store(self.settings, [self.policy])

        async def write() -> None:
            for i in range(n):
                store.append(record(i, drawn=i < audited, rights=rights))
            await store.flush()

        asyncio.run(write())
        store.close()


def evidence() -> Evidence:
    return Evidence(
        target=0.95, confidence=0.95, examples=200, served=90, unacceptable=1, risk_bound=0.03, method="exact"
    )


def record(i: int, *, drawn: bool, rights: Rights) -> Record:
    message = {"role": "assistant", "content": f"answer {i * 7919}"}
    answer = Answer(
        tier=Tier.TEACHER,
        kind=AnswerKind.SERVED,
        model="t",
        message=message,
        training_rights=rights,
        finish_reason="stop",
    )
    return Record(
        request_id=f"r{i}",
        conversation_id=f"c{i}",
        created_at=time.time() - 1000 + i,
        policy="p",
        policy_version="v",
        features_version="1",
        decision=Decision(tier=Tier.TEACHER, reason=Reason.COLD_START, audited=drawn),
        tier=Tier.TEACHER,
        reason=Reason.COLD_START,
        request={"messages": [{"role": "user", "content": f"question {i * 104729} about {i * 31 % 97}"}]},
        answers=[answer],
    )


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_help_lists_every_command() -> None:
    shown = CliRunner().invoke(app, ["--help"]).output
    assert all(c in shown for c in ("run", "watch", "status", "list", "rollback", "activate", "dataset"))


def test_status_says_what_is_live_and_what_the_next_round_waits_for(home: Home) -> None:
    home.log(40, audited=10)
    shown = home("status").output
    assert "the base student alone" in shown
    assert "30 of 100 new trainable records" in shown


def test_run_waits_for_the_trigger_and_says_how_to_run_anyway(home: Home) -> None:
    home.log(40, audited=10)
    ran = home("run")
    assert ran.exit_code == 0
    assert "No round is due" in ran.output
    assert "--force" in ran.output


def test_watch_looks_once_and_ends_where_nothing_is_due(home: Home) -> None:
    ran = home("watch", "--once")
    assert ran.exit_code == 0
    assert "nothing to do" in ran.output


def test_a_round_without_rights_trains_nothing_and_says_so(home: Home) -> None:
    home.log(150, audited=30, rights=Rights.UNKNOWN)
    file = dict(POLICY, teacher={"model": "t"})
    home.policy_file.write_text(yaml.safe_dump(file))
    shown = home("dataset build", "--out", str(home.settings.home / "data")).output
    assert "refused: t: unknown" in shown
    assert "0 of 100 new trainable records" in home("status").output


def test_dataset_shows_splits_rights_and_writes_the_files(home: Home) -> None:
    home.log(150, audited=30)
    out = home.settings.home / "data"
    shown = home("dataset build", "--out", str(out)).output
    assert "holdout" in shown
    assert "trained on by right: t: allowed" in shown
    assert len(read(out / "holdout.parquet")) == 30


def test_list_shows_each_bundle_with_its_parent_share_and_verdict(home: Home) -> None:
    first = home.bundle(1e9)
    second = home.bundle(1e9 + 60, parent=first)
    activate(home.bundles, first)
    activate(home.bundles, second)
    output = home("list").output
    lines = output.splitlines()
    row = next(line for line in lines if second in line)
    assert all(part in row for part in ("live", first[-6:], "321 rows", "87.5%", "45.0%"))
    assert f"…{second[-6:]}  cheaper: much" in output
    assert any("before" in line and first in line for line in lines)


def test_rollback_goes_back_and_a_second_one_undoes_it(home: Home) -> None:
    first, second = home.bundle(1e9), home.bundle(1e9 + 60)
    activate(home.bundles, first)
    activate(home.bundles, second)
    shown = home("rollback").output
    assert first in shown
    assert "no proxy is running" in shown
    assert read_active(home.bundles).bundle == first
    home("rollback")
    assert read_active(home.bundles).bundle == second


def test_activate_takes_a_bundle_or_the_base_student_and_refuses_what_cannot_serve(home: Home, tmp_path: Path) -> None:
    student = tmp_path / "student"
    student.mkdir()
    (student / "model.safetensors").write_bytes(b"x")
    made = home.bundle(1e9, student=student)
    assert home("activate", made).exit_code == 0
    assert read_active(home.bundles).bundle == made
    assert home("activate", "base").exit_code == 0
    assert read_active(home.bundles).bundle is None
    (home.bundles / made / "student" / "model.safetensors").unlink()
    (home.bundles / made / "student").rmdir()
    for wrong in (made, "20200101-000000-abcdef"):
        refused = home("activate", wrong)
        assert isinstance(refused.exception, BundleError)
        assert read_active(home.bundles).bundle is None


def test_status_tells_how_the_last_round_ended_and_of_an_interrupted_one(home: Home) -> None:
    tally = {"seq": 1, "trainable": 90, "audited": 60}
    reasons = ["slice task=intent: 0.71 -> 0.64"]
    remember(home.settings.work("p"), {"kind": "train", "at": 1e9, "bundle": None, "reasons": reasons, "tally": tally})
    Work.open(home.settings.work("p"), {"kind": "train"})
    shown = home("status").output
    assert "nothing published" in shown
    assert "slice task=intent: 0.71 -> 0.64" in shown
    assert "interrupted" in shown


class Proxy(ThreadingHTTPServer):
    """Says it is ready, with the bundle that the pointer names, after it was asked twice."""

    daemon_threads = True

    def __init__(self, bundles: Path) -> None:
        super().__init__(("127.0.0.1", 0), Ready)
        self.bundles, self.asked = bundles, 0


class Ready(BaseHTTPRequestHandler):
    server: Proxy

    def do_GET(self) -> None:
        self.server.asked += 1
        bundle = read_active(self.server.bundles).bundle if self.server.asked > 2 else None
        state = {"policy": "p", "bundle": bundle, "student": {"ready": True}}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"policies": [state]}).encode())

    def log_message(self, format: str, *args: Any) -> None:
        return


@pytest.fixture
def proxy(home: Home) -> Iterator[Proxy]:
    server = Proxy(home.bundles)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home.settings.run.mkdir(parents=True)
    url = f"http://127.0.0.1:{server.server_address[1]}"
    (home.settings.run / "proxy.json").write_text(json.dumps({"pid": 1, "url": url}))
    yield server
    server.shutdown()
    server.server_close()


def test_activation_waits_until_the_running_proxy_serves_the_bundle(home: Home, proxy: Proxy) -> None:
    made = home.bundle(1e9)
    shown = home("activate", made).output
    assert f"{made} is live at http://127.0.0.1" in shown
    assert proxy.asked > 2


def test_a_proxy_that_is_gone_is_not_waited_for(home: Home, proxy: Proxy) -> None:
    proxy.shutdown()
    proxy.server_close()
    assert "no proxy is running" in home("activate", "base").output

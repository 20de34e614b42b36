"""What runs a proxy for good: a backup taken under traffic is a home, and the units name what is there."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from router.settings import Settings
from router.store.access import open_readonly
from tests.commands import command, started
from tests.fakes import until

DEPLOY = Path(__file__).parents[1] / "deploy"
OPERATIONS = (Path(__file__).parents[1] / "docs" / "operations.md").read_text()


def backup(home: Path, to: Path) -> subprocess.CompletedProcess[str]:
    line = ["sh", str(DEPLOY / "backup.sh"), str(home), str(to)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, env={"PYTHON": sys.executable})


def records(home: Path) -> set[str]:
    reader = open_readonly(Settings(home=home))
    try:
        return {record.request_id for _, record in reader.records()}
    finally:
        reader.close()


def ask(url: str, text: str) -> str:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}
    return str(httpx.post(f"{url}/v1/chat/completions", json=body).headers["x-locum-request-id"])


def test_a_backup_under_traffic_is_a_home_that_a_proxy_goes_on_with(tmp_path: Path) -> None:
    to = tmp_path / "backup"
    with command(tmp_path) as proxy:
        bundles = proxy.home / "bundles" / "default"
        bundles.mkdir(parents=True)
        (bundles / "active.json").write_text('{"bundle": null}')
        before = {ask(proxy.url, f"before {n}") for n in range(5)}
        until(lambda: before <= records(proxy.home))
        enough = threading.Event()

        def traffic() -> None:
            while not enough.is_set():
                ask(proxy.url, "meanwhile")

        asking = threading.Thread(target=traffic)
        asking.start()
        done = backup(proxy.home, to)
        enough.set()
        asking.join()
        assert done.returncode == 0, done.stderr
        for path in sorted(proxy.home.iterdir()):
            name = path.name.removesuffix("-wal").removesuffix("-shm")
            assert f"`{name}`" in OPERATIONS or f"`{name}/`" in OPERATIONS, f"{name} is not in docs/operations.md"
    assert before <= records(to)
    assert (to / "bundles" / "default" / "active.json").read_text() == '{"bundle": null}'
    assert all(path.stat().st_mode & 0o077 == 0 for path in (to, to / "records.db"))
    again = started(proxy.policy_file, to, tmp_path / "again", {})
    try:
        told = to / "run" / "proxy.json"
        until(lambda: told.exists() or again.poll() is not None)
        assert told.exists(), (tmp_path / "again").read_text()
    finally:
        again.kill()
        again.wait()


def test_a_backup_is_never_mixed_with_an_older_one(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    assert backup(tmp_path / "home", tmp_path / "backup").returncode == 0
    assert backup(tmp_path / "home", tmp_path / "backup").returncode != 0


@pytest.mark.parametrize("unit", sorted(DEPLOY.glob("*.service")), ids=lambda p: p.name)
def test_a_unit_starts_a_command_that_is_there(unit: Path) -> None:
    told = configparser.ConfigParser(strict=False, interpolation=None)
    told.optionxform = str  # type: ignore[assignment,method-assign]
    told.read(unit)
    line = told["Service"]["ExecStart"].split()
    assert line[0].endswith("/.venv/bin/locum")
    asked = [sys.executable, "-m", "router.cli", *line[1 : line.index("--policy")], "--help"]
    ran = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert set(re.findall(r"(LOCUM_\w+)=", told["Service"]["Environment"])) == {"LOCUM_HOME", "LOCUM_CACHE"}

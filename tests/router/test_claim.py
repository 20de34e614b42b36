"""One proxy a home, and no file that a dead one left stands in the way of the next."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from router.claim import claimed
from router.errors import LocumError
from router.settings import Settings
from router.status import show
from tests.commands import Command, command, started
from tests.fakes import DEADLINE_SECONDS, until


def refused(proxy: Command, home: Path, *options: str) -> str:
    """What a second proxy says instead of serving."""
    errors = proxy.folder / "refused"
    process = started(proxy.policy_file, home, errors, {}, options)
    assert process.wait(DEADLINE_SECONDS) == 1
    said = errors.read_text()
    errors.unlink()
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_proxy_on_one_home_is_told_who_serves_it(tmp_path: Path, workers: str) -> None:
    with command(tmp_path, options=("--workers", workers)) as proxy:
        run_file = proxy.home / "run" / "proxy.json"
        for more in ("1", "2"):
            said = refused(proxy, proxy.home, "--workers", more)
            assert said.startswith("locum: ") and said.count("\n") == 1
            assert proxy.url in said and f"(pid {proxy.process.pid})" in said
            assert json.loads(run_file.read_text()) == {"pid": proxy.process.pid, "url": proxy.url}
        assert not list((tmp_path / "home" / "run").glob("*.tmp"))
        assert list((proxy.home / "run" / "metrics").iterdir()) if workers == "2" else True
        port = proxy.url.rsplit(":", 1)[1]
        said = refused(proxy, tmp_path / "other", "--port", port)
        assert said == f"locum: cannot listen on 127.0.0.1:{port}: Address already in use\n"
        assert not (tmp_path / "other" / "run" / "proxy.json").exists()


def test_the_next_proxy_starts_after_one_that_was_killed(tmp_path: Path) -> None:
    with command(tmp_path) as proxy:
        proxy.process.kill()
        proxy.process.wait(DEADLINE_SECONDS)
        run_file = proxy.home / "run" / "proxy.json"
        left = json.loads(run_file.read_text())
        run_file.write_text(json.dumps(left | {"pid": os.getpid()}))  # its id, used again by somebody
        next_one = started(proxy.policy_file, proxy.home, proxy.folder / "errors", {})
        try:
            until(lambda: json.loads(run_file.read_text())["pid"] == next_one.pid or next_one.poll() is not None)
        finally:
            next_one.kill()
            next_one.wait(DEADLINE_SECONDS)


def test_a_claim_is_given_back(tmp_path: Path) -> None:
    run = tmp_path / "home" / "run"
    with claimed(run) as claim:
        claim.tell("http://127.0.0.1:1")
        with pytest.raises(LocumError, match=f"http://127.0.0.1:1 .pid {os.getpid()}. serves .*home"), claimed(run):
            pass
        assert (run / "proxy.json").exists()
    assert list(run.iterdir()) == []
    with claimed(run):
        pass


def test_a_public_address_without_keys_is_told_everywhere(tmp_path: Path) -> None:
    with command(tmp_path, options=("--host", "0.0.0.0")) as proxy:
        url = proxy.url.replace("0.0.0.0", "127.0.0.1")
        assert "unprotected" in proxy.errors and "LOCUM_API_KEYS" in proxy.errors
        problems = httpx.get(f"{url}/health/ready").json()["problems"]
        assert len(problems) == 1 and "LOCUM_API_KEYS" in problems[0]
        console = Console(width=300, file=io.StringIO())
        show([proxy.policy_file], hours=1, settings=Settings(home=proxy.home), console=console)
        assert "LOCUM_API_KEYS" in console.file.getvalue()  # type: ignore[attr-defined]

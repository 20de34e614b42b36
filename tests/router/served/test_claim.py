"""One proxy a home, and no file that a dead one left stands in the way of the next."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import httpx
import orjson
import pytest
from rich.console import Console

from router.contracts.files import RunFile, read_run_file
from router.errors import LocumError
from router.reports.status import show
from router.served.claim import ClaimWatch, claimed
from router.settings import Settings
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
            assert read_run_file(run_file.parent) == RunFile(proxy.process.pid, proxy.url)
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


def status_of(proxy: Command) -> str:
    console = Console(width=400, file=io.StringIO())
    show([proxy.policy_file], hours=1, settings=Settings(home=proxy.home), console=console)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def counted(proxy: Command, name: str) -> float:
    text = httpx.get(f"{proxy.url}/metrics").raise_for_status().text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def ask(proxy: Command) -> None:
    asked = {"model": "locum/default", "messages": [{"role": "user", "content": "hi"}]}
    assert httpx.post(f"{proxy.url}/v1/chat/completions", json=asked).status_code == 200


LOSSES: dict[str, Callable[[Path], object]] = {
    "deleted": shutil.rmtree,
    "moved": lambda home: home.rename(home.with_name("moved")),
    "replaced": lambda home: (
        shutil.copytree(home, home.with_name("copy")),
        home.rename(home.with_name("moved")),
        home.with_name("copy").rename(home),
    ),
}


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_home_that_is_lost_under_a_running_proxy_is_claimed_anew(
    tmp_path: Path, workers: str, lose: Callable[[Path], object]
) -> None:
    with command(tmp_path, options=("--workers", workers)) as proxy:
        ask(proxy)
        until(lambda: counted(proxy, "locum_requests_total") == 1)
        lose(proxy.home)
        run = proxy.home / "run"
        anew = until(lambda: (found := read_run_file(run)) is not None and found.times_lost and found)
        assert anew == RunFile(proxy.process.pid, proxy.url, 1, anew.lost_at)
        assert read_run_file(proxy.home.with_name("moved") / "run") is None
        assert proxy.url in refused(proxy, proxy.home)
        until(lambda: counted(proxy, "locum_home_lost") == 1)
        ask(proxy)
        until(lambda: counted(proxy, "locum_requests_total") == 2)  # what was counted before is not forgotten
        said = until(lambda: "moved or replaced under the running proxy" in (text := status_of(proxy)) and text)
        assert f"proxy running at {proxy.url}" in said
        assert "home_lost" in proxy.errors and "Traceback" not in proxy.errors
        assert proxy.end() == -signal.SIGTERM
        assert read_run_file(run) is None


def test_a_proxy_whose_home_another_took_says_so_and_leaves_its_run_file_alone(tmp_path: Path) -> None:
    run = tmp_path / "home" / "run"
    watch = ClaimWatch(run, os.getpid(), lambda _: None)
    with claimed(run) as first:
        watch.look()
        assert watch.problems == []  # nothing was told yet
        first.tell("http://127.0.0.1:1")
        watch.look()
        assert watch.problems == []
        shutil.rmtree(run.parent)
        with claimed(run) as second:
            second.tell("http://127.0.0.1:2")
            (run / "proxy.json").write_bytes(orjson.dumps(asdict(RunFile(1, "http://127.0.0.1:2"))))  # as of a process
            first.look()
            watch.look()
            assert ["http://127.0.0.1:2 (pid 1) serves" in said for said in watch.problems] == [True]
            first.withdraw()
            assert read_run_file(run) == RunFile(1, "http://127.0.0.1:2")
            first.tell("http://127.0.0.1:1")
        first.look()
        watch.look()
        found = read_run_file(run)
        assert found is not None and (found.pid, found.url, found.times_lost) == (os.getpid(), "http://127.0.0.1:1", 1)
        assert ["laid anew" in said for said in watch.problems] == [True]


def test_a_run_folder_that_alone_is_deleted_is_laid_anew_and_the_home_is_there(tmp_path: Path) -> None:
    run = tmp_path / "home" / "run"
    watch = ClaimWatch(run, os.getpid(), lambda _: None)
    with claimed(run) as claim:
        claim.tell("http://127.0.0.1:1")
        for lose in (shutil.rmtree, lambda run: run.rename(run.with_name("moved"))):
            lose(run)
            claim.look()
            watch.look()
            assert watch.problems == [] and read_run_file(run) == RunFile(os.getpid(), "http://127.0.0.1:1")


def test_a_run_file_that_is_deleted_damaged_or_cannot_be_laid_is_told_and_laid_once_it_can_be(tmp_path: Path) -> None:
    run = tmp_path / "home" / "run"
    watch = ClaimWatch(run, os.getpid(), lambda _: None)
    with claimed(run) as claim:
        claim.tell("http://127.0.0.1:1")
        watch.look()
        for damage in ((run / "proxy.json").unlink, lambda: (run / "proxy.json").write_text("[1]")):
            damage()
            claim.look()
            assert read_run_file(run) == RunFile(os.getpid(), "http://127.0.0.1:1")
        shutil.rmtree(run.parent)
        run.parent.write_text("in the way")
        claim.look()
        watch.look()
        assert ["cannot be read" in said for said in watch.problems] == [True]
        run.parent.unlink()
        claim.look()
        assert read_run_file(run) is not None


def test_a_public_address_without_keys_is_told_everywhere(tmp_path: Path) -> None:
    with command(tmp_path, options=("--host", "0.0.0.0")) as proxy:
        url = proxy.url.replace("0.0.0.0", "127.0.0.1")
        assert "unprotected" in proxy.errors and "LOCUM_API_KEYS" in proxy.errors
        problems = httpx.get(f"{url}/health/ready").json()["problems"]
        assert len(problems) == 1 and "LOCUM_API_KEYS" in problems[0]
        console = Console(width=300, file=io.StringIO())
        show([proxy.policy_file], hours=1, settings=Settings(home=proxy.home), console=console)
        assert "LOCUM_API_KEYS" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_key_that_the_environment_lacks_is_told_by_its_name_everywhere(tmp_path: Path) -> None:
    teacher = {"model": "openai/gpt-4.1-mini", "fallbacks": ["anthropic/claude-sonnet-4-5"]}
    with command(tmp_path, teacher=teacher, env={"OPENAI_API_KEY": "", "ANTHROPIC_API_KEY": ""}) as proxy:
        (policy,) = httpx.get(f"{proxy.url}/health/ready").json()["policies"]
        told = [said for said in policy["problems"] if "environment" in said]  # others tell which models end
        for said, name in zip(told, ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"), strict=True):
            assert f"has no {name}" in said
            assert said in proxy.errors

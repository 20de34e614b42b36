"""One installation's folder: a start that cannot use it says so, and what is written there is its owner's alone."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import orjson
import pytest
import yaml

from tests.fakes import DEADLINE_SECONDS, FakeUpstream, policy_of, served, until


def command(tmp_path: Path, *more: str) -> tuple[list[str], dict[str, str]]:
    """`locum serve` on a home of its own, by a umask that opens all that it does not close itself."""
    code = "import os, sys; os.umask(0o000); from router.cli import main; sys.argv[0] = 'locum'; main()"
    arguments = ["serve", "--policy", str(tmp_path / "policy.yaml"), "--port", "0", *more]
    return [sys.executable, "-c", code, *arguments], {**os.environ, "LOCUM_HOME": str(tmp_path / "home")}


def folder_for_records(home: Path) -> None:
    (home / "records.db").mkdir(parents=True)


def noise_for_records(home: Path) -> None:
    home.mkdir()
    (home / "records.db").write_bytes(bytes(range(256)) * 64)


def noise_for_responses(home: Path) -> None:
    home.mkdir()
    (home / "responses.db").write_bytes(bytes(range(256)) * 64)


def file_for_home(home: Path) -> None:
    home.write_text("")


def file_for_run(home: Path) -> None:
    home.mkdir()
    (home / "run").write_text("")


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    "prepare", [folder_for_records, noise_for_records, noise_for_responses, file_for_home, file_for_run]
)
def test_a_start_that_cannot_keep_records_says_so_in_a_line(
    tmp_path: Path, prepare: Callable[[Path], None], workers: str
) -> None:
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy_of(FakeUpstream("tiny"), FakeUpstream("big"))))
    prepare(tmp_path / "home")
    arguments, env = command(tmp_path, "--workers", workers)
    done = subprocess.run(arguments, env=env, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("locum: cannot ") and str(tmp_path / "home") in line


@pytest.mark.parametrize("workers", ["1", "2"])
def test_all_that_a_proxy_writes_is_its_owners_alone(tmp_path: Path, workers: str) -> None:
    student, teacher = FakeUpstream("tiny"), FakeUpstream("big")
    with served(student) as student.url, served(teacher) as teacher.url:
        (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy_of(student, teacher)))
        arguments, env = command(tmp_path, "--workers", workers)
        process = subprocess.Popen(arguments, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        home, run_file = tmp_path / "home", tmp_path / "home" / "run" / "proxy.json"
        try:
            until(lambda: run_file.exists() or process.poll() is not None)
            url = orjson.loads(run_file.read_bytes())["url"]
            asked = {"model": "locum/teacher", "input": "hi", "store": True}
            answer = httpx.post(f"{url}/v1/responses", json=asked, timeout=DEADLINE_SECONDS)
            assert answer.status_code == 200, answer.text
            assert httpx.get(f"{url}/metrics").status_code == 200
            modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (home, *home.rglob("*"))}
        finally:
            process.terminate()
            process.wait(DEADLINE_SECONDS)
    assert {home / "records.db", home / "responses.db", run_file} <= modes.keys()
    assert {path: oct(mode) for path, mode in modes.items() if mode & 0o077} == {}

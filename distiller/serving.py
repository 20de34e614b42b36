"""Starts the engine that will serve, on one student, for the length of an evaluation."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from router.errors import EngineError

NAME = "candidate"
START_SECONDS = 300.0


@contextmanager
def serving(student: Path, log: Path, start_seconds: float = START_SECONDS) -> Iterator[str]:
    """Runs ``locum engine`` on the Hugging Face folder ``student`` and yields its URL, ending in ``/v1``.

    It answers to the model name ``candidate``. Its output goes to ``log``. It is ended, by its
    process id, however the block is left.

    Raises:
        EngineError: it ended, or was not ready within ``start_seconds``; the message has its last words.
    """
    port = _free_port()
    command = [sys.executable, "-m", "router.cli", "engine", "--model", str(student), "--name", NAME]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=output, stderr=output)
        try:
            url = f"http://127.0.0.1:{port}/v1"
            _wait_until_ready(process, url, log, start_seconds)
            yield url
        finally:
            _end(process)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not _answers(f"{url}/models"):
        if process.poll() is not None:
            raise EngineError(f"the student's engine ended with code {process.returncode}: {_last_words(log)}")
        if time.monotonic() > deadline:
            raise EngineError(f"the student's engine was not ready after {seconds:.0f} s: {_last_words(log)}")
        time.sleep(0.2)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return " / ".join(lines[-3:]) or f"nothing was written to {log}"


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port

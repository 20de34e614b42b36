"""Starts the engine that will serve, on one student, for the length of an evaluation."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from router.errors import EngineError

NAME = "candidate"


@contextmanager
def serving(student: Path | str, log: Path, start_seconds: float = 300.0) -> Iterator[str]:
    """Runs the embedded engine on ``student`` and yields its URL, ending in ``/v1``.

    It answers to the model name ``candidate``, on a port that the system picks. Its output goes to
    ``log``. It is ended, by its process id, however the block is left.

    Args:
        student: a Hugging Face folder, or a base student's name.

    Raises:
        EngineError: it ended, or was not ready within ``start_seconds``; the message has its last words.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output, tempfile.TemporaryDirectory() as folder:
        url_file = Path(folder) / "url"
        where = ["--port", "0", "--url-file", str(url_file)]
        command = [sys.executable, "-m", "router.engine", "--model", str(student), "--name", NAME, *where]
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            yield f"{_ready(process, url_file, log, start_seconds)}/v1"
        finally:
            _end(process)


def _ready(process: subprocess.Popen[bytes], url_file: Path, log: Path, seconds: float) -> str:
    """The engine's address: its file appears once requests are answered."""
    deadline = time.monotonic() + seconds
    while not url_file.is_file():
        if process.poll() is not None:
            raise EngineError(f"the student's engine ended with code {process.returncode}: {_last_words(log)}")
        if time.monotonic() > deadline:
            raise EngineError(f"the student's engine was not ready after {seconds:.0f} s: {_last_words(log)}")
        time.sleep(0.1)
    return url_file.read_text().strip()


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

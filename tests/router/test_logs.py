"""What a process logs: one JSON object a line, or text on a terminal that obeys nothing in it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from router.logs import log_to_stderr


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def test_the_log_on_a_terminal_is_told_in_nobodys_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", out)
    log_to_stderr()
    structlog.get_logger().warning("teacher_failed", why="no\x1b]52;c;aGk=\x07", request="\x9b31m", by={"a": "\x1b[2J"})
    assert "teacher_failed" in out.getvalue()
    assert not any(found in out.getvalue() for found in ("\x1b]", "\x9b", "\x07", "\x1b[2J"))


def test_elsewhere_it_is_an_object_a_line_and_an_error_shows_no_locals(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    log_to_stderr()
    log = structlog.get_logger()
    log.debug("nobody_asked")
    try:
        prompt = "a secret".upper()
        raise ValueError(len(prompt))
    except ValueError:
        log.exception("step_broke", version="v1")
    (said,) = map(json.loads, out.getvalue().splitlines())
    assert (said["event"], said["level"], said["version"]) == ("step_broke", "error", "v1")
    assert said["exception"][0]["exc_type"] == "ValueError" and "A SECRET" not in out.getvalue()


def test_the_engine_logs_the_same_way(tmp_path: Path) -> None:
    """A broken step in a process of the engine's."""
    code = (
        "from types import SimpleNamespace as Broken\n"
        "from router.engine.scheduler import _turn\n"
        "from router.logs import log_to_stderr\n"
        "log_to_stderr()\n"
        "_turn(Broken(model=Broken(name='v7'), turn=lambda: 1 / 0, fail=lambda: None))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    said = json.loads(ran.stderr)
    assert (said["event"], said["version"], ran.stdout) == ("step_broke", "v7", "")

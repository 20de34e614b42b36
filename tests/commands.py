"""The real command in front of scripted upstreams, and raw connections to it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.fakes import DEADLINE_SECONDS, FakeUpstream, World, policy_of, served, until


@dataclass
class Command(World):
    """A proxy that runs as people run it. Its errors are in ``folder / "errors"``."""

    process: subprocess.Popen[bytes]
    folder: Path

    def connect(self) -> socket.socket:
        place = urlsplit(self.url)
        return socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=DEADLINE_SECONDS)

    def exchanged(self, *parts: bytes) -> bytes:
        """What comes back over a connection of its own until the proxy closes it."""
        with self.connect() as connection:
            for part in parts:
                connection.sendall(part)
            return rest_of(connection)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its code, once it ended."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_SECONDS)

    @property
    def errors(self) -> str:
        return (self.folder / "errors").read_text()


def rest_of(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    found = b""
    while piece := connection.recv(65536):
        found += piece
    return found


def up_to(connection: socket.socket, wanted: bytes) -> bytes:
    """What comes until this has come."""
    found = b""
    while wanted not in found:
        piece = connection.recv(65536)
        assert piece, found
        found += piece
    return found


def one_answer(connection: socket.socket) -> bytes:
    """One answer that tells its length."""
    found = b""
    while b"\r\n\r\n" not in found:
        found += connection.recv(65536)
    head, _, body = found.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    assert length is not None, head
    while len(body) < int(length[1]):
        piece = connection.recv(65536)
        found, body = found + piece, body + piece
    return found


def post(path: str, body: Any, *headers: str, version: str = "1.1") -> bytes:
    """A request's bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/{version}", "host: x", f"content-length: {len(content)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + content


@contextmanager
def command(
    folder: Path,
    env: Mapping[str, str] | None = None,
    options: tuple[str, ...] = (),
    *,
    logs_to_nobody: bool = False,
    **changes: Any,
) -> Iterator[Command]:
    """``locum serve`` with a policy whose teacher answers everything, unless ``changes`` say otherwise."""
    student, teacher = FakeUpstream("tiny"), FakeUpstream("big")
    with ExitStack() as stack:
        for upstream in (student, teacher):
            upstream.url = stack.enter_context(served(upstream))
        file = folder / "policy.yaml"
        file.write_text(yaml.safe_dump(policy_of(student, teacher, **({"objective": {"student_share": 0}} | changes))))
        home = folder / "home"
        process = started(file, home, folder / "errors", env or {}, options, logs_to_nobody=logs_to_nobody)
        try:
            run_file = home / "run" / "proxy.json"
            until(lambda: run_file.exists() or process.poll() is not None)
            assert run_file.exists(), (folder / "errors").read_text()
            url = json.loads(run_file.read_text())["url"]
            yield Command(url, student, teacher, home, file, process, folder)
        finally:
            process.kill()
            process.wait(DEADLINE_SECONDS)


def started(
    policy: Path,
    home: Path,
    errors: Path,
    env: Mapping[str, str],
    options: tuple[str, ...] = (),
    *,
    logs_to_nobody: bool = False,
) -> subprocess.Popen[bytes]:
    """The command, writing what it says to a file, or to pipes that nobody reads any more."""
    line = [sys.executable, "-m", "router.cli", "serve", "--policy", str(policy), "--port", "0", *options]
    around = {**os.environ, "LOCUM_HOME": str(home), "TEACHER_KEY": "sk-teacher-secret", **env}
    root = Path(__file__).parents[1]
    with errors.open("ab") as file:
        if not logs_to_nobody:
            return subprocess.Popen(line, env=around, cwd=root, stdout=subprocess.DEVNULL, stderr=file)
        reading, writing = os.pipe()
        os.close(reading)
        try:
            return subprocess.Popen(line, env=around, cwd=root, stdout=writing, stderr=writing)
        finally:
            os.close(writing)

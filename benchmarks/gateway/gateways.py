"""What runs in front of the mock, how it is started and stopped; Locum and the bare forwarders."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from benchmarks.gateway.fitted import POLICY, install, policy
from benchmarks.gateway.measure import rss_bytes, tree
from benchmarks.gateway.mock import TEACHER
from router.scoring.scorer import Scorer

KEY = "sk-benchmark-0123456789"
PATIENCE_SECONDS = 240.0


class CannotStart(Exception):
    """A gateway is not there to be compared; the message says what to do about it."""


@dataclass
class Gateway:
    """One that runs. ``home`` is where a Locum keeps its records, None for the others."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    log: Path
    model: str = TEACHER
    workers: int = 1
    home: Path | None = None

    @property
    def rss_mb(self) -> float:
        return rss_bytes(tree(self.process.pid)) / 2**20

    def stop(self) -> None:
        """Ends it and all that it started."""
        pids = tree(self.process.pid)
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            for pid in reversed(pids):
                os.kill(pid, signal.SIGKILL)
            self.process.wait()


@dataclass
class Place:
    """What starting one needs: a folder of its own for files and logs, the mock's port, the cores to use.

    ``scorer`` and ``routes`` are a Locum's: what ``fitted.fit`` gave.
    """

    folder: Path
    upstream: int
    cores: frozenset[int]
    scorer: Scorer
    routes: Mapping[str, float] = field(default_factory=dict)

    def files(self, name: str) -> Path:
        made = self.folder / name.replace(", ", "-").replace(" ", "-")
        made.mkdir(exist_ok=True)
        return made

    def start(self, name: str, command: Sequence[str], **env: str) -> tuple[subprocess.Popen[bytes], Path]:
        """(the process, its log). All of its threads and children stay on ``cores``."""
        log = self.files(name) / "log.txt"
        with log.open("wb") as out:
            process = subprocess.Popen(command, env={**os.environ, **env}, stdout=out, stderr=out)
        os.sched_setaffinity(process.pid, self.cores)  # it has neither yet; both inherit this
        return process, log


Start = Callable[[str, Place], Gateway]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def forwarder(kind: str) -> Start:
    """``kind``: raw or fastapi."""

    def start(name: str, place: Place) -> Gateway:
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.gateway.forwarders", kind, str(port), str(place.upstream)]
        return Gateway(name, *_with_port(port, place.start(name, command)))

    return start


def _with_port(port: int, started: tuple[subprocess.Popen[bytes], Path]) -> tuple[subprocess.Popen[bytes], int, Path]:
    return started[0], port, started[1]


def locum(variant: str, workers: int = 1) -> Start:
    """``variant`` names what goes to the student: mix, teacher (nothing), student (everything)."""

    def start(name: str, place: Place) -> Gateway:
        serve = [sys.executable, "-m", "router.cli", "serve"]
        if workers > 1 and b"--workers" not in subprocess.check_output([*serve, "--help"]):
            raise CannotStart("this Locum has no --workers")
        home = place.files(name)
        install(home, place.scorer, place.routes[variant])
        file = home / "policy.yaml"
        file.write_text(yaml.safe_dump(policy(place.upstream)))
        command = [*serve, "--policy", str(file), "--port", "0"]
        command += ["--workers", str(workers)] if workers > 1 else []
        process, log = place.start(name, command, LOCUM_HOME=str(home), LOCUM_API_KEYS=KEY, TEACHER_KEY="sk-upstream")
        pointer = home / "run" / "proxy.json"
        try:
            _until(pointer.exists, name, process, log)
        except CannotStart:
            process.kill()
            raise
        port = int(json.loads(pointer.read_text())["url"].rsplit(":", 1)[1].strip("/"))
        return Gateway(name, process, port, log, POLICY, workers, home)

    return start


def wait_ready(gateway: Gateway) -> None:
    """Until it answers a chat request, and a Locum has found its student and bundle.

    Raises:
        CannotStart: it ended, or took too long; the message quotes its log.
    """
    root = f"http://127.0.0.1:{gateway.port}"
    body = {"model": gateway.model, "messages": [{"role": "user", "content": "ready?"}]}
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}

    def ready() -> bool:
        try:
            if gateway.home is not None:
                with urllib.request.urlopen(f"{root}/health/ready", timeout=5) as answer:
                    state = json.loads(answer.read())
                if not all(p["student"]["ready"] for p in state["policies"]):
                    return False
            request = urllib.request.Request(f"{root}/v1/chat/completions", json.dumps(body).encode(), headers)
            with urllib.request.urlopen(request, timeout=10) as answer:
                return bool(json.loads(answer.read())["choices"])
        except (OSError, ValueError):
            return False

    _until(ready, gateway.name, gateway.process, gateway.log)


def _until(true: Callable[[], bool], name: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        if process.poll() is not None or time.monotonic() > deadline:
            raise CannotStart(f"{name} did not start; its log ends so:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)

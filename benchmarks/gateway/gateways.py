"""The gateways that are compared: how each is started in front of the mock, and stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from benchmarks.gateway.fitted import POLICY, install, policy
from benchmarks.gateway.measure import rss_bytes, tree
from benchmarks.gateway.mock import TEACHER
from router.scoring.estimator import Scorer

KEY = "sk-benchmark-0123456789"
PATIENCE_SECONDS = 120.0


@dataclass
class Gateway:
    """One that runs. ``home`` is where a Locum keeps its records, None for the others."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    model: str
    workers: int = 1
    home: Path | None = None
    log: Path = Path(os.devnull)

    @property
    def rss_mb(self) -> float:
        return rss_bytes(tree(self.process.pid)) / 2**20

    def stop(self) -> None:
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
    """What starting one needs: a folder of its own for files and logs, the mock's port, the cores it may use.

    ``scorer`` and ``routes`` are for Locums: what ``fitted.fit`` gave.
    """

    folder: Path
    upstream: int
    cores: frozenset[int]
    scorer: Scorer | None = None
    routes: Mapping[str, float] = field(default_factory=dict)

    def start(
        self, name: str, command: Sequence[str], env: Mapping[str, str] = {}
    ) -> tuple[subprocess.Popen[bytes], Path]:  # noqa: B006
        log = self.folder / f"{name.replace(', ', '-').replace(' ', '-')}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(command, env={**os.environ, **env}, stdout=out, stderr=out)
        os.sched_setaffinity(process.pid, self.cores)  # before it has threads; children inherit it
        return process, log


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def forwarder(kind: str, name: str) -> Callable[[Place], Gateway]:
    def start(place: Place) -> Gateway:
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.gateway.forwarders", kind, str(port), str(place.upstream)]
        process, log = place.start(name, command)
        return Gateway(name, process, port, TEACHER, log=log)

    return start


def locum(variant: str, name: str, workers: int = 1) -> Callable[[Place], Gateway]:
    """``variant`` names the route threshold: mix, teacher, student."""

    def start(place: Place) -> Gateway:
        assert place.scorer is not None
        home = place.folder / name.replace(", ", "-").replace(" ", "-")
        install(home, place.scorer, place.routes[variant])
        file = home / "policy.yaml"
        file.write_text(yaml.safe_dump(policy(place.upstream)))
        command = [sys.executable, "-m", "router.cli", "serve", "--policy", str(file), "--port", "0"]
        command += ["--workers", str(workers)] if workers > 1 else []
        env = {"LOCUM_HOME": str(home), "LOCUM_API_KEYS": KEY, "TEACHER_KEY": "sk-upstream"}
        process, log = place.start(name, command, env)
        pointer = home / "run" / "proxy.json"
        _until(lambda: pointer.exists(), process, log)
        port = int(json.loads(pointer.read_text())["url"].rsplit(":", 1)[1].strip("/"))
        return Gateway(name, process, port, POLICY, workers, home, log)

    return start


def wait_ready(gateway: Gateway) -> None:
    """Until it answers a chat request, and a Locum has found its student and bundle."""

    def ready() -> bool:
        try:
            if gateway.home is not None:
                with urllib.request.urlopen(f"http://127.0.0.1:{gateway.port}/health/ready", timeout=5) as answer:
                    state = json.loads(answer.read())
                if not all(p["student"]["ready"] for p in state["policies"]):
                    return False
            body = {"model": gateway.model, "messages": [{"role": "user", "content": "ready?"}]}
            request = urllib.request.Request(
                f"http://127.0.0.1:{gateway.port}/v1/chat/completions",
                data=json.dumps(body).encode(),
                headers={"content-type": "application/json", "authorization": f"Bearer {KEY}"},
            )
            with urllib.request.urlopen(request, timeout=10) as answer:
                return bool(json.loads(answer.read())["choices"])
        except (OSError, urllib.error.HTTPError, ValueError):
            return False

    _until(ready, gateway.process, gateway.log)


def _until(true: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Raises RuntimeError, quoting the log's end, where the process ended or took too long."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{log.stem} did not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)


RAW, FASTAPI, NGINX, LITELLM = "raw ASGI + aiohttp", "FastAPI + aiohttp", "nginx", "litellm"
STARTS: dict[str, Callable[[Place], Gateway]] = {
    "locum": locum("mix", "locum"),
    "locum, teacher": locum("teacher", "locum, teacher"),
    "locum, student": locum("student", "locum, student"),
    RAW: forwarder("raw", RAW),
    FASTAPI: forwarder("fastapi", FASTAPI),
}


def have_nginx() -> bool:
    return shutil.which("nginx") is not None

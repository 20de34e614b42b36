"""``locum up``: the students that the policies ask for, supervised, and the proxy in front of them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from rich.text import Text

from router.engine.process import STOP_SECONDS, ServerProcess
from router.engine.supervisor import Backoff, Supervisor, engine_of
from router.errors import EngineError
from router.policy.policy import load_policy
from router.reports.terminal import Terminal
from router.settings import Settings

POLL_SECONDS = 0.2


def run(policy_paths: Sequence[Path], *, host: str, port: int, settings: Settings, workers: int = 1) -> None:
    """Runs until SIGINT or SIGTERM; then stops the proxy, the students, and removes the run files.

    With 0 ``workers`` there is no proxy here: the students are for one that runs elsewhere on the same
    home and finds them there.

    Raises:
        PolicyError: a policy file is wrong.
        EngineError: an engine that a policy asks for is not there, or the proxy does not start.
    """
    console = Terminal()

    def report(line: str) -> None:
        _tell(console, line)

    def show(line: str) -> None:
        console.print(line, soft_wrap=True)

    served = [p for p in map(load_policy, policy_paths) if p.student.engine and p.student.traits.generates]
    students = [Supervisor(p, settings, engine_of(p, settings), report) for p in served]
    proxy = Proxy(policy_paths, host, port, settings, workers, report=report, show=show) if workers else None
    asyncio.run(_run(students, proxy, settings, console))


async def _run(students: Sequence[Supervisor], proxy: Proxy | None, settings: Settings, console: Terminal) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, proxy.renew if proxy is not None else lambda: None)
    asking = [asyncio.create_task(_welcome(students, proxy, settings, console))]
    if proxy is not None:
        asking.append(asyncio.create_task(proxy.run()))
    tasks = [*(asyncio.create_task(s.run()) for s in students), *asking]
    stopping = asyncio.create_task(stop.wait())
    try:
        # A task that ends by itself has failed: what it raised is what this command says.
        while not stopping.done():
            await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
            for ended in [t for t in tasks if t.done()]:
                tasks.remove(ended)
                ended.result()
    finally:
        _tell(console, "stopping")
        for group in (asking, [*tasks, stopping]):  # a student answers until the last of the proxy's requests has ended
            for task in group:
                task.cancel()
            await asyncio.gather(*group, return_exceptions=True)


async def _welcome(students: Sequence[Supervisor], proxy: Proxy | None, settings: Settings, console: Terminal) -> None:
    with console.status("starting"):
        if proxy is not None:
            await proxy.ready.wait()
        for student in students:
            await student.ready.wait()
    what = f"{proxy.url}/v1" if proxy is not None else "the students, without a proxy"
    _tell(console, f"up: {what}   logs in {settings.logs}   Ctrl-C stops all")


def _tell(console: Terminal, line: str) -> None:
    console.print(Text.assemble(("locum", "bold"), f" {line}"), soft_wrap=True)


class Proxy:
    """The proxy as a child process, restarted when it dies. Its lines go to its log and to ``show``."""

    def __init__(
        self,
        policy_paths: Sequence[Path],
        host: str,
        port: int,
        settings: Settings,
        workers: int,
        *,
        report: Callable[[str], None],
        show: Callable[[str], None],
    ) -> None:
        policies = [part for path in policy_paths for part in ("--policy", str(path))]
        serve = [sys.executable, "-m", "router.cli", "serve", *policies, "--host", host, "--workers", str(workers)]
        reached = "127.0.0.1" if host in ("", "0.0.0.0", "::") else host
        self.ready = asyncio.Event()
        self._report = report
        self._drain_seconds = settings.limits.drain_seconds
        self._process = ServerProcess(
            "the proxy",
            lambda port: [*serve, "--port", str(port)],
            settings.logs / "proxy.log",
            health="/health/live",
            host=reached,
            port=port,
            start_seconds=120,
            on_line=show,
        )

    @property
    def url(self) -> str:
        return self._process.url

    def renew(self) -> None:
        """Passes SIGHUP on: several workers are replaced one after the other."""
        if (pid := self._process.pid) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGHUP)

    async def run(self) -> None:
        """Until cancelled. The first start must work: raises EngineError where it does not."""
        backoff, up = Backoff(), True
        try:
            await self._process.start()
            self.ready.set()
            while True:
                await asyncio.sleep(POLL_SECONDS)
                if up and not await self._process.healthy():
                    self._report("the proxy died; starting it again")
                    backoff.failed(time.monotonic())
                    up = False
                elif up:
                    backoff.calm(time.monotonic())
                elif backoff.may_try(time.monotonic()):
                    up = await self._revive(backoff)
        finally:
            await self._process.stop(self._drain_seconds + STOP_SECONDS)

    async def _revive(self, backoff: Backoff) -> bool:
        try:
            await self._process.start()
        except EngineError as e:
            backoff.failed(time.monotonic())
            self._report(f"the proxy does not start: {e}")
            return False
        return True

"""``locum serve --workers N``: several processes on one port, and one more that keeps them alive.

Each worker listens on a socket of its own, all bound to one port (SO_REUSEPORT), among which the kernel
spreads connections by their addresses' hash. With one socket for all, whoever wakes first accepts all that
wait: of 12 bursts of 16 connections to two workers 3 went to one worker alone, none did so here. (macOS
gives all connections to one of the sockets: more workers work there, but help little.)

This process serves nothing and imports little. It tells a worker over its standard input what to serve; that
pipe's end tells the worker that this process is gone. The worker says over its standard output when it listens.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, NoReturn

import orjson
import structlog
from prometheus_client.multiprocess import mark_process_dead

from router.cascade.drain import Drain
from router.errors import LocumError
from router.logs import log_to_stderr
from router.metrics.files import MetricFiles
from router.process.server import LAST_SECONDS, Server, bound, exposure, root_url
from router.routing.state.machine import MachineState, create, let_go
from router.served.claim import Claim, claimed
from router.settings import Limits, Settings

log = structlog.get_logger(__name__)

START_SECONDS = 120.0
STORE_SECONDS = 20.0  # more than a full disk is asked for at the end
"""For a worker at its end to write what it recorded."""
STABLE_SECONDS = 10.0
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 30.0


def run(policies: Sequence[Path], *, host: str, port: int, settings: Settings, workers: int) -> None:
    """Serves with so many workers until SIGINT or SIGTERM; on SIGHUP each is replaced, one after the other.

    ``port`` 0 picks a free one; ``<home>/run/proxy.json`` tells which.

    Raises:
        LocumError: the address is taken, or a worker does not start: a policy file is wrong, for instance.
    """
    log_to_stderr()
    for problem in exposure(host, settings):
        log.warning("unprotected", why=problem)
    with claimed(settings.run) as claim:
        ended_by = asyncio.run(_Workers(policies, host, port, settings, workers).run(claim))
    if ended_by == signal.SIGTERM:  # who sent it may look at how this process ended, as with one worker
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)


class _Worker:
    """One process that serves, in a slot of what all share."""

    def __init__(self, process: asyncio.subprocess.Process, slot: int, grace_seconds: float) -> None:
        self.process, self.slot, self.began = process, slot, time.monotonic()
        self._grace_seconds = grace_seconds

    async def ready(self) -> None:
        """Returns once it listens. Raises LocumError with what it said where it does not."""
        assert self.process.stdout is not None
        try:
            line = await asyncio.wait_for(self.process.stdout.readline(), START_SECONDS)
        except TimeoutError:
            raise LocumError(f"a worker was not ready after {START_SECONDS:.0f} s") from None
        if not line:
            raise LocumError(f"a worker ended with code {await self.process.wait()} before it was ready")
        if why := orjson.loads(line).get("error"):
            raise LocumError(why)

    async def end(self) -> None:
        """It has as long as its requests have; then it is killed."""
        with suppress(ProcessLookupError):
            self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), self._grace_seconds)
        except TimeoutError:
            self.kill()
            await self.process.wait()

    def hurry(self) -> None:
        """Its requests get no more time. Another signal than the first, since two of one kind may arrive as one."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()


class _Workers:
    """Keeps so many workers serving. There is one slot more: at a restart the old one and its successor
    are there together."""

    def __init__(self, policies: Sequence[Path], host: str, port: int, settings: Settings, count: int) -> None:
        self._policies, self._host, self._port, self._settings = policies, host, port, settings
        self._metrics = settings.run / "metrics"
        self._state: IO[bytes]
        self._free = list(range(count + 1))
        self._living: list[_Worker] = []
        self._renew = [asyncio.Event() for _ in range(count)]
        self._one_by_one = asyncio.Lock()
        self._asked: list[int] = []

    async def run(self, claim: Claim) -> int:
        """Gives the number of the signal that ended it. Raises LocumError where the start fails."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._asked_to_end, number, stop)
        loop.add_signal_handler(signal.SIGHUP, self._asked_to_renew)
        shutil.rmtree(self._metrics, ignore_errors=True)
        self._metrics.mkdir(parents=True)
        with _held(self._host, self._port) as held, create(self._settings.run, len(self._free)) as self._state:
            self._port = held.getsockname()[1]
            serving, stopping = asyncio.create_task(self._serve(claim)), asyncio.create_task(stop.wait())
            try:
                await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if serving.done():
                    await serving  # it ends by failing only
            finally:
                claim.withdraw()
                for task in (serving, stopping):
                    task.cancel()
                await asyncio.gather(serving, stopping, return_exceptions=True)
                await asyncio.gather(*(self._end(worker) for worker in self._living))
                shutil.rmtree(self._metrics, ignore_errors=True)
        return self._asked[0]

    def _asked_to_end(self, number: int, stop: asyncio.Event) -> None:
        self._asked.append(number)
        stop.set()
        if len(self._asked) > 1:
            for worker in self._living:
                worker.hurry() if len(self._asked) == 2 else worker.kill()

    def _asked_to_renew(self) -> None:
        for event in self._renew:
            event.set()

    async def _serve(self, claim: Claim) -> None:
        workers = [await self._launch() for _ in self._renew]
        await asyncio.gather(*(worker.ready() for worker in workers))
        claim.tell(root_url(self._host, self._port))
        async with asyncio.TaskGroup() as places:
            places.create_task(claim.keep())
            for worker, renew in zip(workers, self._renew, strict=True):
                places.create_task(self._keep(worker, renew))

    async def _keep(self, worker: _Worker, renew: asyncio.Event) -> NoReturn:
        """One worker's place: one that died is replaced at once, one that is to be renewed in its turn."""
        while True:
            died, asked = asyncio.create_task(worker.process.wait()), asyncio.create_task(renew.wait())
            await asyncio.wait({died, asked}, return_when=asyncio.FIRST_COMPLETED)
            asked.cancel()
            if died.done():
                self._bury(worker)
                log.error("worker_died", pid=worker.process.pid, code=died.result())
                worker = await self._another(worker)
            else:
                died.cancel()
                renew.clear()
                async with self._one_by_one:
                    worker = await self._renewed(worker)

    async def _another(self, dead: _Worker) -> _Worker:
        wait = FIRST_WAIT_SECONDS if time.monotonic() - dead.began < STABLE_SECONDS else 0.0
        while True:
            await asyncio.sleep(wait)
            try:
                return await self._start()
            except LocumError as e:
                log.error("worker_not_started", why=str(e))
                wait = min(LONGEST_WAIT_SECONDS, max(FIRST_WAIT_SECONDS, 2 * wait))

    async def _renewed(self, old: _Worker) -> _Worker:
        try:
            fresh = await self._start()
        except LocumError as e:
            log.error("worker_not_renewed", why=str(e))
            return old
        await self._end(old)
        return fresh

    async def _start(self) -> _Worker:
        worker = await self._launch()
        try:
            await worker.ready()
        except LocumError:
            await self._end(worker)
            raise
        return worker

    async def _launch(self) -> _Worker:
        slot, file = min(self._free), self._state.fileno()
        self._free.remove(slot)
        try:
            with bound(self._host, self._port, shared=True) as own:  # the worker alone keeps it, and it dies with it
                process = await self._process(own.fileno(), file)
                assert process.stdin is not None
                process.stdin.write(self._job(own.fileno(), file, slot))
        except BaseException:
            self._free.append(slot)
            raise
        worker = _Worker(process, slot, self._settings.limits.drain_seconds + 2 * LAST_SECONDS + STORE_SECONDS)
        self._living.append(worker)
        return worker

    async def _process(self, *files: int) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "router.process.workers"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(self._metrics.absolute())},
                pass_fds=files,
                start_new_session=True,  # Ctrl-C reaches it only through this process
            )
        except OSError as e:
            raise LocumError(f"cannot start a worker: {e}") from None

    def _job(self, own: int, state: int, slot: int) -> bytes:
        """By a pipe, since anyone can read a command line: client keys are secrets."""
        settings = self._settings
        job = {"policies": [str(p) for p in self._policies], "host": self._host, "port": self._port}
        job |= {"home": str(settings.home), "cache": str(settings.cache), "client_keys": list(settings.client_keys)}
        job |= {"limits": asdict(settings.limits), "origins": settings.origins}
        return orjson.dumps(job | {"socket": own, "state": state, "slot": slot}) + b"\n"

    async def _end(self, worker: _Worker) -> None:
        await worker.end()
        self._bury(worker)

    def _bury(self, worker: _Worker) -> None:
        mark_process_dead(worker.slot, str(self._metrics))  # type: ignore[no-untyped-call]
        let_go(self._state.fileno(), worker.slot)
        self._living.remove(worker)
        self._free.append(worker.slot)


def _held(host: str, port: int) -> socket.socket:
    """The port, kept for the workers to bind to. Nobody may have it: SO_REUSEPORT alone would share it
    with another Locum, which would then answer half of the requests."""
    if port:
        bound(host, port, shared=False).close()
    return bound(host, port, shared=True)


def main() -> None:
    """One worker, as ``_Workers`` starts it."""
    from router.app import create_app  # heavy: only workers pay for it

    if not (line := sys.stdin.buffer.readline()):
        return  # who started it is gone already
    job = orjson.loads(line)
    slot: int = job["slot"]
    files = MetricFiles(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]), slot)
    report = os.dup(1)
    os.dup2(2, 1)  # nobody reads what a library prints there
    log_to_stderr()

    def listening(_: str) -> None:
        os.write(report, b"{}\n")
        asyncio.get_running_loop().add_reader(0, orphaned)

    def orphaned() -> None:  # the pipe's end is all that ever comes
        asyncio.get_running_loop().remove_reader(0)
        server.should_exit = True

    limits = Limits(**job["limits"])
    settings = Settings(
        Path(job["home"]), Path(job["cache"]), frozenset(job["client_keys"]), limits, tuple(job["origins"])
    )
    drain, state = Drain(), MachineState(job["state"], slot)
    problems = exposure(job["host"], settings)
    try:
        policies = [Path(p) for p in job["policies"]]
        app = create_app(policies, settings, state=state, drain=drain, problems=problems, files=files)
    except LocumError as e:
        os.write(report, orjson.dumps({"error": str(e)}) + b"\n")
        sys.exit(1)
    server = Server(
        app,
        host=job["host"],
        limits=limits,
        drain=drain,
        listening=listening,
        ending=lambda: None,
        replaced=True,
    )
    with suppress(KeyboardInterrupt):  # uvicorn raises the signal again once all is closed
        server.run([socket.socket(fileno=job["socket"])])


if __name__ == "__main__":
    main()

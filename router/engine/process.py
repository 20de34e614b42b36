"""One server process: started, waited for, probed, stopped. Engines and the proxy alike."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from router.errors import EngineError

PROBE_EVERY_SECONDS = 2.0
PROBE_TIMEOUT_SECONDS = 5.0
#: A busy server may answer late; one that misses this many probes in a row is taken for dead.
PROBES_TO_MISS = 4
STOP_SECONDS = 10.0
PORTS_TO_TRY = 3


class ServerProcess:
    """A child that listens on a port of this host and answers ``health`` with 200 once it is ready.

    It keeps its port over restarts where it can, so that an address that others hold stays true.
    It is tethered to this process, and out of its terminal's process group, so that Ctrl-C reaches
    it only through ``stop``.

    Args:
        command: the port -> the command line.
        log: what it writes is appended here, and given to ``on_line`` line by line where that is set.
        port: 0 picks a free one.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[int], Sequence[str]],
        log: Path,
        *,
        health: str = "/health",
        host: str = "127.0.0.1",
        port: int = 0,
        start_seconds: float = 900.0,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        self.name = name
        self.port = port
        self._fixed = port != 0
        self._command = command
        self._log = log
        self._health = health
        self._host = host
        self._start_seconds = start_seconds
        self._on_line = on_line
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._probe_at = 0.0
        self._missed = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self.port}"

    @property
    def exited(self) -> bool:
        return self._process is None or self._process.returncode is not None

    async def start(self) -> None:
        """Returns once it answers.

        Raises:
            EngineError: it ended, or was not ready in time; the message has its last words.
        """
        await self.stop()
        for left in reversed(range(PORTS_TO_TRY)):
            if not self._fixed and not (self.port and _is_free(self._host, self.port)):
                self.port = _free_port(self._host)
            try:
                await self._start()
                break
            except EngineError:  # between picking a port and binding it another may have taken it
                if self._fixed or not left or _is_free(self._host, self.port):
                    raise

    async def _start(self) -> None:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._missed, began = 0, self._log.stat().st_size if self._log.exists() else 0
        tether = [sys.executable, "-m", "router.engine.tether", str(os.getpid())]
        with self._log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *tether,
                *self._command(self.port),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if self._on_line else output,
                stderr=asyncio.subprocess.STDOUT if self._on_line else output,
                start_new_session=True,
            )
        if self._on_line:
            self._reader = asyncio.create_task(self._read(self._process, self._on_line))
        try:
            await self._until_ready(began)
        except BaseException:
            await self.stop()
            raise

    async def healthy(self) -> bool:
        """Whether it runs and, asked now and then, still answers."""
        if self.exited:
            return False
        if time.monotonic() >= self._probe_at:
            self._missed = 0 if await self._answers() else self._missed + 1
            self._probe_at = time.monotonic() + PROBE_EVERY_SECONDS
        return self._missed < PROBES_TO_MISS

    async def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Asks it to end; after ``seconds`` it is killed."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), seconds)
            except TimeoutError:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if self._reader:
            await self._reader
            self._reader = None

    async def _until_ready(self, log_began: int) -> None:
        deadline = time.monotonic() + self._start_seconds
        while not await self._answers() or self.exited:  # where it ended, somebody else answers there
            if self.exited:
                code = self._process.returncode if self._process else None
                raise EngineError(f"{self.name} ended with code {code}: {self._last_words(log_began)}")
            if time.monotonic() > deadline:
                raise EngineError(f"{self.name} was not ready after {self._start_seconds:.0f} s; see {self._log}")
            await asyncio.sleep(0.1)
        self._probe_at = time.monotonic() + PROBE_EVERY_SECONDS

    async def _answers(self) -> bool:
        import aiohttp

        limit = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=limit) as session,
                session.get(self.url + self._health) as response,
            ):
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _read(self, process: asyncio.subprocess.Process, on_line: Callable[[str], None]) -> None:
        assert process.stdout is not None
        with self._log.open("ab") as output:
            async for line in process.stdout:
                output.write(line)
                output.flush()
                on_line(line.decode(errors="replace").rstrip("\n"))

    def _last_words(self, began: int) -> str:
        with self._log.open("rb") as file:
            file.seek(began)
            lines = file.read().decode(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:]) or f"it wrote nothing to {self._log}"


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as listener:
        return int(listener.getsockname()[1])


def _is_free(host: str, port: int) -> bool:
    try:
        with socket.create_server((host, port)):
            return True
    except OSError:
        return False

"""The default engine: ``locum engine`` in one process, which serves all versions of a student."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from router.engine.base import Version, VersionPlace
from router.engine.model import Precision
from router.engine.process import ServerProcess
from router.errors import EngineError

LOAD_SECONDS = 600.0


class EmbeddedEngine:
    """Starts the process with the first version it is asked for; later ones are loaded beside it.

    ``student`` is what the base is: a packaged name, a Hugging Face folder, a hub's repository.
    """

    def __init__(self, student: str, log: Path, precision: Precision = "auto") -> None:
        self._student = student
        self._precision = precision
        self._first = Version("base")
        self._process = ServerProcess("the student's engine", self._command, log)
        self._versions: dict[str, VersionPlace] = {}

    @property
    def versions(self) -> Mapping[str, VersionPlace]:
        return self._versions

    @property
    def pids(self) -> Mapping[str, int]:
        pid = self._process.pid
        return {} if pid is None else dict.fromkeys(self._versions, pid)

    async def load(self, version: Version) -> None:
        if self._process.exited:
            self._versions, self._first = {}, version
            await self._process.start()
        else:
            await self._ask("load", {"version": version.name, "path": self._weights(version)})
        self._versions[version.name] = VersionPlace(f"{self._process.url}/v1", version.name)

    async def unload(self, name: str) -> None:
        if self._versions.pop(name, None):
            await self._ask("unload", {"version": name})

    async def lost(self) -> frozenset[str]:
        if not self._versions or await self._process.healthy():
            return frozenset()
        gone, self._versions = frozenset(self._versions), {}
        await self._process.stop()
        return gone

    async def stop(self) -> None:
        self._versions = {}
        await self._process.stop()

    def _weights(self, version: Version) -> str:
        return self._student if version.folder is None else str(version.folder.resolve())

    def _command(self, port: int) -> list[str]:
        first = ["--model", self._weights(self._first), "--name", self._first.name]
        where = ["--port", str(port), "--precision", self._precision]
        return [sys.executable, "-m", "router.engine", *first, *where]

    async def _ask(self, what: str, body: Mapping[str, Any]) -> None:
        import aiohttp

        limit = aiohttp.ClientTimeout(total=LOAD_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=limit) as session,
                session.post(f"{self._process.url}/admin/{what}", data=orjson.dumps(body)) as response,
            ):
                if response.status != 200:
                    raise EngineError(f"the engine cannot {what} {body['version']}: {await response.text()}")
        except (aiohttp.ClientError, TimeoutError) as e:
            raise EngineError(f"the engine did not answer: {e or type(e).__name__}") from e

"""llama.cpp's own server as the engine: one process a version, since each holds one GGUF file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from router.engine import cpu
from router.engine.base import MOST_TOKENS, Version, VersionPlace
from router.engine.process import ServerProcess
from router.engine.weights import base_gguf
from router.errors import EngineError

PARALLEL = 8
#: Tokens of prompt and answer each of the parallel requests may take.
CONTEXT_TOKENS = 4096
#: An open connection holds one of these until its answer is whole, and a health probe that finds none free waits: with
#: as few as llama.cpp starts by itself, a busy server is taken for dead. As many as a worker of the proxy connects.
HTTP_THREADS = 1024
PLAIN_SAMPLING = ("--temp", "1", "--top-k", "0", "--top-p", "1", "--min-p", "0", "--repeat-penalty", "1")
"""What a request does not say is as OpenAI documents it, and as the embedded engine has it: llama.cpp's own usage is to
draw from the likeliest alone, so that answers would agree more often than the model means."""


def binary_path(cache: Path) -> Path:
    """Where ``make llama-server`` leaves the binary."""
    return cache / "llama-server" / "bin" / "llama-server"


def find_binary(cache: Path) -> Path:
    """The server on the PATH, else the one built here.

    Raises:
        EngineError: there is neither; the message says what to do.
    """
    found = shutil.which("llama-server")
    if found:
        return Path(found)
    built = binary_path(cache)
    if os.access(built, os.X_OK):
        return built
    raise EngineError(
        "engine llama-server: no llama-server on the PATH and none was built. Run `make llama-server` "
        "(about 10 minutes on 2 cores), or install llama.cpp, or say `engine: embedded` in the policy"
    )


class LlamaServer:
    """``student`` is what the base is: a packaged name, or a GGUF file. Bundles bring their own."""

    def __init__(self, student: str, cache: Path, log: Path) -> None:
        self._student = student
        self._cache = cache
        self._log = log
        self._running: dict[str, ServerProcess] = {}

    @property
    def versions(self) -> Mapping[str, VersionPlace]:
        return {name: VersionPlace(f"{p.url}/v1", name) for name, p in self._running.items()}

    @property
    def pids(self) -> Mapping[str, int]:
        return {name: p.pid for name, p in self._running.items() if p.pid is not None}

    async def load(self, version: Version) -> None:
        if version.folder is not None and version.gguf is None:
            raise EngineError(f"bundle {version.name} brings no GGUF file, and llama-server reads nothing else")
        binary = find_binary(self._cache)
        gguf = version.gguf or base_gguf(self._student)
        name = f"llama-server for {version.name}"
        process = ServerProcess(name, _command(binary, gguf.resolve(), version.name), self._log)
        await process.start()
        self._running[version.name] = process

    async def unload(self, name: str) -> None:
        process = self._running.pop(name, None)
        if process:
            await process.stop()

    async def lost(self) -> frozenset[str]:
        gone = {name for name, p in self._running.items() if not await p.healthy()}
        for name in gone:
            await self._running.pop(name).stop()
        return frozenset(gone)

    async def stop(self) -> None:
        for name in list(self._running):
            await self.unload(name)


def _command(binary: Path, gguf: Path, name: str) -> Callable[[int], list[str]]:
    cores = str(cpu.cores())
    fixed = ["--model", str(gguf), "--alias", name, "--host", "127.0.0.1", "--threads", cores, "--jinja"]
    size = ["--parallel", str(PARALLEL), "--ctx-size", str(PARALLEL * CONTEXT_TOKENS)]
    size += ["--threads-http", str(HTTP_THREADS), "--predict", str(MOST_TOKENS)]
    return lambda port: [str(binary), *fixed, *size, *PLAIN_SAMPLING, "--port", str(port)]

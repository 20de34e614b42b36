"""One student on llama.cpp's server until told to stop: what an evaluation starts, in a process of its own."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from pathlib import Path

from router.engine.base import Version
from router.engine.llama_server import LlamaServer
from router.errors import EngineError
from router.settings import Settings

LOOK_EVERY_SECONDS = 1.0


async def serve_gguf(student: str, gguf: Path | None, *, name: str, settings: Settings, url_file: Path | None) -> None:
    """Serves ``gguf`` (None: the base student's own) as ``name``; ``url_file`` gets the address once it answers.

    Ends on SIGINT or SIGTERM.

    Raises:
        EngineError: there is no llama-server, or it ended.
    """
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    engine = LlamaServer(student, settings.cache, settings.logs / "llama-server.log")
    try:
        await engine.load(Version(name, folder=gguf.parent if gguf else None, gguf=gguf))
        url = engine.versions[name].url.removesuffix("/v1")
        print(f"listening on {url}", flush=True)
        if url_file:
            await asyncio.to_thread(_write_whole, url_file, url)
        while not told.is_set():
            if await engine.lost():
                raise EngineError(f"llama-server ended; see {settings.logs / 'llama-server.log'}")
            with suppress(TimeoutError):
                await asyncio.wait_for(told.wait(), LOOK_EVERY_SECONDS)
    finally:
        await engine.stop()


def _write_whole(path: Path, text: str) -> None:
    fresh = path.with_suffix(".tmp")
    fresh.write_text(text)
    fresh.replace(path)

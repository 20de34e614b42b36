"""One student on llama.cpp's server until told to stop: what an evaluation starts, in a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import signal
from contextlib import suppress
from pathlib import Path

from router.engine.base import Version
from router.engine.llama_server import LlamaServer
from router.engine.server import run
from router.errors import EngineError, LocumError
from router.policy.engines import ENGINES
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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m router.engine", description=__doc__)
    parser.add_argument("--model", required=True, help="base student's name, or a Hugging Face folder")
    parser.add_argument("--name", default="base", help="name under which the wire serves it")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--url-file", type=Path, help="file that gets the address once requests are answered")
    started = [name for name, traits in ENGINES.items() if name and traits.generates]
    parser.add_argument("--engine", choices=started, default="embedded")
    parser.add_argument("--gguf", type=Path, help="for llama-server: the file to serve instead of the base student's")
    given = parser.parse_args()
    settings = Settings.from_env()
    try:
        if given.engine == "llama-server":
            serving = serve_gguf(given.model, given.gguf, name=given.name, settings=settings, url_file=given.url_file)
            return asyncio.run(serving)
        run(
            given.model,
            name=given.name,
            host=given.host,
            port=given.port,
            settings=settings,
            precision=given.precision,
            url_file=given.url_file,
        )
    except LocumError as e:
        parser.exit(1, f"locum: {e}\n")


if __name__ == "__main__":
    main()

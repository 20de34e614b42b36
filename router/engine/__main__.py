"""``python -m router.engine``: what the supervisor starts; ``locum engine`` is the same for people."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from router.engine.once import serve_gguf
from router.engine.server import run
from router.errors import LocumError
from router.settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m router.engine", description=__doc__)
    parser.add_argument("--model", required=True, help="base student's name, or a Hugging Face folder")
    parser.add_argument("--name", default="base", help="name under which the wire serves it")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--url-file", type=Path, help="file that gets the address once requests are answered")
    parser.add_argument("--engine", choices=("embedded", "llama-server"), default="embedded")
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

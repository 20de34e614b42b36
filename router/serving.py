"""How a process serves: the server's settings, where it says that it listens, and how it logs."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from socket import socket
from typing import Any

import orjson
import structlog
import uvicorn
from structlog.typing import EventDict, Processor
from threadpoolctl import threadpool_limits

from router.contracts.files import write_atomically
from router.protocol import bounded_http
from router.terminal import shown

KEEP_ALIVE_SECONDS = 75
GRACE_SECONDS = 15

Asgi = Callable[[Any, Any, Any], Awaitable[None]]


class Server(uvicorn.Server):
    """Tells when it listens, and when it no longer does. Its process computes on one thread.

    Args:
        header_bytes: what the head of a request may hold.
        listening: called with its root URL.
        ending: called first thing when it ends.
    """

    def __init__(
        self,
        app: Asgi,
        *,
        host: str,
        port: int,
        header_bytes: int,
        listening: Callable[[str], None],
        ending: Callable[[], None],
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                loop="uvloop",
                http=bounded_http(header_bytes),
                proxy_headers=False,
                lifespan="on",
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        self._listening, self._ending = listening, ending

    async def startup(self, sockets: list[socket] | None = None) -> None:
        # A decision's products of matrices take microseconds; by itself OpenBLAS shares each out among all processor
        # cores, which costs more than it saves and takes them from the other workers and the student.
        threadpool_limits(limits=1, user_api="blas")
        await super().startup(sockets)
        if self.started:
            self._listening(root_url(self.config.host, self.servers[0].sockets[0].getsockname()[1]))

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        self._ending()  # first, since a second SIGTERM ends the process at once
        await super().shutdown(sockets)


def root_url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def announce(run_file: Path, url: str) -> None:
    """Tells other processes (``<home>/run/proxy.json``) and people where this one serves."""
    write_atomically(run_file, orjson.dumps({"pid": os.getpid(), "url": url}))
    print(f"locum: ready at {url}/v1", flush=True)


def _shown(_: Any, __: str, event: EventDict) -> EventDict:
    """What is told in an upstream's words, or a client's, with nothing in it that a terminal obeys."""
    return {key: shown(value) if isinstance(value, str) else value for key, value in event.items()}


def log_to_stderr() -> None:
    """One JSON object a line, or coloured text on a terminal; stdout stays for what people asked for."""
    terminal = sys.stderr.isatty()
    plain = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)  # locals would be prompts and keys
    renderers: list[Processor] = [
        structlog.processors.ExceptionRenderer(plain),
        structlog.processors.JSONRenderer(default=str),
    ]
    if terminal:
        renderers = [_shown, structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )

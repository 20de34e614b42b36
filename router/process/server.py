"""How a process serves: what runs it, the server's settings, and how it ends."""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import structlog
import uvicorn
from threadpoolctl import threadpool_limits

from router.app import create_app
from router.cascade.drain import Drain
from router.errors import LocumError
from router.logs import log_to_stderr
from router.process.protocol import BoundedHttp, bounded_http
from router.served.claim import claimed
from router.served.policies import background
from router.settings import Limits, Settings

LAST_SECONDS = 2
"""For the last words to those whose answers were cut off, and for their connections to close."""
POLL_SECONDS = 0.05
NEVER_SECONDS = 10**6
"""uvicorn's own patience with an idle connection: it has no say, since it counts the time in which it heard nobody."""
LOOK_SECONDS = 1.0
"""How long after one look at the connections the next one comes, roughly."""

log = structlog.get_logger(__name__)

Asgi = Callable[[Any, Any, Any], Awaitable[None]]


class Server(uvicorn.Server):
    """Tells when it listens, and when it no longer does. Its process computes on one thread.

    SIGTERM and SIGINT end it: new requests are turned away, those under way have ``limits.drain_seconds``; then, or at
    a second signal, they are told that it shuts down. What was recorded is on disk in either case; only a third signal
    waits for nothing. SIGHUP changes nothing, since policy files are followed anyway.

    Args:
        drain: what is under way.
        listening: called with its root URL.
        ending: called first thing when it ends.
        replaced: others listen on its port too, so that it stops to as soon as it ends.
    """

    def __init__(
        self,
        app: Asgi,
        *,
        host: str,
        limits: Limits,
        drain: Drain,
        listening: Callable[[str], None],
        ending: Callable[[], None],
        replaced: bool = False,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                loop="uvloop",
                http=bounded_http(limits),
                ws="none",
                proxy_headers=False,
                lifespan="on",
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_keep_alive=NEVER_SECONDS,
                timeout_graceful_shutdown=LAST_SECONDS,
            )
        )
        self._limits, self._drain, self._replaced = limits, drain, replaced
        self._listening, self._ending = listening, ending
        self._looked: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # A decision's products of matrices take microseconds; by itself OpenBLAS shares each out among all processor
        # cores, which costs more than it saves and takes them from the other workers and the student.
        threadpool_limits(limits=1, user_api="blas")
        await super().startup(sockets)
        if self.started:
            signal.signal(signal.SIGHUP, self._hung_up)
            self._listening(root_url(self.config.host, self.servers[0].sockets[0].getsockname()[1]))

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:
            self._look()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._ending()
        self._drain.begin()
        if self._replaced:
            for server in self.servers:
                server.close()
        await self._until_idle(self._limits.drain_seconds)
        self._drain.cut()
        self.force_exit = False  # from here on there is nothing to hurry but the disk
        await self._until_idle(LAST_SECONDS)
        for connection in self._connections():
            if connection.busy:
                connection.transport.abort()  # its client takes nothing, not even this
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit and self.force_exit:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        self.force_exit = self.should_exit
        super().handle_exit(sig, frame)

    def _hung_up(self, sig: int, frame: FrameType | None) -> None:
        log.info("nothing_to_renew", why="policy files are followed; what else is new takes a restart")

    def _look(self) -> None:
        """Ends what was let wait for too long. While the process itself was held up (a machine suspended, or busy)
        nobody could be heard: that time counts against no client."""
        now = asyncio.get_running_loop().time()
        late = now - self._looked - LOOK_SECONDS if self._looked is not None else 0.0
        self._looked = now
        for connection in self._connections():
            if late > LOOK_SECONDS / 2:
                connection.excuse(late)
            connection.look(now)

    def _connections(self) -> list[BoundedHttp]:
        return [c for c in self.server_state.connections if isinstance(c, BoundedHttp)]

    async def _until_idle(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        while not self._drain.idle and not self.force_exit and loop.time() < due:
            self._look()
            await asyncio.sleep(POLL_SECONDS)


def root_url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def bound(host: str, port: int, *, shared: bool) -> socket.socket:
    """A socket bound to the address, ``shared`` with others of this user. Raises LocumError where that cannot be."""
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
    try:
        found.bind((host, port))
    except OSError as e:
        found.close()
        raise LocumError(f"cannot listen on {host}:{port}: {e.strerror or e}") from None
    return found


def exposure(host: str, settings: Settings) -> list[str]:
    """What is wrong with serving at this address: without keys, only this machine's own may be."""
    if settings.client_keys or _is_loopback(host):
        return []
    return [
        f"anybody who reaches {host or 'this machine'} can spend what the teachers cost: "
        "no key is asked for (LOCUM_API_KEYS)"
    ]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def run(policies: Sequence[Path], *, host: str, port: int, settings: Settings) -> None:
    """Serves until SIGINT or SIGTERM. ``port`` 0 picks a free one; ``<home>/run/proxy.json`` tells which.

    Raises:
        PolicyError: a policy file is wrong.
        LocumError: another proxy serves this home, or the address is taken.
    """
    log_to_stderr()
    problems, drain = exposure(host, settings), Drain()
    for problem in problems:
        log.warning("unprotected", why=problem)
    with claimed(settings.run) as claim:
        app, keeping = create_app(policies, settings, drain=drain, problems=problems), set()

        def listening(url: str) -> None:
            claim.tell(url)
            keeping.add(background(claim.keep(), "the claim on the home"))  # until the server's loop ends

        limits, ending = settings.limits, claim.withdraw
        server = Server(app, host=host, limits=limits, drain=drain, listening=listening, ending=ending)
        with suppress(KeyboardInterrupt):  # uvicorn raises the signal again once all is closed
            server.run([bound(host, port, shared=False)])

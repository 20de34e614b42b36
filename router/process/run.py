"""``locum serve`` in one process."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import structlog

from router.app import create_app
from router.cascade.drain import Drain
from router.process.server import Server, bound, exposure, log_to_stderr
from router.served.claim import claimed
from router.served.policies import background
from router.settings import Settings

log = structlog.get_logger(__name__)


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
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the signal again once all is closed
            server.run([bound(host, port, shared=False)])

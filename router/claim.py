"""One proxy a home: two would each keep to its own budgets, and take each other's files away."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson

from router.contracts.files import write_atomically
from router.errors import LocumError


class Claim:
    """What other processes may know of the proxy that serves a home: ``<home>/run/proxy.json``."""

    def __init__(self, run: Path) -> None:
        self._file = run / "proxy.json"

    def tell(self, url: str) -> None:
        """Says where it serves, to other processes and to people."""
        write_atomically(self._file, orjson.dumps({"pid": os.getpid(), "url": url}))
        with suppress(OSError):  # whoever started it may have gone
            print(f"locum: ready at {url}/v1", flush=True)

    def withdraw(self) -> None:
        self._file.unlink(missing_ok=True)


@contextmanager
def claimed(run: Path) -> Iterator[Claim]:
    """This process serves the home whose run folder this is. The system itself gives the claim back when the process
    ends, however it does; so neither a file left behind nor a process id used again stands in anybody's way.

    Raises:
        LocumError: another one serves it.
    """
    run.mkdir(parents=True, exist_ok=True)
    folder = os.open(run, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LocumError(
                f"{_holder(run)} serves {run.parent} already: end it, or give this proxy a home of its own (LOCUM_HOME)"
            ) from None
        claim = Claim(run)
        try:
            yield claim
        finally:
            claim.withdraw()
    finally:
        os.close(folder)


def _holder(run: Path) -> str:
    try:
        said = orjson.loads((run / "proxy.json").read_bytes())
        return f"the proxy at {said['url']} (pid {said['pid']})"
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
        return "another proxy, which is about to start or to end,"

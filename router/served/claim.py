"""One proxy a home: two would each keep to its own budgets, and take each other's files away.

The claim is a lock on the home's run folder, and a file in it, ``proxy.json``, tells who has it. A home that is
deleted, moved or replaced takes both with it; whoever serves it looks every second, and lays them anew.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import orjson
import structlog

from router.contracts.files import RUN_FILE, RunFile, read_run_file, write_atomically
from router.errors import LocumError

LOOK_SECONDS = 1.0

log = structlog.get_logger(__name__)


class Claim:
    """The home whose run folder this is, as this process's own.

    Raises:
        LocumError: another process serves it.
    """

    def __init__(self, run: Path) -> None:
        self._run, self._folder = run, _taken(run)
        self._home = _opened(run.parent)
        self._url: str | None = None
        self._times_lost, self._lost_at, self._refused = 0, 0.0, ""

    def tell(self, url: str) -> None:
        """Says where it serves, to other processes and to people."""
        self._url = url
        self._write()
        with suppress(OSError):  # whoever started it may have gone
            print(f"locum: ready at {url}/v1", flush=True)

    def withdraw(self) -> None:
        """No longer says where it serves. In the folder that is claimed alone: another's file is not taken away."""
        self._url = None
        with suppress(OSError):
            os.unlink(RUN_FILE, dir_fd=self._folder)

    async def keep(self) -> NoReturn:
        """Claims the home anew whenever it is another one, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Once. What cannot be laid anew is logged, and tried again the next time."""
        try:
            if not _is_at(self._run, self._folder):
                self._claim_anew()
            if self._url is not None and read_run_file(self._run) != self._said(self._url):
                self._write()
        except (OSError, LocumError) as e:
            if str(e) != self._refused:
                self._refused = str(e)
                log.error("home_not_claimed", home=str(self._run.parent), why=self._refused)
        else:
            self._refused = ""

    def release(self) -> None:
        self.withdraw()
        os.close(self._folder)
        os.close(self._home)

    def _claim_anew(self) -> None:
        fresh = _taken(self._run)
        with suppress(OSError):  # where it was moved to, it would say what is no longer so
            os.unlink(RUN_FILE, dir_fd=self._folder)
        os.close(self._folder)
        self._folder = fresh
        if _is_at(self._run.parent, self._home):
            log.warning("run_folder_lost", folder=str(self._run), why="deleted or replaced; laid anew")
            return
        os.close(self._home)
        self._home, self._times_lost, self._lost_at = _opened(self._run.parent), self._times_lost + 1, time.time()
        log.error("home_lost", home=str(self._run.parent), why="deleted, moved or replaced; claimed anew")

    def _said(self, url: str) -> RunFile:
        return RunFile(os.getpid(), url, self._times_lost, self._lost_at)

    def _write(self) -> None:
        assert self._url is not None
        write_atomically(self._run / RUN_FILE, orjson.dumps(asdict(self._said(self._url))))


@contextmanager
def claimed(run: Path) -> Iterator[Claim]:
    """This process serves the home whose run folder this is. The system itself gives the claim back when the process
    ends, however it does; so neither a file left behind nor a process id used again stands in anybody's way.

    Raises:
        LocumError: another one serves it.
    """
    claim = Claim(run)
    try:
        yield claim
    finally:
        claim.release()


class ClaimWatch:
    """What a process that answers for the home sees of the claim on it: its own, or that of the one that keeps it.

    Args:
        run: the home's run folder.
        pid: of the process that has the claim.
        observe: told how often the home was lost by now, every time that it looks.
    """

    def __init__(self, run: Path, pid: int, observe: Callable[[int], None]) -> None:
        self._run, self._pid, self._observe = run, pid, observe
        self._last: RunFile | None = None
        self._now: RunFile | None = None

    @property
    def problems(self) -> list[str]:
        """For people. None before the claim was first told of."""
        return [] if self._last is None else [said for said in (self._astray(), self._lost(self._last)) if said]

    async def run(self) -> NoReturn:
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        self._now = read_run_file(self._run)
        if self._now is not None and self._now.pid == self._pid:
            self._last = self._now
        self._observe(self._last.times_lost if self._last else 0)

    def _astray(self) -> str:
        if self._now is None:
            return f"{self._run / RUN_FILE} is gone or cannot be read: `locum status` does not find this proxy"
        if self._now.pid != self._pid:
            return f"{_named(self._now)} serves {self._run.parent} too, since it was deleted or moved: end one of them"
        return ""

    def _lost(self, last: RunFile) -> str:
        if not last.times_lost:
            return ""
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(last.lost_at))
        often = "" if last.times_lost == 1 else f"{last.times_lost} times, last "
        return (
            f"{self._run.parent} was deleted, moved or replaced under the running proxy, {often}at {at}, and laid "
            "anew: the records and bundles that it held are no longer in it"
        )


def _taken(run: Path) -> int:
    """The run folder, open and locked; made where it is missing. Raises LocumError where another process has it."""
    while True:
        run.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = _opened(run)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(folder)
            holder = read_run_file(run)
            named = _named(holder) if holder else "another proxy, which is about to start or to end,"
            raise LocumError(
                f"{named} serves {run.parent} already: end it, or give this proxy a home of its own (LOCUM_HOME)"
            ) from None
        if _is_at(run, folder):
            return folder
        os.close(folder)  # it was deleted in between


def _opened(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)


def _is_at(path: Path, folder: int) -> bool:
    """Whether what is at the path is this open folder."""
    try:
        return os.path.samestat(path.stat(), os.fstat(folder))
    except OSError:
        return False


def _named(proxy: RunFile) -> str:
    return f"the proxy at {proxy.url} (pid {proxy.pid})"

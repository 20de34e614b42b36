"""A round's work folder: every finished stage is kept, so that a killed round goes on where it stopped."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

from router.contracts.files import owners_alone, write_atomically
from router.contracts.rounds import HISTORY
from router.errors import LocumError
from router.settings import Settings

CURRENT = "current"
ROUND = "round.json"


class RoundRunning(LocumError):
    """Another process works on a round in the same home."""


class CanaryRunning(LocumError):
    """A canary is under way: which student is the live one is not settled."""

    def __init__(self, bundle: str) -> None:
        super().__init__(
            f"the canary {bundle} is under way: `locum distill watch` ends it by its audits, `locum distill rollback` "
            f"at once, `locum distill activate {bundle}` makes it live"
        )


@contextmanager
def one_round_at_a_time(settings: Settings) -> Iterator[None]:
    """Holds the home's lock. It is the kernel's, so that a killed round leaves none behind.

    Raises:
        RoundRunning: another process holds it.
    """
    folder = settings.home / "work"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RoundRunning(f"another distillation round is running in {settings.home}") from None
        yield


class Work:
    """The folder of the round under way. Stages are named once, in the order in which they ran.

    ``seconds`` tells how long each finished stage took, in whichever process.
    """

    def __init__(self, folder: Path, resumed: bool = False) -> None:
        self.folder = folder
        self.resumed = resumed
        self.seconds: dict[str, float] = {}

    @classmethod
    def open(cls, parent: Path, key: dict[str, Any]) -> Work:
        """Goes on with the unfinished round of the same ``key`` under ``parent``, else starts afresh.

        ``key`` is all that would make the round another one: its kind, the student it starts from, the
        policy's version, the seed. New traffic is no reason to throw finished work away.
        """
        folder = parent / CURRENT
        try:
            known = json.loads((folder / ROUND).read_bytes())
        except (FileNotFoundError, json.JSONDecodeError):
            known = None
        if known == key:
            return cls(folder, resumed=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)
        write_atomically(folder / ROUND, json.dumps(key).encode())
        return cls(folder)

    def stage(self, name: str, do: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What stage ``name`` found, as plain values: kept from before, or done now and then kept."""
        path = self.folder / f"stage-{name}.json"
        if path.is_file():
            kept = json.loads(path.read_bytes())
        else:
            start = time.monotonic()
            found = do()
            kept = {"seconds": round(time.monotonic() - start, 3), "found": found}
            write_atomically(path, json.dumps(kept, indent=1, default=str).encode())
            owners_alone(self.folder)
        self.seconds[name] = kept["seconds"]
        result: dict[str, Any] = kept["found"]
        return result

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Times a stage that is quick enough to be done again."""
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 3)

    def finish(self, keep: bool) -> Path | None:
        """Clears the folder for the next round; returns where it was kept, if it was to be."""
        if keep:
            kept = self.folder.with_name(time.strftime("%Y%m%d-%H%M%S", time.gmtime()))
            self.folder.replace(kept)
            return kept
        shutil.rmtree(self.folder, ignore_errors=True)
        return None


def unfinished(parent: Path) -> RoundKind | None:
    """What the round that was interrupted would have done; None where none was."""
    try:
        return RoundKind(json.loads((parent / CURRENT / ROUND).read_bytes())["kind"])
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def remember(parent: Path, report: dict[str, Any]) -> None:
    """Appends one finished round."""
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (parent / HISTORY).open("a") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(json.dumps(report, default=str) + "\n")
        file.flush()
        os.fsync(file.fileno())


class RoundKind(StrEnum):
    """What a round would do: make a better student, or tune for the one there is."""

    TRAIN = "train"
    CALIBRATE = "calibrate"

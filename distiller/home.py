"""A round's work folder: every finished stage is kept, so that a killed round goes on where it stopped."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any

from router.contracts.files import owners_alone, write_atomically
from router.contracts.rounds import ABANDONED, CLOCK, CURRENT, HISTORY, RoundClock, read_clock
from router.errors import LocumError
from router.settings import Settings

ROUND = "round.json"
OTHER = "other"
"""What a round's seconds are told under that are in no finished stage."""
CLOCK_SECONDS = 5.0


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

    ``seconds`` tells how long each finished stage took, in whichever process; ``elapsed`` is all of it, with what was
    done again after a kill and what is in no stage.
    """

    def __init__(self, folder: Path, resumed: bool = False) -> None:
        self.folder = folder
        self.resumed = resumed
        self.seconds: dict[str, float] = {}
        before = read_clock(folder)
        self._before, self._began = before.seconds if before else 0.0, time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds of this process and of those before it that worked on the round."""
        return self._before + time.monotonic() - self._began

    @property
    def all_seconds(self) -> dict[str, float]:
        """By stage, and what is in none: together all that went by."""
        staged = sum(self.seconds.values())
        return {**self.seconds, OTHER: round(max(0.0, self.elapsed - staged), 3)}

    @contextmanager
    def clocked(self, cost_usd: Callable[[float, Decimal], Decimal]) -> Iterator[None]:
        """Keeps what has gone by all along, so that a kill loses next to nothing of it. ``cost_usd`` tells what so many
        seconds cost, with what was paid."""
        stop = threading.Event()

        def keep() -> None:
            paid = sum((Decimal(str(u)) for u in self._judged_usd()), Decimal(0))
            clock = RoundClock(at=time.time(), seconds=self.elapsed, usd=cost_usd(self.elapsed, paid))
            with suppress(FileNotFoundError):  # it has ended meanwhile
                write_atomically(self.folder / CLOCK, clock.model_dump_json().encode())

        def watch() -> None:
            while not stop.wait(CLOCK_SECONDS):
                keep()

        thread = threading.Thread(target=watch, name="clock", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            if self.folder.is_dir():
                keep()

    def _judged_usd(self) -> Iterator[object]:
        for path in self.folder.glob("stage-*-judged.json"):
            with suppress(OSError, ValueError, KeyError):
                yield json.loads(path.read_bytes())["found"]["usd"]

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
        if (lost := read_clock(folder)) is not None:
            told = {"kind": ABANDONED, "at": lost.at, "seconds": {OTHER: lost.seconds}, "cost_usd": str(lost.usd)}
            remember(parent, told)
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

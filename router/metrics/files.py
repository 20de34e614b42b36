"""What one worker counts in: files beside the other workers', which a scrape of any of them adds up."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import values

FILE_BYTES = 2**20
"""What the library maps of a file at first."""

log = structlog.get_logger(__name__)


class MetricFiles:
    """A slot's files in a folder: one worker's after another's, so what it counted goes on, and there are no more
    files with every restart, as there would be under process ids (which the library also asks for at every count).

    All metrics that are made from here on count there: make one of these in a process.
    """

    def __init__(self, folder: Path, slot: int) -> None:
        self._folder, self._slot = folder, slot
        self._place, self._which = _Place(slot), _which(folder)
        self._names: set[str] = set()
        self._refused = ""
        self._values: list[Any] = []
        files = self

        class Value(values.MultiProcessValue(lambda: files._place)):  # type: ignore[misc]
            def __init__(self, kind: str, *args: Any, multiprocess_mode: str = "", **options: Any) -> None:
                files._make(f"{kind}_{multiprocess_mode}" if multiprocess_mode else kind)
                super().__init__(kind, *args, multiprocess_mode=multiprocess_mode, **options)
                files._values.append(self)

        values.ValueClass = Value

    def keep(self) -> bool:
        """Lays the files anew, with what they held, where their folder was deleted under them; whether they are there
        now. Cheap where there is nothing to do."""
        if (which := _which(self._folder)) is not None and which == self._which:
            return True
        names, self._names = self._names, set()
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # another worker may have been quicker
            for name in names:
                self._make(name)
        except OSError as e:
            self._names = names
            if str(e) != self._refused:
                self._refused = str(e)
                log.error("metrics_not_laid_anew", why=self._refused)
            return False
        held = [(value, value.get()) for value in self._values]
        self._place, self._which, self._refused = (
            _Place(self._slot),
            _which(self._folder),
            "",
        )  # the library opens what lies there now
        for value, counted in held:
            value.set(counted, time.time())
        return True

    def _make(self, name: str) -> None:
        """Makes sure that the disk has room for a file: the library maps it, and a process dies that writes into a
        mapped page for which there is none."""
        if name in self._names:
            return
        with (self._folder / f"{name}_{self._slot}.db").open("ab") as file:
            file.write(bytes(max(0, FILE_BYTES - file.tell())))
        self._names.add(name)


class _Place:
    """What the library puts into the names of its files. It opens them anew where this is another one."""

    def __init__(self, slot: int) -> None:
        self._slot = slot

    def __str__(self) -> str:
        return str(self._slot)


def _which(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino

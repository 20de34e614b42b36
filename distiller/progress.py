"""How far a piece of work is: told to a terminal, or to nobody."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text


class Tell(Protocol):
    """Where progress goes: ``stage`` opens a stage, ``step`` says how far it is, and ``note`` what else."""

    def stage(self, name: str, detail: str = "") -> None: ...

    def step(self, done: int, of: int, note: str = "") -> None: ...


class Silent:
    """Tells nobody."""

    def stage(self, name: str, detail: str = "") -> None:
        return

    def step(self, done: int, of: int, note: str = "") -> None:
        return


class Shown:
    """Prints each stage as it begins, and a bar while one tells how far it is."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._tenth = 0
        self._start = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def stage(self, name: str, detail: str = "") -> None:
        self._close()
        passed = time.monotonic() - self._start
        self._console.print(Text.assemble((f"{passed:6.0f} s", "dim"), "  ", (name, "bold"), f"  {detail}"))

    def step(self, done: int, of: int, note: str = "") -> None:
        if not self._console.is_terminal:
            self._line(done, of, note)
            return
        if self._bar is None:
            figures = (MofNCompleteColumn(), TextColumn("{task.fields[note]}"), TimeRemainingColumn())
            columns = (TextColumn("          "), BarColumn(), *figures)
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=of, note=note)
        self._bar.update(self._task, completed=done, total=of, note=note)

    def _line(self, done: int, of: int, note: str) -> None:
        """Where no bar can move: a line every tenth, of each thing that is counted anew."""
        if (tenth := done * 10 // max(1, of)) != self._tenth:
            self._tenth = tenth
            self._console.print(f"          {done}/{of} {note}".rstrip())

    def _close(self) -> None:
        self._tenth = 0
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

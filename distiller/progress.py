"""How far a piece of work is: one protocol, shown on a console or to nobody."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Protocol, Self

from rich import progress as bars
from rich.console import Console
from rich.text import Text

INDENT = " " * 10
LINE_SECONDS = 5.0


class Progress(Protocol):
    """Where progress goes: ``stage`` opens a stage, ``step`` says how far it is, and ``note`` what else. ``of`` is 0
    where nobody knows how much there is."""

    def stage(self, name: str, detail: str = "") -> None: ...

    def step(self, done: int, of: int, note: str = "") -> None: ...


class SilentProgress:
    """Tells nobody."""

    def stage(self, name: str, detail: str = "") -> None:
        return

    def step(self, done: int, of: int, note: str = "") -> None:
        return


class ConsoleProgress:
    """Prints each stage as it begins, and a bar while one tells how far it is; ``label`` stands before that. Where no
    bar can move it is a line every tenth, and every few seconds where nobody knows how much there is."""

    def __init__(self, console: Console, label: str = INDENT) -> None:
        self._console, self._label = console, label
        self._bar: bars.Progress | None = None
        self._task = bars.TaskID(0)
        self._tenth = 0
        self._start = self._said = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def stage(self, name: str, detail: str = "") -> None:
        self._close()
        self._said = time.monotonic()
        passed = self._said - self._start
        self._console.print(Text.assemble((f"{passed:6.0f} s", "dim"), "  ", (name, "bold"), f"  {detail}".rstrip()))

    def step(self, done: int, of: int, note: str = "") -> None:
        if not self._console.is_terminal:
            if self._is_due(done, of):
                count = f"{done}/{of}" if of else f"{done:,}"
                self._console.print(f"{self._label}{count} {note}".rstrip(), soft_wrap=True)
            return
        if self._bar is None:
            figures = (
                bars.MofNCompleteColumn(),
                bars.TextColumn("{task.fields[note]}", markup=False),
                bars.TimeRemainingColumn(),
            )
            columns = (bars.TextColumn(self._label, markup=False), bars.BarColumn(), *figures)
            self._bar = bars.Progress(*columns, console=self._console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=of or None, note=note)
        self._bar.update(self._task, completed=done, total=of or None, note=note)

    def _is_due(self, done: int, of: int) -> bool:
        if of:
            before, self._tenth = self._tenth, done * 10 // of
            return self._tenth != before
        before_seconds, now = self._said, time.monotonic()
        due = now - before_seconds > LINE_SECONDS
        self._said = now if due else before_seconds
        return due

    def _close(self) -> None:
        self._tenth = 0
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

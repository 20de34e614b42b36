"""How far a training run is: a bar on a terminal, a line every tenth elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO


class Meter:
    """Shows step, loss, tokens/s and time to go on ``stream``. A context manager; call ``show`` after each step."""

    def __init__(self, label: str, steps: int, done: int = 0, stream: TextIO | None = None) -> None:
        from rich.console import Console  # noqa: PLC0415  (only a running command shows progress)
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

        self._stream = stream or sys.stderr
        self._label, self._steps, self._first = label, steps, done
        self._tenth = done * 10 // steps
        self._tokens, self._started = 0, time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=Console(file=self._stream),
            disable=not self._stream.isatty(),
        )
        self._task = self._bar.add_task(label, total=steps, completed=done, figures="")

    def __enter__(self) -> Meter:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, step: int, loss: float, tokens: int) -> None:
        """``step`` steps are done; the last had this loss and this many tokens."""
        self._tokens += tokens
        seconds = max(time.monotonic() - self._started, 1e-9)
        figures = f"loss {loss:.3f} · {self._tokens / seconds:,.0f} tok/s"
        self._bar.update(self._task, completed=step, figures=figures)
        tenth = step * 10 // self._steps
        if self._bar.disable and tenth > self._tenth:
            self._tenth = tenth
            to_go = seconds / max(step - self._first, 1) * (self._steps - step)
            print(
                f"{self._label}: step {step}/{self._steps} · {figures} · {to_go:,.0f} s to go",
                file=self._stream,
                flush=True,
            )

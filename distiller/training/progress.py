"""How far a training run is: a bar on a terminal, a line every tenth elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO


class Meter:
    """Shows step, loss, dev loss, tokens/s and time to go on ``stream``. A context manager; call ``show`` after each
    step, and ``measured`` when there is a dev loss. ``silent`` says nothing: another process does."""

    def __init__(
        self, label: str, steps: int, done: int = 0, stream: TextIO | None = None, silent: bool = False
    ) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

        from router.terminal import Terminal  # noqa: PLC0415  (only a running command shows progress)

        self._stream = stream or sys.stderr
        self._label, self._steps, self._first = label, steps, done
        self._tenth = done * 10 // steps
        self._tokens, self._started = 0, time.monotonic()
        self._dev, self._silent = "", silent
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=Terminal(file=self._stream),
            disable=silent or not self._stream.isatty(),
        )
        self._task = self._bar.add_task(label, total=steps, completed=done, figures="")

    def __enter__(self) -> Meter:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def measured(self, dev_loss: float | None) -> None:
        """The dev loss as it is now; None: there are no dev rows."""
        self._dev = "" if dev_loss is None else f" · dev {dev_loss:.3f}"

    def show(self, step: int, loss: float | None, tokens: int) -> None:
        """``step`` steps are done; the last had this loss, if any, and this many tokens."""
        self._tokens += tokens
        seconds = max(time.monotonic() - self._started, 1e-9)
        said = "" if loss is None else f"loss {loss:.3f}{self._dev} · "
        figures = f"{said}{self._tokens / seconds:,.0f} tok/s"
        self._bar.update(self._task, completed=step, figures=figures)
        tenth = step * 10 // self._steps
        if self._bar.disable and not self._silent and tenth > self._tenth:
            self._tenth = tenth
            to_go = seconds / max(step - self._first, 1) * (self._steps - step)
            print(
                f"{self._label}: step {step}/{self._steps} · {figures} · {to_go:,.0f} s to go",
                file=self._stream,
                flush=True,
            )

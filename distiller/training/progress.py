"""How far a training run is: on a terminal, as a picture, and to TensorBoard, MLflow or Weights & Biases."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from distiller.config import TrainConfig
from distiller.progress import ConsoleProgress
from distiller.training.checkpoints import RunState
from distiller.training.place import ProcessPlace
from router.errors import TrainingError
from router.reports.terminal import Terminal

SMOOTHED = 0.05
"""The share of a run's steps over whose losses the line's mean runs."""
PROJECT = "locum"
_PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "mlflow": ("mlflow",), "wandb": ("wandb",)}


class Meter:
    """Shows step, loss, dev loss, tokens/s and time to go on ``stream``. A context manager; call ``show`` after each
    step, and ``measured`` when there is a dev loss. ``silent`` says nothing: another process does."""

    def __init__(
        self, label: str, steps: int, done: int = 0, stream: TextIO | None = None, silent: bool = False
    ) -> None:
        console = Terminal(file=stream or sys.stderr)
        self._shown = None if silent else ConsoleProgress(console, f"{label}: step ")
        self._bar = console.is_terminal
        self._steps, self._first = steps, done
        self._tokens, self._started = 0, time.monotonic()
        self._dev = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        if self._shown:
            self._shown.__exit__(kind, e, at)

    def measured(self, dev_loss: float | None) -> None:
        """The dev loss as it is now; None: there are no dev rows."""
        self._dev = "" if dev_loss is None else f" · dev {dev_loss:.3f}"

    def show(self, step: int, loss: float | None, tokens: int) -> None:
        """``step`` steps are done; the last had this loss, if any, and this many tokens."""
        self._tokens += tokens
        seconds = max(time.monotonic() - self._started, 1e-9)
        figures = [] if loss is None else [f"loss {loss:.3f}{self._dev}"]
        figures.append(f"{self._tokens / seconds:,.0f} tok/s")
        if not self._bar:  # which tells it itself
            figures.append(f"{seconds / max(step - self._first, 1) * (self._steps - step):,.0f} s to go")
        if self._shown:
            self._shown.step(step, self._steps, f"· {' · '.join(figures)}")


def plot(progress: RunState, path: Path) -> None:
    """Draws each step's loss, their running mean and the dev losses."""
    from matplotlib.figure import Figure  # a second to load, and no display needed this way

    losses, dev = progress.losses, dict(progress.dev_losses)
    if progress.dev_loss_before is not None:
        dev = {0: progress.dev_loss_before, **dev}
    span = max(1, round(SMOOTHED * len(losses)))
    means = [sum(part) / len(part) for i in range(len(losses)) if (part := losses[max(0, i + 1 - span) : i + 1])]
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    steps = range(1, len(losses) + 1)
    axes.plot(steps, losses, color="#93c5fd", lw=0.8, label="a step's rows")
    axes.plot(steps, means, color="#2563eb", lw=1.6, label=f"mean of {span} steps")
    if dev:
        axes.plot(list(dev), list(dev.values()), "o-", color="#d97706", label="dev rows")
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats per answer token")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def require(track: str | None) -> None:
    """Raises:
    TrainingError: the tracker's package is not installed.
    """
    if track is not None and not any(find_spec(name) for name in _PACKAGES[track]):
        raise TrainingError(f"tracking with {track} needs its package: pip install {_PACKAGES[track][0]}")


class Tracking:
    """A context manager around a run. Without a tracker it does nothing; of several processes the first one speaks."""

    def __init__(self, place: ProcessPlace, config: TrainConfig) -> None:
        self._accelerator = place.accelerator if config.track else None
        self._config = config

    def __enter__(self) -> Self:
        if self._accelerator:
            said = {k: v if isinstance(v, str | int | float) else str(v) for k, v in asdict(self._config).items()}
            self._accelerator.init_trackers(PROJECT, config=said)
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        if self._accelerator:
            self._accelerator.end_training()

    def tell(self, step: int, figures: Mapping[str, float]) -> None:
        if self._accelerator:
            self._accelerator.log(dict(figures), step=step)

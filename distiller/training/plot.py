"""A run's losses as a picture."""

from __future__ import annotations

from pathlib import Path

from distiller.training.checkpoints import Progress

SMOOTHED = 0.05
"""The share of a run's steps over whose losses the line's mean runs."""


def plot(progress: Progress, path: Path) -> None:
    """Draws each step's loss, their running mean and the dev losses."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (a second to load, and no display needed this way)

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

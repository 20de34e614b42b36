"""A training run's state on disk, so that a run that was cut off goes on and ends with the same weights."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer


@dataclass(slots=True)
class Progress:
    """What a run has done so far. ``losses`` are means in nats per answer token, one a step."""

    step: int = 0
    tokens: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    dev_loss_before: float | None = None


class Checkpoint:
    """One file, replaced atomically. ``fingerprint`` names the run: another run's file is not resumed.

    A run draws no random numbers after its first step (its plan is drawn from the seed), so weights,
    optimiser and step are its whole state.
    """

    def __init__(self, path: Path, fingerprint: str, seconds: float, steps: int | None) -> None:
        self.path, self._fingerprint = path, fingerprint
        self._seconds, self._steps = seconds, steps
        self._saved = time.monotonic()

    def due(self, step: int) -> bool:
        by_step = self._steps is not None and step % self._steps == 0
        return by_step or time.monotonic() - self._saved >= self._seconds

    def save(self, progress: Progress, weights: dict[str, Tensor], optimizer: Optimizer) -> None:
        import torch  # noqa: PLC0415  (heavy)

        state: dict[str, Any] = {
            "fingerprint": self._fingerprint,
            "progress": {name: getattr(progress, name) for name in Progress.__slots__},
            "weights": {name: w.detach() for name, w in weights.items()},
            "optimizer": optimizer.state_dict(),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        torch.save(state, fresh)
        fresh.replace(self.path)
        self._saved = time.monotonic()

    def resume(self, weights: dict[str, Tensor], optimizer: Optimizer) -> Progress | None:
        """Puts weights and optimiser back in place; None where this run has no checkpoint."""
        import torch  # noqa: PLC0415

        if not self.path.is_file():
            return None
        state = torch.load(self.path, map_location="cpu", weights_only=True, mmap=True)
        if state["fingerprint"] != self._fingerprint:
            return None
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(state["weights"][name])
        optimizer.load_state_dict(state["optimizer"])
        return Progress(**state["progress"])

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

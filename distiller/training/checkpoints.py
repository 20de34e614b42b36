"""A training run's state on disk, so that a run that was cut off goes on and ends with the same weights."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distiller.training.place import ProcessPlace
from distiller.training.sharding import own

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

_CURRENT, _BEST = "current.json", "best"


@dataclass(slots=True)
class RunState:
    """What a run has done so far. ``losses`` are means in nats per answer token, one a step; ``dev_losses`` by the
    number of steps after which they were measured."""

    step: int = 0
    tokens: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0
    tokens_per_pass: int = 0
    losses: list[float] = field(default_factory=list)
    dev_losses: dict[int, float] = field(default_factory=dict)
    dev_loss_before: float | None = None


class Checkpoint:
    """A folder with one file a process, and a small one that says which of them count, written last.

    ``fingerprint`` names the run: another run's state is not resumed. Weights, optimiser, torch's random state and
    what was done are the whole state, beside the best weights so far where a run keeps them.
    """

    def __init__(self, folder: Path, fingerprint: str, seconds: float, steps: int | None, place: ProcessPlace) -> None:
        self.folder, self._fingerprint, self._place = folder, fingerprint, place
        self._seconds, self._steps = seconds, steps
        self._saved = time.monotonic()

    def due(self, step: int) -> bool:
        by_step = self._steps is not None and step % self._steps == 0
        return by_step or self._place.any(time.monotonic() - self._saved >= self._seconds)

    def save(self, progress: RunState, weights: Mapping[str, Tensor], optimizer: Optimizer) -> None:
        state: dict[str, Any] = {
            "progress": {name: getattr(progress, name) for name in RunState.__slots__},
            "weights": {name: own(w).detach() for name, w in weights.items()},
            "optimizer": [{k: own(v) for k, v in optimizer.state[w].items()} for w in weights.values()],
            "random": _random_state(),
        }
        name = f"step-{progress.step}"
        _write(self.folder / f"{name}.{self._place.rank}", state)
        self._place.wait()  # what counts is there as a whole
        if self._place.first:
            fresh = self.folder / f"{_CURRENT}.{os.getpid()}"
            fresh.write_text(json.dumps({"fingerprint": self._fingerprint, "name": name}))
            fresh.replace(self.folder / _CURRENT)
        self._place.wait()  # and nothing that counts goes
        for old in self.folder.glob(f"step-*.{self._place.rank}"):
            if old.stem != name:
                old.unlink()
        self._saved = time.monotonic()

    def resume(self, weights: Mapping[str, Tensor], optimizer: Optimizer) -> RunState | None:
        """Puts weights, optimiser and random state back in place; None where this run has no checkpoint."""
        import torch

        try:
            current = json.loads((self.folder / _CURRENT).read_bytes())
        except FileNotFoundError:
            return None
        if current["fingerprint"] != self._fingerprint:
            return None
        path = self.folder / f"{current['name']}.{self._place.rank}"
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        with torch.no_grad():
            for name, weight in weights.items():
                own(weight).copy_(state["weights"][name])
        for weight, kept in zip(weights.values(), state["optimizer"], strict=True):
            optimizer.state[weight] = {k: _like(weight, v) for k, v in kept.items()}
        _set_random_state(state["random"])
        return RunState(**state["progress"])

    def keep_best(self, weights: Mapping[str, Tensor]) -> None:
        """Keeps these weights beside the state."""
        _write(self.folder / f"{_BEST}.{self._place.rank}", {n: own(w).detach() for n, w in weights.items()})

    def take_best(self, weights: Mapping[str, Tensor]) -> None:
        """Puts the weights that were kept back in place."""
        import torch

        kept = torch.load(self.folder / f"{_BEST}.{self._place.rank}", map_location="cpu", weights_only=True, mmap=True)
        with torch.no_grad():
            for name, weight in weights.items():
                own(weight).copy_(kept[name])

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _write(path: Path, state: dict[str, Any]) -> None:
    """Whole or not at all."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    torch.save(state, fresh)
    fresh.replace(path)


def _like(weight: Tensor, value: Any) -> Any:
    """The optimiser's value for a weight, where and split as the weight is; its count of steps stays a plain one."""
    import torch
    from torch.distributed.tensor import DTensor

    if not torch.is_tensor(value):
        return value
    moved = value.clone().to(weight.device)
    if not isinstance(weight, DTensor) or value.ndim == 0:
        return moved
    return DTensor.from_local(
        moved, weight.device_mesh, weight.placements, run_check=False, shape=weight.shape, stride=weight.stride()
    )


def _random_state() -> list[Tensor]:
    import torch

    return [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]


def _set_random_state(states: list[Tensor]) -> None:
    import torch

    torch.set_rng_state(states[0])
    torch.cuda.set_rng_state_all(states[1:])

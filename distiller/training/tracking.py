"""Sending a run's figures to TensorBoard, MLflow or Weights & Biases, as accelerate's trackers do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from types import TracebackType
from typing import Self

from distiller.config import TrainConfig
from distiller.training.place import Place
from router.errors import TrainingError

PROJECT = "locum"
_PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "mlflow": ("mlflow",), "wandb": ("wandb",)}


def require(track: str | None) -> None:
    """Raises:
    TrainingError: the tracker's package is not installed.
    """
    if track is not None and not any(find_spec(name) for name in _PACKAGES[track]):
        raise TrainingError(f"tracking with {track} needs its package: pip install {_PACKAGES[track][0]}")


class Tracking:
    """A context manager around a run. Without a tracker it does nothing; of several processes the first one speaks."""

    def __init__(self, place: Place, config: TrainConfig) -> None:
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

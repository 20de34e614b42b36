"""Which method learns as the settings say."""

from __future__ import annotations

from pathlib import Path

from distiller.config import TrainConfig
from distiller.training.methods.base import Method
from distiller.training.methods.confidence import Confidence
from distiller.training.methods.hard import HardLabel
from router.contracts.methods import ConfidenceSettings


def make(config: TrainConfig, student: Path) -> Method:
    """The method of ``config.method`` for the student in the folder ``student``."""
    settings = config.method
    match settings:
        case ConfidenceSettings():
            return Confidence(settings.doubt)
        case _:
            return HardLabel()

"""One readable torch loop: a student learns the teacher's answers, resumably."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distiller.config import TrainConfig
from distiller.dataset import Dataset


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What a training run did. ``seconds`` counts every run of a resumed one; losses are nats per answer token.

    ``left_out`` counts rows longer than ``max_tokens``. ``dev_loss`` None: there were no dev rows.
    """

    folder: Path
    rows: int
    left_out: int
    steps: int
    tokens: int
    answer_tokens: int
    seconds: float
    tokens_per_second: float
    first_loss: float
    last_loss: float
    dev_loss_before: float | None
    dev_loss: float | None
    precision: str
    device: str
    resumed: bool


def train(config: TrainConfig, student: Path, dataset: Dataset, out: Path) -> TrainReport:
    """Trains the student in the folder ``student`` on the dataset and writes a Hugging Face folder to ``out``.

    A run that was cut off goes on from its last checkpoint, kept beside ``out``, if called again
    with the same arguments, and ends with the same weights.

    Raises:
        TrainingError: the dataset has no training rows that fit.
    """
    raise NotImplementedError

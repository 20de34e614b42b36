"""A pass that does not fit into memory is halved until it does, and the step comes out the same."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from structlog.testing import capture_logs

from distiller.config import TrainConfig
from distiller.training.batches import EncodedRow, Pass
from distiller.training.learner import Learner
from distiller.training.methods.hard import HardLabel
from distiller.training.outputs import Outputs
from distiller.training.place import halved, out_of_memory
from router.errors import TrainingError
from tests.distiller.tiny_student import student

CONFIG = TrainConfig(device="cpu", threads=1, tokens_per_pass=64)
ROWS = [EncodedRow(tuple((5 * n + 3 * i) % 200 for i in range(8)), 5, 1.0) for n in range(8)]


@dataclass(frozen=True)
class Greedy(HardLabel):
    """Runs out of memory in a pass of more than ``limit`` tokens, after having taken gradients of smaller ones."""

    limit: int = 0
    seen: list[int] = field(default_factory=list)

    def loss(self, outputs: Outputs, part: Pass) -> torch.Tensor:
        self.seen.append(part.tokens.numel())
        if part.tokens.numel() > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return super().loss(outputs, part)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_passes_are_halved_until_they_fit_and_stay_so(tmp_path: Path, precision: str) -> None:
    config, base, moved = replace(CONFIG, precision=precision), student(tmp_path), []
    for method in (Greedy(limit=16), HardLabel()):
        torch.manual_seed(0)
        learner = Learner(config, base, method)
        with capture_logs() as logged:
            losses = [learner.step(ROWS, 1e-3, step) for step in range(2)]
        moved.append((losses, learner, [(line["event"], line["tokens_per_pass"]) for line in logged]))
    (tight, small, said), (roomy, large, nothing) = moved
    assert small.tokens_per_pass == 16 and large.tokens_per_pass == 64
    assert small.method.seen[:2] == [64, 32] and small.method.seen[2:] == [16] * 8  # type: ignore[attr-defined]
    assert said == [("out_of_memory", 32), ("out_of_memory", 16)] and nothing == []
    assert tight == pytest.approx(roomy, rel=1e-2 if precision == "bf16" else 1e-5)


def test_a_row_that_does_not_fit_alone_is_told_with_what_takes_less(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="activation checkpointing, shorter rows"):
        Learner(CONFIG, student(tmp_path), Greedy(limit=4)).step(ROWS, 1e-3, 0)
    assert halved(8192, ROWS) == 32  # half of what the rows have, not half of a budget that they never filled


def test_other_faults_are_not_taken_for_it(tmp_path: Path) -> None:
    assert out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))

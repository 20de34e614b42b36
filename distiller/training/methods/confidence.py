"""Confidence: the student learns the teacher's text, and to be unsure where it gets that wrong.

After Gatekeeper (Rabanser et al., "Gatekeeper: Improving Model Cascades Through Confidence Tuning", 2025): in a
cascade it matters less how often the small model is right than that its own probabilities tell when it is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from distiller.training.batches import Pass
from distiller.training.losses.confidence import confidence_loss
from distiller.training.methods.base import Method

if TYPE_CHECKING:
    from torch import Tensor

    from distiller.training.forward import Outputs


@dataclass(frozen=True)
class Confidence(Method):
    """Cross-entropy, with ``doubt`` of it for the uniform distribution where the student's first choice is wrong."""

    doubt: float

    def loss(self, outputs: Outputs, part: Pass) -> Tensor:
        return confidence_loss(outputs.hidden, outputs.output_weight, part.targets, part.weights, doubt=self.doubt)

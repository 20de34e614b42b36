"""Hard labels: the student learns the teacher's text, token by token.

Sequence-level knowledge distillation (Kim and Rush, "Sequence-Level Knowledge Distillation", 2016): the teacher's
answer stands for its whole distribution, so text is all that is needed of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from distiller.training.batches import Pass
from distiller.training.losses.cross_entropy import answer_cross_entropy
from distiller.training.methods.base import Method

if TYPE_CHECKING:
    from torch import Tensor

    from distiller.training.outputs import Outputs


@dataclass(frozen=True)
class HardLabel(Method):
    """Cross-entropy on the teacher's tokens."""

    def loss(self, outputs: Outputs, part: Pass) -> Tensor:
        return answer_cross_entropy(outputs.hidden, outputs.output_weight, part.targets, part.weights)

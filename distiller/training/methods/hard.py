"""Hard labels: the student learns the teacher's text, token by token.

Sequence-level knowledge distillation (Kim and Rush, "Sequence-Level Knowledge Distillation", 2016): the teacher's
answer stands for its whole distribution, so text is all that is needed of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from distiller.training.batches import Encoded, Pass
from distiller.training.losses.hard import answer_cross_entropy

if TYPE_CHECKING:
    from torch import Tensor

    from distiller.training.forward import Outputs


@dataclass(frozen=True, slots=True)
class HardLabel:
    """Cross-entropy on the teacher's tokens."""

    layers: tuple[int, ...] = ()
    parameters: Mapping[str, Tensor] = field(default_factory=dict)

    def rows(self, rows: Sequence[Encoded], step: int) -> Sequence[Encoded]:
        return rows

    def loss(self, outputs: Outputs, part: Pass) -> Tensor:
        return answer_cross_entropy(outputs.hidden, outputs.output_weight, part.targets, part.weights)

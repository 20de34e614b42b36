"""Soft labels: the student learns what its teacher would have said, beside what it did say.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015; the divergences and their sources are in
``losses.divergences``, what is done where only a few probabilities are known in ``losses.sparse``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from distiller.data.rows import Row
from distiller.training.batches import Encoded, Pass, encode
from distiller.training.losses.divergences import Divergence
from distiller.training.losses.hard import answer_cross_entropy
from distiller.training.losses.soft import soft_label
from distiller.training.losses.sparse import Rest, SparseTargets, sparse_soft_label
from distiller.training.methods.base import Method
from distiller.training.methods.teacher import OpenTeacher

if TYPE_CHECKING:
    from torch import Tensor

    from distiller.training.forward import Outputs

Knowing = Callable[[Sequence[Row], Sequence[Encoded], Any], Sequence[SparseTargets | None]]
"""What is known of a teacher's distributions for rows, as they are and as tokens, given the tokenizer."""


@dataclass(frozen=True)
class SoftLabel(Method):
    """A divergence from an open-weight teacher's distribution, at ``mix``, and cross-entropy on the text."""

    teacher: OpenTeacher
    divergence: Divergence
    temperature: float
    mix: float

    def loss(self, outputs: Outputs, part: Pass) -> Tensor:
        return self.against(self.teacher.outputs(part), outputs, part)

    def against(self, teacher: Outputs, outputs: Outputs, part: Pass) -> Tensor:
        """The loss where the teacher has been asked already."""
        return soft_label(
            outputs,
            teacher,
            part.targets,
            part.weights,
            divergence=self.divergence,
            temperature=self.temperature,
            mix=self.mix,
        )


@dataclass(frozen=True)
class SparseSoftLabel(Method):
    """The same where ``knowing`` tells the likeliest tokens' probabilities alone, once for every row."""

    knowing: Knowing
    divergence: Divergence
    rest: Rest
    mix: float

    def encode(self, rows: Iterable[Row], tokenizer: Any, max_tokens: int) -> tuple[list[Encoded], int]:
        fitting, made, left_out = [], [], 0
        for row in rows:
            encoded, too_long = encode([row], tokenizer, max_tokens)
            made += encoded
            fitting += [row] * len(encoded)
            left_out += too_long
        known = self.knowing(fitting, made, tokenizer)
        return [replace(row, known=one) for row, one in zip(made, known, strict=True)], left_out

    def loss(self, outputs: Outputs, part: Pass) -> Tensor:
        if part.known is None:
            return answer_cross_entropy(outputs.hidden, outputs.output_weight, part.targets, part.weights)
        return sparse_soft_label(
            outputs.hidden,
            outputs.output_weight,
            part.known,
            part.targets,
            part.weights,
            divergence=self.divergence,
            rest=self.rest,
            mix=self.mix,
        )

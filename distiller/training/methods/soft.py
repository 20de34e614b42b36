"""Soft labels: the teacher's whole distribution at each position, beside its token.

(1 - mix) CE + mix T² D(p_T, q_T): distributions softened by the temperature T, whose square keeps the gradient's size
(Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from distiller.data.rows import DatasetRow, Skip
from distiller.training.batches import EncodedRow, Pass, encode
from distiller.training.losses.cross_entropy import answer_cross_entropy, cross_entropy, minus_one_hot
from distiller.training.losses.divergences import Divergence
from distiller.training.losses.fusion import at_least_float32, fused
from distiller.training.losses.sparse_labels import Rest, SparseTargets, sparse_soft_label
from distiller.training.methods.base import Method
from distiller.training.teachers.weights import OpenTeacher
from router.engine.template import PromptTemplate

if TYPE_CHECKING:
    from torch import Tensor

    from distiller.training.outputs import Outputs


Knowing = Callable[[Sequence[DatasetRow], Sequence[EncodedRow], Any], Sequence[SparseTargets | None]]
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

    def encode(
        self, rows: Iterable[DatasetRow], prompts: PromptTemplate, max_tokens: int
    ) -> tuple[list[EncodedRow], Counter[Skip]]:
        fitting, made = [], []
        left_out: Counter[Skip] = Counter()
        for row in rows:
            encoded, refused = encode([row], prompts, max_tokens)
            made += encoded
            fitting += [row] * len(encoded)
            left_out += refused
        known = self.knowing(fitting, made, prompts.tokenizer)
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


def soft_label(
    student: Outputs,
    teacher: Outputs,
    targets: Tensor,
    weights: Tensor,
    *,
    divergence: Divergence,
    temperature: float = 1.0,
    mix: float = 0.5,
    chunk: int | None = None,
) -> Tensor:
    """Weighted sum, in nats, over the answer positions; neither model's logits exist whole.

    Args:
        student, teacher: hidden (positions, their width) and output weight (vocabulary, their width). Where one
            vocabulary is padded further than the other, what only one of them has is left out.
        targets: (positions,), the answers' tokens.
        weights: (positions,), how much each position counts.
        temperature: T above. mix: the divergence's share, in [0, 1].
        chunk: positions whose logits exist at once; None: what suits the device.

    Returns:
        A scalar with a gradient to the student's hidden states and, where it asks for one, its output weight.
    """
    import torch

    shared = min(len(student.output_weight), len(teacher.output_weight))
    known = teacher.output_weight[:shared].detach()

    def measure(logits: Tensor, piece: slice, gradient: bool) -> tuple[Tensor, Tensor | None]:
        kind = at_least_float32(logits)
        expected = torch.nn.functional.linear(teacher.hidden[piece].detach().to(known.dtype), known)
        log_p = torch.log_softmax(expected.to(kind) / temperature, -1)
        del expected
        soft = torch.log_softmax(logits[:, :shared].to(kind) / temperature, -1)
        losses, slope = divergence(log_p, soft, gradient)
        del log_p
        losses = losses * (mix * temperature**2)
        slope = _widened(slope, logits).mul_(mix * temperature) if slope is not None else None
        if mix < 1:
            log_q = torch.log_softmax(logits, -1, dtype=kind)
            losses += (1 - mix) * cross_entropy(log_q, targets[piece])
            if slope is not None:
                slope.add_(minus_one_hot(log_q.exp_(), targets[piece]), alpha=1 - mix)
        return losses, slope

    return fused(student.hidden, student.output_weight, weights, measure, chunk)


def _widened(slope: Tensor, logits: Tensor) -> Tensor:
    """With a zero for every token that only the student's vocabulary has."""
    import torch

    missing = logits.shape[1] - slope.shape[1]
    return torch.nn.functional.pad(slope, (0, missing)) if missing else slope

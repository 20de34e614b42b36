"""Soft labels: the teacher's whole distribution at each position, beside its token.

(1 - mix) CE + mix T² D(p_T, q_T): distributions softened by the temperature T, whose square keeps the gradient's size
(Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distiller.training.losses.divergences import Divergence
from distiller.training.losses.fused import at_least_float32, fused
from distiller.training.losses.hard import cross_entropy, minus_one_hot

if TYPE_CHECKING:
    from torch import Tensor

    from distiller.training.forward import Outputs


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
    import torch  # noqa: PLC0415  (heavy)

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
    import torch  # noqa: PLC0415

    missing = logits.shape[1] - slope.shape[1]
    return torch.nn.functional.pad(slope, (0, missing)) if missing else slope

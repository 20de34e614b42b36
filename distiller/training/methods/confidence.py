"""Confidence: the student learns the teacher's text, and to be unsure where it gets that wrong.

After Gatekeeper (Rabanser et al., "Gatekeeper: Improving Model Cascades Through Confidence Tuning", 2025): in a
cascade it matters less how often the small model is right than that its own probabilities tell when it is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

from distiller.training.batches import Pass
from distiller.training.losses.cross_entropy import cross_entropy, minus_one_hot
from distiller.training.losses.fusion import at_least_float32, fused
from distiller.training.methods.base import Method

if TYPE_CHECKING:
    from torch import Tensor

    from distiller.training.outputs import Outputs


@dataclass(frozen=True)
class Confidence(Method):
    """Cross-entropy, with ``doubt`` of it for the uniform distribution where the student's first choice is wrong."""

    doubt: float

    def loss(self, outputs: Outputs, part: Pass) -> Tensor:
        return confidence_loss(outputs.hidden, outputs.output_weight, part.targets, part.weights, doubt=self.doubt)


def confidence_loss(
    hidden: Tensor, output_weight: Tensor, targets: Tensor, weights: Tensor, *, doubt: float, chunk: int | None = None
) -> Tensor:
    """Weighted sum, in nats: CE where the student's likeliest token is right, else (1 - doubt) CE + doubt KL(u||q).

    u gives every token the same. From Rabanser et al., "Gatekeeper: Improving Model Cascades Through Confidence
    Tuning", 2025, who tune a finished model with the KL alone where it is wrong; CE stays here, since it still learns.
    Which tokens are wrong is no function that has a gradient, and is taken as given.

    Args:
        hidden: (positions, width). output_weight: (vocabulary, width). targets, weights: (positions,).
        doubt: the uniform distribution's share where the student is wrong, in [0, 1].
        chunk: positions whose logits exist at once; None: what suits the device.
    """

    def measure(logits: Tensor, piece: slice, gradient: bool) -> tuple[Tensor, Tensor | None]:
        import torch

        answer, outcomes = targets[piece], logits.shape[-1]
        wrong = logits.argmax(-1) != answer
        log_q = torch.log_softmax(logits, -1, dtype=at_least_float32(logits))  # (positions, vocabulary)
        shares = doubt * wrong.to(log_q)  # (positions,)
        to_uniform = -log_q.mean(-1) - log(outcomes)
        losses = (1 - shares) * cross_entropy(log_q, answer) + shares * to_uniform
        if not gradient:
            return losses, None
        slope = minus_one_hot(log_q.exp_(), answer)  # q less the target's one; of a share of it, u is taken instead
        slope.scatter_add_(1, answer[:, None], shares[:, None]).sub_((shares / outcomes)[:, None])
        return losses, slope

    return fused(hidden, output_weight, weights, measure, chunk)

"""Hard labels: cross-entropy on the teacher's tokens, answer positions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distiller.training.losses.fusion import at_least_float32, fused

if TYPE_CHECKING:
    from torch import Tensor


def answer_cross_entropy(
    hidden: Tensor, output_weight: Tensor, targets: Tensor, weights: Tensor, chunk: int | None = None
) -> Tensor:
    """Weighted sum, in nats, of the cross-entropy at the given positions; divide by the weights' sum for the mean.

    Args:
        hidden: (positions, width), the last layer's output where the next token is an answer's.
        output_weight: (vocabulary, width), the output embedding.
        targets: (positions,), the answers' tokens.
        weights: (positions,), how much each position counts.
        chunk: positions whose logits exist at once; None: what suits the device.

    Returns:
        A scalar with a gradient to ``hidden`` and, where it asks for one, ``output_weight``.
    """

    def measure(logits: Tensor, piece: slice, gradient: bool) -> tuple[Tensor, Tensor | None]:
        import torch

        if logits.is_cuda:
            from distiller.training.losses import kernels

            return kernels.cross_entropy(logits, targets[piece], gradient)
        log_q = torch.log_softmax(logits, -1, dtype=at_least_float32(logits))  # (positions, vocabulary)
        return cross_entropy(log_q, targets[piece]), minus_one_hot(log_q.exp_(), targets[piece]) if gradient else None

    return fused(hidden, output_weight, weights, measure, chunk)


def cross_entropy(log_q: Tensor, targets: Tensor) -> Tensor:
    """(positions,) nats, from log-probabilities, (positions, vocabulary), and the tokens, (positions,)."""
    return -log_q.gather(1, targets[:, None]).squeeze(1)


def minus_one_hot(q: Tensor, targets: Tensor) -> Tensor:
    """The gradient of the cross-entropy to the logits: the probabilities, less one at each target. In place."""
    return q.scatter_add_(1, targets[:, None], q.new_full((len(targets), 1), -1.0))

"""What a student is trained to minimise. Hard labels: cross-entropy on the teacher's tokens, answer positions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 512
"""Positions whose logits exist at once: 512 x 49,152 floats are 100 MB."""


def answer_cross_entropy(
    hidden: Tensor, output_weight: Tensor, targets: Tensor, weights: Tensor, chunk: int = CHUNK
) -> Tensor:
    """Weighted sum, in nats, of the cross-entropy at the given positions; divide by the weights' sum for the mean.

    Logits are made ``chunk`` positions at a time, in float32, and made again in the backward pass
    where there is more than one chunk, so that [positions, vocabulary] never exists whole.

    Args:
        hidden: (positions, width), the last layer's output where the next token is an answer's.
        output_weight: (vocabulary, width), the output embedding.
        targets: (positions,), the answers' tokens.
        weights: (positions,), how much each position counts.

    Returns:
        A scalar with a gradient to ``hidden`` and, where it asks for one, ``output_weight``.
    """
    from torch.utils.checkpoint import checkpoint  # noqa: PLC0415  (heavy)

    if len(targets) <= chunk:
        return _weighted(hidden, output_weight, targets, weights)
    total = hidden.new_zeros((), dtype=weights.dtype)
    for part in range(0, len(targets), chunk):
        piece = slice(part, part + chunk)
        total = total + checkpoint(
            _weighted, hidden[piece], output_weight, targets[piece], weights[piece], use_reentrant=False
        )
    return total


def _weighted(hidden: Tensor, output_weight: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    from torch.nn.functional import cross_entropy, linear  # noqa: PLC0415

    logits = linear(hidden, output_weight).float()  # (positions, vocabulary)
    return (cross_entropy(logits, targets, reduction="none") * weights).sum()

"""Losses of logits that never exist whole: a few positions' at a time, their gradient taken at once.

The output embedding is by far the widest layer of a small student: [positions, vocabulary] in float32, with the copies
that autograd keeps of it, is more memory than all else that a step needs. As in the fused linear cross-entropy of
Liger Kernel (Hsu et al., "Liger Kernel: Efficient Triton Kernels for LLM Training", 2024), the forward pass makes some
positions' logits, their losses and the gradients, multiplies those back through the output embedding, and lets the
logits go. Nothing is computed twice, and the backward pass only scales what is already there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor, dtype

ELEMENTS = {"cpu": 1 << 23, "cuda": 1 << 28}
"""Logits that exist at once: 32 MB of float32 on a CPU, whose caches small pieces suit; 1 GB on a GPU, which
multiplies large ones faster and adds to the output embedding's gradient less often."""

_ROWS = 4096


class Measure(Protocol):
    """A loss of logits: what it is at each position, and its slope there."""

    def __call__(self, logits: Tensor, piece: slice, gradient: bool) -> tuple[Tensor, Tensor | None]:
        """The positions' losses, (positions,), and their gradients to the logits, (positions, vocabulary).

        Args:
            logits: (positions, vocabulary) of the positions in ``piece``; they may be written over.
            piece: which positions of the pass these are.
            gradient: whether the gradient is asked for; None is returned where it is not.
        """
        ...


def fused(hidden: Tensor, output_weight: Tensor, weights: Tensor, measure: Measure, chunk: int | None = None) -> Tensor:
    """The weighted sum of the losses that ``measure`` finds at each position, in its unit.

    Under autocast the matrix products run in its type; losses and sums are float32 at least.

    Args:
        hidden: (positions, width), the last layer's output.
        output_weight: (vocabulary, width), the output embedding.
        weights: (positions,), how much each position counts.
        chunk: positions whose logits exist at once; None: what suits the device.

    Returns:
        A scalar with a gradient to ``hidden`` and, where it asks for one, ``output_weight``; it can be taken once.
    """
    import torch

    device = hidden.device.type
    kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    chunk = chunk or max(16, ELEMENTS.get(device, ELEMENTS["cuda"]) // len(output_weight))
    work = _Work(weights, measure, kind, chunk)
    with torch.autocast(device, enabled=False):
        if torch.is_grad_enabled() and (hidden.requires_grad or output_weight.requires_grad):
            total: Tensor = _function().apply(hidden, output_weight, work)
            return total
        return work.summed(hidden, output_weight, False, False)[0]


@dataclass(frozen=True, slots=True)
class _Work:
    """What is to be summed, in which type the products run, and over how many positions at once."""

    weights: Tensor
    measure: Measure
    kind: dtype
    chunk: int

    def summed(
        self, hidden: Tensor, output_weight: Tensor, to_hidden: bool, to_output: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The weighted sum, and its gradients to both where they are asked for."""
        import torch

        output = output_weight.to(self.kind)
        total = hidden.new_zeros((), dtype=at_least_float32(hidden))
        hidden_grad = torch.zeros_like(hidden) if to_hidden else None
        output_grad: Tensor | None = None
        for first in range(0, len(hidden), self.chunk):
            piece = slice(first, first + self.chunk)
            states, counts = hidden[piece].to(self.kind), self.weights[piece]
            logits = torch.nn.functional.linear(states, output)
            losses, slope = self.measure(logits, piece, to_hidden or to_output)
            total += (losses * counts).sum()
            if slope is None:
                continue
            slope = slope.to(self.kind)  # (positions, vocabulary)
            del logits
            if hidden_grad is not None:
                hidden_grad[piece] = (slope @ output) * counts[:, None]
            if to_output:
                product = slope.T @ (states * counts[:, None].to(self.kind))
                output_grad = product if output_grad is None else _added(output_grad.to(total.dtype), product)
        return total, hidden_grad, output_grad


def _added(total: Tensor, more: Tensor) -> Tensor:
    """``total`` with ``more`` added, in place and by parts: torch would make ``more`` whole in the finer type."""
    for first in range(0, len(total), _ROWS):
        total[first : first + _ROWS] += more[first : first + _ROWS]
    return total


def at_least_float32(tensor: Tensor) -> dtype:
    """The tensor's type, or float32 where that is finer."""
    import torch

    return torch.promote_types(tensor.dtype, torch.float32)


@cache
def _function() -> Any:
    """The autograd function. Made where it is needed: its base class is torch's."""
    import torch

    class Fused(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, hidden: Tensor, output_weight: Tensor, work: _Work) -> Tensor:
            total, *grads = work.summed(hidden, output_weight, *ctx.needs_input_grad[:2])
            ctx.save_for_backward(*grads)
            return total

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
            # Autograd gives them their tensors' types.
            return (*(g * slope.to(g.dtype) if g is not None else None for g in ctx.saved_tensors), None)

    return Fused

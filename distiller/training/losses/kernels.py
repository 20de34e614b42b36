"""Cross-entropy in one kernel, for GPUs: the logits are read twice and written once, over themselves.

As in Liger Kernel (Hsu et al., "Liger Kernel: Efficient Triton Kernels for LLM Training", 2024).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = 4096


def cross_entropy(logits: Tensor, targets: Tensor, gradient: bool) -> tuple[Tensor, Tensor | None]:
    """(positions,) nats, float32, from logits, (positions, vocabulary), and the tokens, (positions,); where it is asked
    for, the gradient to the logits, written over them."""
    import torch

    positions, vocabulary = logits.shape
    losses = torch.empty(positions, dtype=torch.float32, device=logits.device)
    sizes = {"VOCABULARY": vocabulary, "BLOCK": _BLOCK}
    kernel()[(positions,)](logits, targets, losses, logits.stride(0), GRADIENT=gradient, **sizes, num_warps=8)
    return losses, logits if gradient else None


@cache
def kernel() -> Any:
    """The kernel, of which each position has one program. Made where it is needed: Triton is at hand on GPUs alone."""
    import triton
    import triton.language as tl

    @triton.jit  # type: ignore[untyped-decorator]
    def position(  # type: ignore[no-untyped-def]  # noqa: PLR0917  (Triton reads these types, and passes by position)
        logits, targets, losses, stride, GRADIENT: tl.constexpr, VOCABULARY: tl.constexpr, BLOCK: tl.constexpr
    ):
        row = tl.program_id(0).to(tl.int64)
        logits += row * stride
        target = tl.load(targets + row)
        said = tl.load(logits + target).to(tl.float32)  # the sums below wait for all threads: read before a write
        highest, total = float("-inf"), 0.0
        for first in range(0, VOCABULARY, BLOCK):
            at = first + tl.arange(0, BLOCK)
            piece = tl.load(logits + at, mask=at < VOCABULARY, other=float("-inf")).to(tl.float32)
            above = tl.maximum(highest, tl.max(piece, 0))
            total = total * tl.exp(highest - above) + tl.sum(tl.exp(piece - above), 0)
            highest = above
        log_total = highest + tl.log(total)
        tl.store(losses + row, log_total - said)
        if GRADIENT:
            for first in range(0, VOCABULARY, BLOCK):
                at = first + tl.arange(0, BLOCK)
                piece = tl.load(logits + at, mask=at < VOCABULARY, other=float("-inf")).to(tl.float32)
                slope = tl.exp(piece - log_total) - tl.where(at == target, 1.0, 0.0)
                tl.store(logits + at, slope.to(logits.dtype.element_ty), mask=at < VOCABULARY)

    return position

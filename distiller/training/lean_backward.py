"""A student's norms and gated activations, computed so that less is kept for the backward pass.

By itself autograd keeps a float32 copy of every norm's input, and each step of an activation. Here the inputs are kept
alone and the rest is computed again, as fused GPU kernels do (Hsu et al. 2024, "Liger Kernel: Efficient Triton kernels
for LLM training", arXiv 2410.10989), in plain torch.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from distiller.training.losses.fusion import at_least_float32

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 1e-5
"""Of the values' norm: what float32 rounds off is a tenth of it."""


def use(model: Any) -> None:
    """Lets those modules compute so that say the same by it, as a few random values show."""
    for module in model.modules():
        if _is_norm(module) and _same(module, _norm, module.weight):
            module.forward = _norm.__get__(module)
        elif _is_gated(module) and _same(module, _gated, module.gate_proj.weight):
            module.forward = _gated.__get__(module)


def _is_norm(module: Any) -> bool:
    return hasattr(module, "variance_epsilon") and getattr(module, "weight", None) is not None


def _is_gated(module: Any) -> bool:
    return all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj", "act_fn"))


def _norm(self: Any, hidden: Tensor) -> Tensor:
    found: Tensor = norm().apply(hidden, self.weight, self.variance_epsilon)
    return found


def _gated(self: Any, hidden: Tensor) -> Tensor:
    found: Tensor = self.down_proj(gated_silu().apply(self.gate_proj(hidden), self.up_proj(hidden)))
    return found


def _same(module: Any, compute: Any, weight: Tensor) -> bool:
    """``weight``: one of the module's, (…, width) of what goes in."""
    import torch

    values = torch.randn(2, weight.shape[-1], generator=torch.Generator().manual_seed(0)).to(weight)
    with torch.no_grad():
        theirs, ours = module(values), compute(module, values)
    return bool((theirs - ours).norm() <= TOLERANCE * theirs.norm())


@cache
def norm() -> Any:
    """The autograd function (hidden, weight, epsilon) -> weight * hidden / sqrt(mean(hidden ** 2) + epsilon) (Zhang and
    Sennrich 2019, "Root mean square layer normalization"); what follows ``weight`` is computed in float32 at least, and
    rounded to the type of ``hidden``.

    hidden: (…, width), weight: (width,). Made where it is needed: its base class is torch's.
    """
    import torch

    class Norm(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
            wide = hidden.to(at_least_float32(hidden))
            scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
            ctx.save_for_backward(hidden, weight, scale)
            return weight * (wide * scale).to(hidden.dtype)

        @staticmethod
        def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor | None, None]:
            hidden, weight, scale = ctx.saved_tensors
            slope, unit = slope.to(scale.dtype), hidden.to(scale.dtype) * scale
            of_weight = (slope * unit).flatten(0, -2).sum(0).to(weight.dtype) if ctx.needs_input_grad[1] else None
            slope = slope * weight
            of_hidden = (slope - unit * (slope * unit).mean(-1, keepdim=True)) * scale
            return of_hidden.to(hidden.dtype), of_weight, None

    return Norm


@cache
def gated_silu() -> Any:
    """The autograd function (gate, up) -> silu(gate) * up, all of one shape (Shazeer 2020, "GLU variants improve
    transformer"). Made where it is needed: its base class is torch's."""
    import torch
    from torch.nn.functional import silu

    class GatedSilu(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
            ctx.save_for_backward(gate, up)
            return silu(gate).mul_(up)

        @staticmethod
        def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor]:
            gate, up = ctx.saved_tensors
            return torch.ops.aten.silu_backward(slope * up, gate), slope * silu(gate)

    return GatedSilu

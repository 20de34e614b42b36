"""Stochastic rounding to bfloat16: no change of a weight is lost for being small."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SIGNIFICANT_BITS = 8
"""Of a bfloat16, the implicit one included."""


def spread_within_rounding(weight: Tensor) -> None:
    """Adds, in place, uniform noise of up to half of bfloat16's step at each value (float32, any shape).

    A value on the grid still rounds to itself; one between two rounds to either, in proportion to
    its nearness (Gupta et al., "Deep learning with limited numerical precision", 2015).
    """
    import torch  # noqa: PLC0415  (heavy)

    with torch.no_grad():
        mantissa, exponent = torch.frexp(weight)
        half = torch.ldexp(torch.ones_like(weight), exponent - SIGNIFICANT_BITS - 1)
        half[mantissa.abs() == 0.5] /= 2  # below a power of two the grid is finer
        half[weight == 0] = 0
        weight += (2 * torch.rand_like(weight) - 1) * half * 0.998

"""Features: the student's hidden states, projected, beside the teacher's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def feature_distance(student: Tensor, teacher: Tensor, projection: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum over positions of |P s - t|² / |t|²: 0 where they agree, 1 where the student says nothing.

    The regression of hints through a learnt projection (Romero et al., "FitNets: Hints for Thin Deep Nets", 2015; Jiao
    et al., "TinyBERT", 2020), in units of the teacher's own size: a language model's layers differ in size by orders
    of magnitude, and one weight shall fit them all.

    Args:
        student: (positions, student width). teacher: (positions, teacher width).
        projection: (teacher width, student width).
        weights: (positions,), how much each counts.
    """
    import torch  # noqa: PLC0415  (heavy)

    known = teacher.detach().float()
    projected = torch.nn.functional.linear(student, projection).float()
    return ((projected - known).square().sum(-1) / known.square().sum(-1).clamp_min(1e-12) * weights).sum()

"""Features: the student's hidden states become its teacher's, through projections that learn beside it.

Hints (Romero et al., "FitNets: Hints for Thin Deep Nets", 2015), at every layer and beside the soft labels as in
TinyBERT (Jiao et al., "TinyBERT: Distilling BERT for Natural Language Understanding", 2020), at the answer's positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from distiller.training.batches import Pass
from distiller.training.methods.base import Method
from distiller.training.methods.soft import SoftLabel
from router.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor

    from distiller.training.outputs import Outputs


@dataclass(frozen=True)
class Feature(Method):
    """Soft labels, and at ``weight`` the mean over ``pairs`` of layers of the hidden states' relative distance.

    pairs: a student's and a teacher's layer, counted from 1. width: of the student's hidden states.
    """

    soft: SoftLabel
    pairs: tuple[tuple[int, int], ...]
    weight: float
    width: int

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted({student for student, _ in self.pairs}))

    @cached_property
    def parameters(self) -> Mapping[str, Tensor]:
        """One projection a pair, (teacher width, student width): it starts as the identity, cut or widened by zeros."""
        import torch

        width = self.soft.teacher.config.hidden_size
        return {f"projection.{s}-{t}": torch.eye(width, self.width, requires_grad=True) for s, t in self.pairs}

    def loss(self, outputs: Outputs, part: Pass) -> Tensor:
        teacher = self.soft.teacher.outputs(part, tuple(sorted({t for _, t in self.pairs})))
        total = self.soft.against(teacher, outputs, part)
        for student, known in self.pairs:
            projection = self.parameters[f"projection.{student}-{known}"]
            distance = feature_distance(outputs.layers[student], teacher.layers[known], projection, part.weights)
            total = total + self.weight / len(self.pairs) * distance
        return total


def even(student: int, teacher: int) -> tuple[tuple[int, int], ...]:
    """Each of so many student's layers with the teacher's at the same share of the depth; the last with the last."""
    return tuple((i, max(1, round(i * teacher / student))) for i in range(1, student + 1))


def checked(pairs: tuple[tuple[int, int], ...], student: int, teacher: int) -> tuple[tuple[int, int], ...]:
    """The pairs. Raises TrainingError where there is no such layer."""
    for ours, theirs in pairs:
        if not (1 <= ours <= student and 1 <= theirs <= teacher):
            raise TrainingError(
                f"layer {ours} of the student and {theirs} of the teacher cannot be compared: they have {student} and "
                f"{teacher}, counted from 1"
            )
    return pairs


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
    import torch

    known = teacher.detach().float()
    projected = torch.nn.functional.linear(student, projection).float()
    return ((projected - known).square().sum(-1) / known.square().sum(-1).clamp_min(1e-12) * weights).sum()

"""What a training loop asks of a method, and what it hands to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from distiller.data.rows import DatasetRow, Skip
from distiller.training.batches import EncodedRow, Pass, encode
from router.engine.template import PromptTemplate

if TYPE_CHECKING:
    from torch import Tensor

    from distiller.training.outputs import Outputs


class Method(Protocol):
    """A method of distillation. What most have in common is said here; a method says what it does otherwise."""

    @property
    def layers(self) -> tuple[int, ...]:
        """The student's hidden layers whose outputs ``loss`` reads: none for most."""
        return ()

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """Weights of its own, by name, that learn beside the student's and are no part of it."""
        return {}

    def encode(
        self, rows: Iterable[DatasetRow], prompts: PromptTemplate, max_tokens: int
    ) -> tuple[list[EncodedRow], Counter[Skip]]:
        """A split's rows as tokens, and how many were left out for which reason. Called once a split, before the first
        step.

        Raises:
            TrainingError: the rows lack what the method learns from.
        """
        return encode(rows, prompts, max_tokens)

    def rows(self, rows: Sequence[EncodedRow], step: int, model: Any) -> Sequence[EncodedRow]:
        """What step ``step`` learns from, given the dataset's rows for it and the student as it is then.

        Most often those rows. The same arguments give the same rows, so that a resumed run takes the same steps.
        """
        return rows

    def loss(self, outputs: Outputs, part: Pass) -> Tensor:
        """The pass's loss in nats, weighted by ``part.weights`` and summed over its answer positions: a scalar."""
        ...

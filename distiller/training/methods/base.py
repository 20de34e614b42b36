"""What a training loop asks of a method, and what it hands to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from distiller.training.batches import Encoded, Pass

if TYPE_CHECKING:
    from torch import Tensor

    from distiller.training.forward import Outputs


class Method(Protocol):
    """A method of distillation."""

    @property
    def layers(self) -> tuple[int, ...]:
        """The student's hidden layers whose outputs ``loss`` reads: none for most."""
        ...

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """Weights of its own, by name, that learn beside the student's and are no part of it."""
        ...

    def rows(self, rows: Sequence[Encoded], step: int) -> Sequence[Encoded]:
        """What step ``step`` learns from, given the dataset's rows for it: most often those."""
        ...

    def loss(self, outputs: Outputs, part: Pass) -> Tensor:
        """The pass's loss in nats, weighted by ``part.weights`` and summed over its answer positions: a scalar."""
        ...

"""A pass recorded once and played again: a CUDA graph of forward and backward pass together.

A small student's kernels are done sooner than a CPU can start them. Of passes of one shape the kernels are the same, so
they are recorded, and each pass is then started as one (NVIDIA, "CUDA graphs").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import structlog

from distiller.training.batches import Pass
from distiller.training.place import out_of_memory

if TYPE_CHECKING:
    from torch import Tensor

log = structlog.get_logger(__name__)

MOST_WEIGHTS = 1_000_000_000
"""A larger student's kernels take longer than to start them."""

UNRECORDED = 3
"""Passes computed first, which compile, and make what is later only added to."""


class RecordedPass:
    """Computes passes by ``work``, given a pass and a number, a scalar on its device: it returns the loss, adds up
    gradients in tensors that stay where they are, draws nothing and never waits for the device.

    It is recorded on torch's current stream, which must not be the default one.
    """

    def __init__(self, work: Callable[[Pass, Tensor], Tensor]) -> None:
        self._work = work
        self._seen = 0
        self._graph: Any = None
        self._part: Pass | None = None
        self._number: Tensor | None = None
        self._loss: Tensor | None = None
        self.works = True

    def __call__(self, part: Pass, number: float) -> Tensor:
        """The loss, a scalar; the next call may write over it."""
        if self._part is not None and not _alike(self._part, part):
            self.forget()
        self._seen += 1
        if not self.works or self._seen <= UNRECORDED:
            return self._work(part, part.weights.new_full((), number))
        if self._graph is None and not self._record(part):
            return self._work(part, part.weights.new_full((), number))
        assert self._part is not None and self._number is not None and self._loss is not None
        for ours, theirs in zip(_tensors(self._part), _tensors(part), strict=True):
            ours.copy_(theirs)
        self._number.fill_(number)
        self._graph.replay()
        return self._loss

    def forget(self) -> None:
        """Lets go of what was recorded, and of its memory."""
        self._graph = self._part = self._number = self._loss = None
        self._seen = 0

    def _record(self, part: Pass) -> bool:
        """Records the work on a copy of the pass; whether that could be done. Nothing is computed by it."""
        import torch

        self._part = _copied(part)
        self._number = part.weights.new_ones(())
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
                self._loss = self._work(self._part, self._number)
        except RuntimeError as error:
            self.forget()
            if out_of_memory(error):
                raise
            self.works = False
            log.warning("pass_not_recorded", why=str(error)[:300])
            return False
        self._graph = graph
        return True


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a dataclass, and in those within it."""
    import torch

    for f in fields(value):
        found = getattr(value, f.name)
        if isinstance(found, torch.Tensor):
            yield found
        elif is_dataclass(found):
            yield from _tensors(found)


def _copied(value: Any) -> Any:
    """The dataclass with tensors of its own."""
    import torch

    own = {}
    for f in fields(value):
        found = getattr(value, f.name)
        if isinstance(found, torch.Tensor):
            own[f.name] = found.clone()
        elif is_dataclass(found):
            own[f.name] = _copied(found)
    return replace(value, **own)


def _alike(one: Pass, other: Pass) -> bool:
    longest = [p.documents.longest if p.documents else 0 for p in (one, other)]
    return longest[0] == longest[1] and [t.shape for t in _tensors(one)] == [t.shape for t in _tensors(other)]

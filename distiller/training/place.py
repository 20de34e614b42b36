"""Where a run runs: its device, which of how many processes this is, and what to do where its memory does not suffice.

Devices and processes are accelerate's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distiller.training.batches import EncodedRow
from router.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor

_CPU_SAYS = ("can't allocate memory", "not enough memory")
"""A CPU's allocator raises a plain RuntimeError. Where Linux promises more than it has, it kills instead."""


class ProcessPlace:
    """This process among its fellows, one a device. One by itself is its own fellow.

    ``device``: as torch names it. ``rank``: 0 is the one that writes and speaks.
    """

    def __init__(self, device: str | None = None, track: str | None = None, folder: str | None = None) -> None:
        """``track``: a tracker of accelerate's, which writes to ``folder`` where it writes files."""
        import torch
        from accelerate import Accelerator

        wanted = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.accelerator: Any = Accelerator(
            cpu=wanted.startswith("cpu") or None, log_with=track, project_dir=folder if track else None
        )
        self.rank: int = self.accelerator.process_index
        self.processes: int = self.accelerator.num_processes
        self.device = wanted if self.processes == 1 else str(self.accelerator.device)

    @property
    def first(self) -> bool:
        return self.rank == 0

    def everybodys(self, values: list[float]) -> list[list[float]]:
        """What each process holds, by rank: the same everywhere. All must call it."""
        import torch

        if self.processes == 1:
            return [values]
        kind = torch.float32 if self.device == "mps" else torch.float64
        ours = torch.tensor([values], dtype=kind, device=self.device)
        found: list[list[float]] = self.accelerator.gather(ours).tolist()
        return found

    def total(self, value: float) -> float:
        """The sum over all processes."""
        return sum(v[0] for v in self.everybodys([value]))

    def any(self, said: bool) -> bool:
        """Whether any process says so."""
        return self.total(float(said)) > 0

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Makes each, in place, the mean of all processes'."""
        for tensor in tensors if self.processes > 1 else ():
            tensor.copy_(self.accelerator.reduce(tensor, "mean"))

    def wait(self) -> None:
        """Until all processes are here."""
        self.accelerator.wait_for_everyone()


def out_of_memory(error: RuntimeError) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _CPU_SAYS)


def halved(tokens_per_pass: int, rows: Sequence[EncodedRow]) -> int:
    """Half the tokens a pass, or of what these rows have, where that is less.

    Raises:
        TrainingError: each row was already computed alone.
    """
    if tokens_per_pass < 2 * min(len(r.tokens) for r in rows):
        raise TrainingError(
            "out of memory with a single row in a pass; activation checkpointing, shorter rows (max_tokens), "
            "frozen layers or adapters (tuning: lora) take less"
        )
    return min(tokens_per_pass, sum(len(r.tokens) for r in rows)) // 2


def forget_cached(device: str) -> None:
    """Gives back what the failed pass left with the allocator."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.empty_cache()

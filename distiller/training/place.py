"""Where a run runs: its device, and which of how many processes this is. Devices and processes are accelerate's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class Place:
    """This process among its fellows, one a device. One by itself is its own fellow.

    ``device``: as torch names it. ``rank``: 0 is the one that writes and speaks.
    """

    def __init__(self, device: str | None = None, track: str | None = None, folder: str | None = None) -> None:
        """``track``: a tracker of accelerate's, which writes to ``folder`` where it writes files."""
        import torch  # noqa: PLC0415  (heavy)
        from accelerate import Accelerator  # noqa: PLC0415

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
        import torch  # noqa: PLC0415

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

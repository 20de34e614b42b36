"""What goes into a round and what comes out of it: its configuration, its progress, its report."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from distiller.config import DatasetConfig, EvaluateConfig, TrainConfig
from distiller.evaluation.gate import GateConfig


class Tell(Protocol):
    """Where progress goes: ``stage`` opens a stage, ``step`` says how far it is, and ``note`` what else."""

    def stage(self, name: str, detail: str = "") -> None: ...

    def step(self, done: int, of: int, note: str = "") -> None: ...


class Silent:
    """Tells nobody."""

    def stage(self, name: str, detail: str = "") -> None:
        return

    def step(self, done: int, of: int, note: str = "") -> None:
        return


@dataclass(frozen=True, slots=True)
class Configs:
    """One configuration a stage; None: what follows from the policy."""

    dataset: DatasetConfig | None = None
    train: TrainConfig | None = None
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    gate: GateConfig | None = None


@dataclass(frozen=True, slots=True)
class RoundReport:
    """What a round did.

    ``bundle`` is the new one, None where nothing was published, and ``reasons`` say why. ``share`` is
    the share of the traffic that the student is expected to serve at the target, ``acceptable_rate``
    how often it is right on all of it, each beside the incumbent's on the same rows. ``seconds`` by
    stage; ``tally`` is what the log held, for the next trigger. ``paid_usd`` is what of the cost was paid to judges and
    for synthetic data, ``synthetic_run`` the run that wrote that. ``page`` shows the student's evaluation.
    """

    policy: str
    kind: str
    at: float
    bundle: str | None
    parent: str | None
    reasons: tuple[str, ...]
    counts: dict[str, int]
    skipped: dict[str, int]
    acceptable_rate: float | None
    incumbent_rate: float | None
    share: float
    incumbent_share: float
    seconds: dict[str, float]
    cost_usd: str
    tally: dict[str, int]
    resumed: bool = False
    paid_usd: str = "0"
    synthetic_run: str | None = None
    page: str | None = None

    @property
    def promoted(self) -> bool:
        return self.bundle is not None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, one line of the history."""
        return asdict(self)

"""What goes into a round and what comes out of it: its configuration, its progress, its report."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


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

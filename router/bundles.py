"""Load, verify and hot-swap a bundle {student, scorer, thresholds}."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from router.contracts.bundles import Thresholds
from router.policy import Policy
from router.scoring.encoder import Encoder
from router.scoring.estimator import Scorer
from router.settings import Settings


@dataclass(frozen=True, slots=True)
class Target:
    """Where one student version answers: an OpenAI base URL (ending in /v1), the model name to ask
    for there, and the version: "base" or the bundle's id."""

    url: str
    model: str
    version: str


@dataclass(frozen=True, slots=True)
class Live:
    """What serves now, swapped as one. ``student`` is None while none is ready; ``bundle`` None is the
    base student alone, without scorer and thresholds."""

    bundle: str | None = None
    scorer: Scorer | None = None
    thresholds: Thresholds | None = None
    student: Target | None = None


class BundleWatcher:
    """Follows the policy's pointer and the students that are ready; keeps ``live`` true to both.

    ``encoder()`` is called off-thread, once, when the first scorer is loaded. ``on_swap(old, new)``
    is called after every change of ``live``. ``problem`` says why the pointed bundle is not live.
    """

    live: Live
    problem: str | None

    def __init__(
        self,
        policy: Policy,
        settings: Settings,
        *,
        encoder: Callable[[], Encoder],
        on_swap: Callable[[Live, Live], None] = lambda old, new: None,
        poll_seconds: float = 0.2,
    ) -> None:
        raise NotImplementedError

    async def refresh(self) -> None:
        """Looks once, and swaps if something changed. Call it once before serving."""
        raise NotImplementedError

    async def run(self) -> None:
        """Refreshes every ``poll_seconds`` until cancelled."""
        raise NotImplementedError

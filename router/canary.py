"""A canary: a new student serves a share of the conversations beside the live one, until it is kept or rolled back.

Which conversations is drawn by a hash of their ids and the canary's, so that each stays with one of the two, all
workers agree, and the draw never looks at what is asked: what either serves is a fair sample of the traffic. Whether
it is kept is for learning to judge, by its audits beside the live student's answers to the same prompts
(``distiller.rounds.canary``); here it is rolled back at once where it harms before that can be told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from router.audit import drawn
from router.bundles import BundleWatcher, Live
from router.contracts.bundles import end_canary
from router.guard import Guard
from router.policy import Policy
from router.settings import Settings
from router.students import Target

log = structlog.get_logger(__name__)


class Split:
    """What serves one policy: the live bundle, and beside it the canary where one is under way.

    Args:
        guard: holds the live bundle to the policy's promise.
        watcher, trial: follow and guard the canary.
        is_failing: whether a student's circuit is open: it failed several times in a row.
        changed: told which canary serves, None when none does.
    """

    def __init__(
        self,
        policy: Policy,
        settings: Settings,
        *,
        guard: Guard,
        watcher: BundleWatcher,
        trial: Guard,
        is_failing: Callable[[Target], bool],
        changed: Callable[[str | None], None],
    ) -> None:
        declared = policy.distil.trial
        self._share = declared.share if declared else 0.0
        self._policy, self._folder = policy.name, settings.bundles(policy.name)
        self._guard, self._watcher, self._trial = guard, watcher, trial
        self._is_failing, self._changed = is_failing, changed
        self._told: str | None = None

    @property
    def live(self) -> Live:
        return self._guard.live

    @property
    def canary(self) -> Live | None:
        """None too while its student does not answer: the live one does meanwhile."""
        found = self._trial.live
        return found if found.bundle is not None and found.student is not None else None

    @property
    def problem(self) -> str | None:
        """Why the pointer's canary does not serve."""
        return f"canary: {self._watcher.problem}" if self._watcher.problem else None

    def live_for(self, conversation_id: str) -> Live:
        canary = self.canary
        if canary is not None and drawn(f"{canary.bundle} {conversation_id}", self._share, "canary"):
            return canary
        return self.live

    async def run(self, poll_seconds: float = 0.5) -> None:
        """Refreshes every ``poll_seconds`` until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(poll_seconds)

    async def refresh(self) -> None:
        """Looks once, and ends a canary that harms. Call it once before serving."""
        await self._watcher.refresh()
        await self._trial.refresh()
        canary = self.canary
        serving = canary.bundle if canary else None
        if serving != self._told:
            self._told = serving
            self._changed(serving)
        if canary is None or canary.bundle is None or (harm := self._harm(canary)) is None:
            return
        if await asyncio.to_thread(end_canary, self._folder, canary.bundle, kept=False, reasons=(harm,)):
            log.warning("canary_rolled_back", policy=self._policy, bundle=canary.bundle, why=harm)
        await self._watcher.refresh()

    def _harm(self, canary: Live) -> str | None:
        """Why the canary may serve no longer. Where the live student fails too, it is not the canary's fault."""
        found = self._trial.found
        if found is not None and found.alarms:
            return f"its audits prove parity broken: between {found.lower:.1%} and {found.upper:.1%} since the alarm"
        live = self.live.student
        if canary.student is not None and self._is_failing(canary.student):
            if live is None or self._is_failing(live):
                return None
            return "its server failed several times in a row, and the live student's did not"
        return None

"""A canary: a new student serves a share of the conversations beside the live one, until it is kept or rolled back.

Which conversations is drawn by a hash of their ids and the canary's, so that each stays with one of the two, all
workers agree, and the draw never looks at what is asked: what either serves is a fair sample of the traffic. Whether
it is kept is for learning to judge, by its audits beside the live student's answers to the same prompts
(``distiller.rounds.trial``); here it is rolled back at once where it harms before that can be told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from router.bundles.students import StudentTarget
from router.bundles.watcher import BundleWatcher, LiveBundle
from router.contracts.bundles import end_canary
from router.policy.policy import Policy
from router.routing.decision import drawn
from router.served.guard import Guard
from router.settings import Settings

log = structlog.get_logger(__name__)


class CanarySplit:
    """What serves one policy: the live bundle, and beside it the canary where one is under way.

    Args:
        guard: holds the live bundle to the policy's promise.
        watcher, trial: follow and guard the canary.
        is_failing: whether a student's circuit is open: it failed several times in a row.
        answered: how often a student has answered.
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
        is_failing: Callable[[StudentTarget], bool],
        answered: Callable[[StudentTarget], int],
        changed: Callable[[str | None], None],
    ) -> None:
        declared = policy.distil.trial
        self._share = declared.share if declared else 0.0
        self._policy, self._folder = policy.name, settings.bundles(policy.name)
        self._guard, self._watcher, self._trial = guard, watcher, trial
        self._is_failing, self._answered, self._changed = is_failing, answered, changed
        self._told: str | None = None
        self._answers_before: int | None = None  # the live student's, when the canary was first seen to fail

    @property
    def live(self) -> LiveBundle:
        return self._guard.live

    @property
    def canary(self) -> LiveBundle | None:
        """None too while its student does not answer: the live one does meanwhile."""
        found = self._trial.live
        return found if found.bundle is not None and found.student is not None else None

    @property
    def problem(self) -> str | None:
        """Why the pointer's canary does not serve."""
        return f"canary: {self._watcher.problem}" if self._watcher.problem else None

    def live_for(self, conversation_id: str) -> LiveBundle:
        """The live one serves all while the canary's circuit is open."""
        canary = self.canary
        if canary is None or not drawn(f"{canary.bundle} {conversation_id}", self._share, "canary"):
            return self.live
        return self.live if canary.student is None or self._is_failing(canary.student) else canary

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

    def _harm(self, canary: LiveBundle) -> str | None:
        """Why the canary may serve no longer. That its server fails is its fault only if the live student answers
        meanwhile: both may be behind one that is down."""
        found, live = self._trial.found, self.live.student
        if found is not None and found.alarms:
            return f"its audits prove parity broken: between {found.lower:.1%} and {found.upper:.1%} since the alarm"
        if canary.student is None or live is None or not self._is_failing(canary.student):
            self._answers_before = None
        elif self._answers_before is None:
            self._answers_before = self._answered(live)
        elif self._answered(live) > self._answers_before:
            return "its server failed several times in a row while the live student answered"
        return None

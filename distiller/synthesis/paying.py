"""Asks paid models within a budget: each call is held for, made once, settled and written down."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from distiller.synthesis.journal import Journal
from distiller.synthesis.purse import Purse, most_usd
from router.errors import JudgeError, UpstreamError, UpstreamRefused
from router.paid import Backend, Completion, Tiers, asked, output_limit, surely_unpaid
from router.scoring.judges.llm import Said
from router.scoring.judges.pair import text

IN_FLIGHT = 8
JUDGE_TOKENS = 1024
"""Room for a judge's word where the policy's ``options`` give it none."""
LIMITS = ("max_tokens", "max_completion_tokens")


class Failed(Exception):
    """A call has no answer: it failed, or was under way when an earlier run was killed (``lost``). It never leaves
    the package."""

    def __init__(self, why: str, *, lost: bool = False) -> None:
        super().__init__(why)
        self.lost = lost


class Paying:
    """``calls`` and ``failed`` count what this run asked, not what it found in the journal."""

    def __init__(self, models: Tiers, purse: Purse, journal: Journal) -> None:
        self._models, self._purse, self._journal = models, purse, journal
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self.calls = self.failed = 0
        self.last_error = ""

    async def ask(self, call: str, backend: Backend, body: Mapping[str, Any], room_tokens: int) -> Completion:
        """What the model says; a call of this name that was made before is not made again.

        Args:
            room_tokens: length that an answer may have, where ``body`` sets none itself.

        Raises:
            Spent: the budget has no room for it.
            Failed: there is no answer.
        """
        if (known := self._journal.known(call)) is not None:
            return known
        if call in self._journal.lost:
            raise Failed("it was under way when an earlier run ended", lost=True)
        own = next((body[name] for name in LIMITS if isinstance(body.get(name), int)), None)
        if own is None:
            body = {**body, **output_limit(backend, room_tokens)}
        assert backend.price is not None
        most = most_usd(body, room_tokens if own is None else own, backend.price)
        async with self._slots:
            await self._purse.hold(most)
            self._journal.begins(call, most)
            return await self._made(call, backend, body, most)

    async def _made(self, call: str, backend: Backend, body: Mapping[str, Any], most: Decimal) -> Completion:
        spent = most  # whatever ends this call, unless it is known better
        self.calls += 1
        try:
            found = await asked(self._models, backend, body)
            spent = most if found.usd is None else found.usd
            self._journal.ended(call, found, spent)
        except (UpstreamError, UpstreamRefused) as e:
            spent = Decimal(0) if surely_unpaid(e) else most
            self._journal.failed(call, spent)
            self.failed += 1
            self.last_error = str(e)
            raise Failed(str(e)) from e
        finally:
            await self._purse.settle(most, spent)
        return found

    async def judge(self, call: str, backend: Backend, body: Mapping[str, Any]) -> Said:
        """As a judge's ``complete``. Raises JudgeError where it does not answer, and Spent."""
        try:
            found = await self.ask(call, backend, body, JUDGE_TOKENS)
        except Failed as e:
            raise JudgeError(f"the judge was not answered: {e}") from e
        return Said(text(found.message), found.usd or Decimal(0))

"""Money that may be spent: held before a call, settled after it, so that calls in flight cannot overspend."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import orjson

from router.contracts.prices import Price
from router.contracts.records import Usage
from router.pricing import cost_usd

_TOKENS_AROUND = 64
"""What a chat template adds at most to all messages together, beside what each one's JSON takes."""


class Spent(Exception):
    """The budget has no room for another call: an end, no error. It never leaves the package."""


class Purse:
    """``usd`` may be spent, of which ``spent`` was before."""

    def __init__(self, usd: Decimal, spent: Decimal = Decimal(0)) -> None:
        self.usd, self.spent = usd, spent
        self.held = Decimal(0)
        self._changed = asyncio.Condition()

    async def hold(self, usd: Decimal) -> None:
        """Holds so much; waits while only calls under way stand in the way of it.

        Raises:
            Spent: it does not fit, whatever those will have cost.
        """
        async with self._changed:
            while self.spent + self.held + usd > self.usd:
                if self.spent + usd > self.usd or not self.held:
                    raise Spent
                await self._changed.wait()
            self.held += usd

    async def settle(self, held: Decimal, spent: Decimal) -> None:
        """Gives back what was held, and books what was spent."""
        async with self._changed:
            self.held -= held
            self.spent += spent
            self._changed.notify_all()


def most_usd(body: Mapping[str, Any], output_tokens: int, price: Price) -> Decimal:
    """What a call costs at most: no tokenizer makes more tokens of a text than it has bytes."""
    return cost_usd(Usage(input_tokens=len(orjson.dumps(body)) + _TOKENS_AROUND, output_tokens=output_tokens), price)

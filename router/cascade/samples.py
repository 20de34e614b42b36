"""More answers of the student where its first fell short, if that pays: the grey zone's third look.

They are drawn beside each other, so that the client waits for one more answer of the student, and not
at all where the chance that they agree enough, as the bundle saw it, times the teacher's price is less
than what they cost.
"""

from __future__ import annotations

import asyncio
from decimal import Decimal

import structlog

from router.backends.base import Backend, WaitingTime
from router.backends.client import BackendClient
from router.cascade.acceptance import accept_threshold
from router.cascade.exchange import Exchange
from router.cascade.relay import ask_whole
from router.contracts.records import Answer, AnswerKind
from router.errors import JudgeError, UpstreamError, UpstreamRefused
from router.judges.judge import Judges
from router.judges.pair import Pair
from router.judges.soundness import AnswerSoFar
from router.pricing import Prices, counterfactual_usd
from router.scoring.agreement import Agreement

log = structlog.get_logger(__name__)


def worth_drawing(
    agreement: Agreement | None, most: int, *, p: float, least: float, student_usd: Decimal, teacher_usd: Decimal
) -> int:
    """How many samples to draw of an answer whose probability ``p`` falls short of ``least``; 0 where none pay.

    As many as the bundle learned from, if ``most`` allows so many. ``student_usd`` is what the answer cost,
    ``teacher_usd`` what the teacher's would.
    """
    if agreement is None or agreement.samples > most:
        return 0
    saved = Decimal(agreement.chance(p, least)) * teacher_usd
    return agreement.samples if saved > agreement.samples * student_usd else 0


class Samples:
    """Draws samples for one policy."""

    def __init__(self, tiers: BackendClient, judges: Judges, prices: Prices) -> None:
        self._tiers, self._judges, self._prices = tiers, judges, prices

    async def drawn(self, exchange: Exchange, backend: Backend, seen: AnswerSoFar, answer: Answer) -> list[Answer]:
        """Samples beside a whole answer that fell short, none where they do not pay. ``seen.signals`` then tell
        how many of them agree; those that failed agree with nothing."""
        head = exchange.live.scorer.learned.head if exchange.live.scorer else None
        least = accept_threshold(exchange.policy, exchange.decision, exchange.live.thresholds)
        if head is None or least is None or exchange.acceptance is None or seen.signals is None:
            return []
        count = worth_drawing(
            head.agreement,
            exchange.policy.accept.samples,
            p=exchange.acceptance,
            least=least,
            student_usd=answer.cost_usd,
            teacher_usd=counterfactual_usd(answer.usage, self._prices.teacher()),
        )
        samples = await self._ask(exchange, backend, count) if count else []
        if samples and (same := await self._same(exchange, seen, samples)) is not None:
            seen.signals.samples, seen.signals.agreement = count, same / count
        return samples

    async def _ask(self, exchange: Exchange, backend: Backend, count: int) -> list[Answer]:
        with exchange.waited:
            asked = (self._one(exchange, backend, seed) for seed in range(count))
            return [sample for sample in await asyncio.gather(*asked) if sample is not None]

    async def _one(self, exchange: Exchange, backend: Backend, seed: int) -> Answer | None:
        try:
            waited = WaitingTime(exchange.chat.size)
            found = await ask_whole(self._tiers, exchange, backend, AnswerKind.DISCARDED, waited, seed=seed)
        except (UpstreamError, UpstreamRefused) as error:
            log.info("sample_failed", request=exchange.chat.request_id, why=str(error))
            return None
        return found.answer

    async def _same(self, exchange: Exchange, seen: AnswerSoFar, samples: list[Answer]) -> int | None:
        """How many say what the answer says; None where the judge failed."""
        chat = exchange.chat
        pairs = (Pair(s.message or {}, seen.message, chat.body, chat.task, chat.request_id) for s in samples)
        try:
            return sum([await self._judges.same(pair) for pair in pairs])
        except JudgeError as error:
            log.warning("samples_unjudged", request=chat.request_id, why=str(error))
            return None

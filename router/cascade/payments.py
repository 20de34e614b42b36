"""Asking backends, paid: what a teacher can cost is held before it is asked, what it did cost is booked after.

The money that is booked is that of the answers in the request's record, so a start that reads the records counts the
same. Who was asked and gave no answer may be paid all the same: a client that left, an answer that broke off or came
too late. Then the record has an answer that was thrown away, with an estimated usage: the prompt in full, and what was
said of the answer, else as much as is expected. So it is with a student's, whose tokens cost something too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from router.backends.base import Backend, WaitingTime
from router.backends.faults import surely_unpaid
from router.cascade.exchange import Exchange
from router.contracts.decision import Tier
from router.contracts.records import Answer, AnswerKind, Usage
from router.errors import UpstreamError, UpstreamRefused
from router.routing.budget import Till, teacher_usd
from router.wire.usage import ToldUsage, read_usage

USUAL_TOKENS = 500
"""How long a teacher's answer is taken for that never came, as long as none has come."""


class Payments:
    """What one policy's exchanges pay from its till."""

    def __init__(self, till: Till) -> None:
        self._till = till

    @contextmanager
    def paying(self, exchange: Exchange, backend: Backend) -> Iterator[None]:
        """Around asking a backend; only for a teacher money is held. Raises BudgetSpent on entering."""
        waited, exchange.expected_tokens = exchange.waited, self._expected(exchange)
        waited.lost, waited.told = 0, []
        if backend.tier is Tier.TEACHER:
            exchange.held = self._till.hold(backend, exchange.chat.dearest)
        known, unpaid = len(exchange.answers), False
        try:
            yield
        except (UpstreamError, UpstreamRefused) as error:
            unpaid = surely_unpaid(error)
            if error.usage and len(exchange.answers) == known:
                waited.told.append(error.usage)
                unpaid = True  # but for what it told
            raise
        finally:
            if exchange.tier is Tier.TEACHER and len(exchange.answers) > known:
                self._till.usual_tokens.add(exchange.answers[0].usage.output_tokens / exchange.chat.dearest.choices)
            lost = waited.lost + (len(exchange.answers) == known and not unpaid)
            for told in (*waited.told, *[None] * lost):
                exchange.answers.append(self.lost(exchange, backend, AnswerKind.DISCARDED, told))
            self.settle(exchange)

    def settle(self, exchange: Exchange) -> None:
        """Books what the exchange has cost by now, and gives back what was held for it; nothing twice."""
        usd = teacher_usd(exchange.answers)
        if exchange.held is not None:
            exchange.held.settle(usd - exchange.booked_usd)
        elif usd > exchange.booked_usd:
            self._till.budget.book(usd - exchange.booked_usd)
        exchange.held, exchange.booked_usd = None, usd

    def with_lost(self, answer: Answer, exchange: Exchange, backend: Backend, waited: WaitingTime) -> Answer:
        """An answer that counts what the attempts before it cost that may be paid and gave none."""
        attempts = (*waited.told, *[None] * waited.lost)
        if not attempts:
            return answer
        lost = (self.lost(exchange, backend, answer.kind, told).cost_usd for told in attempts)
        usd = sum(lost, answer.cost_usd)
        return replace(answer, cost_usd=usd, usage=replace(answer.usage, estimated=True))

    def lost(
        self, exchange: Exchange, backend: Backend, kind: AnswerKind, told: Mapping[str, Any] | None = None
    ) -> Answer:
        """What stands for an answer that may be paid and never came: what was ``told`` of it, else an input of this
        length and an output of the expected one, as often as it was asked for."""
        tokens = exchange.chat.dearest.choices * self._expected(exchange)
        usage = Usage(input_tokens=exchange.features.input_tokens, output_tokens=tokens, estimated=True)
        found = (read_usage(told) if told is not None else None) or ToldUsage(usage)
        used = exchange.used(backend, {}, found)
        answer = exchange.answered(
            backend, kind, message={}, finish_reason=None, usage=used, model=None, seconds=exchange.elapsed
        )
        return replace(answer, message=None)

    def _expected(self, exchange: Exchange) -> int:
        """How many tokens one choice is taken for that never came: as long as the teacher's is expected to be, else as
        is usual, but no more than was asked for."""
        tokens = exchange.decision.teacher_tokens or self._till.usual_tokens.value or USUAL_TOKENS
        return exchange.chat.dearest.at_most(int(tokens))

"""Route -> student -> accepted? -> teacher, with fallback both ways. Knows no web framework."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import orjson
import structlog

from router.backends.base import Backend, WaitingTime
from router.backends.faults import surely_unpaid
from router.backends.roster import PolicyBackends
from router.bundles.watcher import LiveBundle, ServingSet
from router.cascade.acceptance import asked_form, judge_answer, tokens_held
from router.cascade.audit import Auditor, Quiet
from router.cascade.deadlines import Deadlines
from router.cascade.exchange import CLIENT_LEFT, Exchange, Services, fallback_cause
from router.cascade.payments import Payments
from router.cascade.relay import Relay, ask_whole, request_for, wished
from router.cascade.samples import Samples
from router.contracts.decision import Deferral, Fallback, Reason, Tier
from router.contracts.records import Answer, AnswerKind
from router.errors import BudgetSpent, UpstreamError, UpstreamRefused, UpstreamUnable, UpstreamUnreachable
from router.judges.judge import Judges
from router.judges.soundness import AnswerSoFar, AskedForm
from router.policy.policy import Policy
from router.routing.decision import RequestView, lacking, stands_in, unable
from router.routing.policy_state import RequestSeen, RoutingState, look_at
from router.wire.chat import EVENT_STREAM, JSON, ChatRequest, Sink
from router.wire.sse import encode
from router.wire.threads import LARGE_BYTES, aside, to_its_end

log = structlog.get_logger(__name__)


class _Deferred(Exception):
    """The student's answer may not leave; nothing of it has."""

    def __init__(self, cause: Deferral) -> None:
        super().__init__(cause)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class _Step:
    """A backend to ask. ``judged``: its answer must be accepted before it leaves; ``stands_in``: for teachers that
    all failed."""

    backend: Backend
    judged: bool = False
    stands_in: bool = False


class Cascade:
    """Serves one policy's requests. ``serving`` says by what; each request keeps what it began with."""

    def __init__(
        self,
        policy: Policy,
        backends: PolicyBackends,
        serving: ServingSet,
        routing: RoutingState,
        shared: Services,
        *,
        judges: Judges,
    ) -> None:
        self.policy = policy
        self.backends = backends
        self._version = policy.version
        self._serving, self._routing, self._shared, self._tiers = serving, routing, shared, shared.tiers
        self.till = routing.till
        self.payments = Payments(self.till)
        self._judges = judges
        self._samples = Samples(self._tiers, judges, backends.prices)
        self._quiet = Quiet()
        self._auditor: Auditor[Exchange] = Auditor(
            policy,
            ask=self._audit,
            judges=judges,
            store=shared.store,
            student_ready=lambda: serving.live.student is not None,
            observe=shared.metrics.observe_audit,
            budget=routing.audit_budget,
            dearest=lambda exchange: exchange.chat.dearest.usd(policy.teacher.model, backends.prices.teacher()),
            lost=lambda exchange: self.payments.lost(exchange, backends.teachers[0], AnswerKind.AUDITED),
            quiet=self._quiet if policy.student.engine else Quiet(),  # a student by URL nobody waits for
        )

    @property
    def live(self) -> LiveBundle:
        return self._serving.live

    @property
    def canary(self) -> LiveBundle | None:
        """What serves a share of the conversations beside it."""
        return self._serving.canary

    def reachable(self, backend: Backend) -> bool:
        """Whether the backend would be asked now: its circuit is closed, and its key is there if it needs one."""
        return not self._tiers.is_open(backend) and not backend.lacks_key

    async def close(self) -> None:
        """Lets audits under way end for a moment."""
        await self._auditor.close()

    async def serve(self, chat: ChatRequest, sink: Sink) -> None:
        """Answers one request through ``sink`` and records it, whatever becomes of it.

        No upstream's failure is raised: it is answered. A cancellation is recorded with status 499 and passed on.
        """
        began, live = time.perf_counter(), self._serving.live_for(chat.conversation_id)
        slow = live.scorer is not None and live.scorer.slow
        seen, left = await to_its_end(partial(_looked_at, chat, live), LARGE_BYTES + 1 if slow else chat.size)
        decision = self._routing.decide(chat, live, seen)
        owed, why = self._shared.owed, decision.reason
        waited = WaitingTime(chat.size)
        exchange = Exchange(chat, self.policy, live, seen.features, decision, why, waited, began=began, owed=owed)
        if decision.reason is Reason.FALLBACK:
            exchange.fallback = Fallback.UNREACHABLE
        deadlines = Deadlines(exchange, sink, self._shared.drain)
        try:
            if left:
                raise asyncio.CancelledError
            await self._answer(exchange, sink)
            exchange.status = 200
        except asyncio.CancelledError:
            if (overdue := deadlines.passed) is None:
                exchange.status = CLIENT_LEFT
                raise
            deadlines.take_back()
            await self._fail(exchange, sink, overdue)
        except UpstreamRefused as refusal:
            await self._refuse(exchange, sink, refusal)
        except UpstreamError as error:
            await self._fail(exchange, sink, error)
        finally:
            deadlines.stop()
            await self._settle(exchange)

    def _unfit(self, exchange: Exchange) -> bool:
        """Whether the student cannot do what is asked, so that no audit asks it."""
        return lacking(self.policy, RequestView(exchange.features, exchange.chat.body)) is not None

    async def _fail(self, exchange: Exchange, sink: Sink, error: UpstreamError) -> None:
        """Tells the client of a failure: as an error answer, or as the last event of a stream under way."""
        exchange.status = error.status
        log.warning("unanswered", request=exchange.chat.request_id, policy=self.policy.name, why=str(error))
        if exchange.committed:
            self._shared.metrics.observe_broken_stream(self.policy.name, exchange.tier)
        exchange.ended = True
        if sink.started:
            await sink.end(encode(error.body()))
        else:
            headers = [*exchange.headers(), *error.headers(), *JSON]
            await sink.whole(error.status, headers, orjson.dumps(error.body()))

    async def _refuse(self, exchange: Exchange, sink: Sink, refusal: UpstreamRefused) -> None:
        """Passes on a backend's own words about a request."""
        exchange.status = refusal.reply_status
        exchange.ended = True
        if sink.started:  # it was slow enough for a comment to go first
            await sink.end(encode(refusal.body()))
        else:
            headers = [*exchange.headers(), *refusal.reply_headers]
            await sink.whole(refusal.reply_status, headers, refusal.reply_body)

    async def _settle(self, exchange: Exchange) -> None:
        record = exchange.record(self._version)
        size = exchange.chat.size + exchange.received
        _, left = await to_its_end(partial(self._shared.store.append, record), size)
        self._shared.metrics.observe(record)
        self._routing.learn(record)
        if record.decision.audited and record.is_traffic:
            self._auditor.submit(record, exchange, unfit=self._unfit(exchange))
        if left:
            raise asyncio.CancelledError

    async def _answer(self, exchange: Exchange, sink: Sink) -> None:
        """Asks along the plan until an answer leaves. Raises what the first teacher failed of where none does."""
        ask = self._stream if exchange.chat.streamed else self._whole
        failed: UpstreamError | UpstreamRefused | None = None
        for step in self._plan(exchange):
            before, tier = exchange.reason, step.backend.tier
            form = asked_form(self.policy, self._judges, exchange.chat, tier, judged=step.judged)
            if step.stands_in and failed is not None:
                if not self._may_stand_in(exchange, failed):
                    break
                exchange.reason = Reason.BUDGET if isinstance(failed, BudgetSpent) else Reason.FALLBACK
            quiet = self._quiet if tier is Tier.STUDENT else nullcontext()
            try:
                with quiet, self.payments.paying(exchange, step.backend):
                    await ask(step.backend, exchange, sink, form)
                return
            except (_Deferred, UpstreamError, UpstreamRefused) as error:
                if exchange.committed:
                    raise
                if step.stands_in:
                    exchange.reason = before
                    exchange.deferral = error.cause if isinstance(error, _Deferred) else exchange.deferral
                    continue
                failed = _noted(step.backend, exchange, error, failed)
                if failed is not None and step.backend is self.backends.teachers[-1]:
                    self._shared.metrics.observe_teacher_failure(self.policy.name, fallback_cause(failed))
        if isinstance(failed, BudgetSpent):
            exchange.reason = Reason.BUDGET
        if failed is not None:
            raise failed

    def _plan(self, exchange: Exchange) -> Iterator[_Step]:
        """Whom to ask, in this order: the student where it was decided so, the teachers, the student standing in."""
        target, decision = exchange.live.student, exchange.decision
        if target is not None and decision.tier is Tier.STUDENT:
            # unjudged where there is no money for what a deferral would ask
            yield _Step(self.backends.student(target), judged=decision.reason is not Reason.BUDGET)
        yield from map(_Step, self.backends.teachers)
        if target is not None:
            yield _Step(self.backends.student(target), stands_in=True)

    def _may_stand_in(self, exchange: Exchange, failed: UpstreamError | UpstreamRefused) -> bool:
        """Whether the student answers, unjudged and marked, since no teacher can. Not where it just failed itself,
        nor what it is unfit for, nor where the policy refuses what it has no money for or lets no such student in."""
        outside = exchange.deferral in (Deferral.OUTSIDE, Deferral.SCHEMA)  # it would say it again
        asked, thresholds = RequestView(exchange.features, exchange.chat.body), exchange.live.thresholds
        if exchange.reason in (Reason.CAPABILITY, Reason.FALLBACK) or outside or unable(self.policy, asked, thresholds):
            return False
        if isinstance(failed, BudgetSpent):
            return not self.policy.objective.refuses
        return stands_in(self.policy, thresholds)

    async def _whole(self, backend: Backend, exchange: Exchange, sink: Sink, want: AskedForm | None) -> None:
        """One whole answer, judged whole."""
        whole = await ask_whole(self._tiers, exchange, backend, AnswerKind.SERVED, exchange.waited)
        answer = whole.answer
        if want is not None:
            cause = await self._first_cause(exchange, want, whole.choices)
            if cause is Deferral.CONFIDENCE and len(whole.choices) == 1:
                cause = await self._looked_again(backend, exchange, want, whole.choices[0], answer)
            elif cause is not None:
                exchange.discard(answer)
            if cause is not None:
                raise _Deferred(cause)
        self._serve(exchange, answer)
        self._routing.answered(exchange.chat, answer.message or {})
        exchange.committed = True
        await sink.whole(200, [*exchange.headers(), *whole.headers], whole.content)

    async def _stream(self, backend: Backend, exchange: Exchange, sink: Sink, want: AskedForm | None) -> None:
        """A stream, held back until the commit point: enough tokens to judge, or its end."""
        hold = tokens_held(self.policy, want)
        relay, held, first = Relay(exchange, backend), b"", 0.0
        body = await aside(partial(request_for, backend, exchange, streamed=True), exchange.chat.size)
        wish = wished(exchange, backend)
        events = await self._tiers.open(backend, body, exchange.waited, wished=wish, owner=exchange.chat.owner)
        try:
            while batch := await (events.last() if relay.over else events.read()):
                held += await relay.passed(events, batch)
                if not exchange.committed:
                    if hold and not relay.reached(hold):
                        continue
                    if hold and want is not None:
                        await self._judge_stream(backend, exchange, want, relay)
                    first = exchange.elapsed
                    exchange.tier, exchange.committed = backend.tier, True
                    if not sink.started:
                        await sink.start(200, [*exchange.headers(), *events.headers, *EVENT_STREAM])
                if events.done:
                    break
                if held:
                    exchange.sent += 1
                    await sink.send(held)
                    held = b""
            if not exchange.committed or (not events.done and relay.collected.finish_reason is None):
                raise events.failed("ended its stream in the middle")
            if exchange.chat.body.get("tools"):
                exchange.owe(backend, [relay.collected.message])
            self._routing.answered(exchange.chat, relay.collected.message)
            exchange.ended = True
            await sink.end(held + relay.rest())
        except UpstreamError as error:
            relay.broke(error)
            raise
        finally:
            await events.close()
            await self._booked(exchange, relay, first)

    async def _booked(self, exchange: Exchange, relay: Relay, first: float) -> None:
        """Makes an answer of what a stream has said, however it ended."""
        if exchange.committed:
            answer, left = await to_its_end(partial(relay.answer, AnswerKind.SERVED, first), exchange.received)
            self._serve(exchange, answer)
            if left:
                raise asyncio.CancelledError
        elif relay.unbooked:  # held back when its client left, its time was over or it broke off
            exchange.discard(relay.answer(AnswerKind.DISCARDED))

    async def _judge_stream(self, backend: Backend, exchange: Exchange, want: AskedForm, relay: Relay) -> None:
        """At the commit point. Raises _Deferred."""
        seen = relay.seen()
        cause = await self._first_cause(exchange, want, (seen,))
        if cause is None:
            return
        answer = relay.answer(AnswerKind.DISCARDED)
        if cause is Deferral.CONFIDENCE and seen.complete:
            cause = await self._looked_again(backend, exchange, want, seen, answer)
            relay.signalled = seen.signals
        else:
            exchange.discard(answer)
        if cause is not None:
            raise _Deferred(cause)

    async def _looked_again(
        self, backend: Backend, exchange: Exchange, want: AskedForm, seen: AnswerSoFar, answer: Answer
    ) -> Deferral | None:
        """Why a whole answer that fell short is deferred even so, None where samples lifted it. They are paid for
        and recorded as thrown away, and so is the answer where it is deferred."""
        answer.signals = seen.signals
        with exchange.discarding(answer):
            samples = await self._samples.drawn(exchange, backend, seen, answer)
        cause = self._judged(exchange, want, seen) if samples else Deferral.CONFIDENCE
        for thrown in [answer, *samples] if cause else samples:
            exchange.discard(thrown)
        return cause

    async def _first_cause(
        self, exchange: Exchange, want: AskedForm, choices: Sequence[AnswerSoFar]
    ) -> Deferral | None:
        """Why any of these choices may not leave."""
        causes = (self._judged(exchange, want, choice) for choice in choices)
        return await aside(lambda: next(filter(None, causes), None), exchange.chat.size + exchange.received)

    def _judged(self, exchange: Exchange, want: AskedForm, seen: AnswerSoFar) -> Deferral | None:
        live = exchange.live
        cause, confidence = judge_answer(
            seen, want, policy=self.policy, decision=exchange.decision, scorer=live.scorer, thresholds=live.thresholds
        )
        exchange.acceptance = confidence
        if cause is not None:
            log.debug("deferred", request=exchange.chat.request_id, cause=cause, confidence=confidence)
        return cause

    def _serve(self, exchange: Exchange, answer: Answer) -> None:
        """Notes that the client gets this answer, and what the first teacher would have cost for it."""
        exchange.serve(answer, self._routing.alone(exchange.chat, answer, exchange.fallback))
        self.payments.settle(exchange)  # before the client has it: its next request may come at once

    async def _audit(self, tier: Tier, exchange: Exchange) -> Answer:
        """The other tier's answer to a request that was answered before, from the versions it began with. Raises
        UpstreamError and UpstreamRefused where there is none."""
        target = exchange.live.student or self.live.student
        if tier is Tier.TEACHER:
            backend = self.backends.teachers[0]
        elif target is not None:
            backend = self.backends.student(target)
        else:
            raise UpstreamUnreachable("no student is ready")
        waited = WaitingTime(exchange.chat.size)
        try:
            whole = await ask_whole(self._tiers, exchange, backend, AnswerKind.AUDITED, waited)
        except UpstreamError as error:
            if tier is Tier.STUDENT or surely_unpaid(error):
                raise
            return self.payments.lost(exchange, backend, AnswerKind.AUDITED, error.usage)
        return self.payments.with_lost(whole.answer, exchange, backend, waited)


def _noted(
    backend: Backend,
    exchange: Exchange,
    error: _Deferred | UpstreamError | UpstreamRefused,
    failed: UpstreamError | UpstreamRefused | None,
) -> UpstreamError | UpstreamRefused | None:
    """Notes why the backend's answer does not leave. Returns what the first teacher failed of, if one did; raises
    ``error`` where it is the request's own fault."""
    if isinstance(error, _Deferred):
        exchange.deferral, exchange.reason = error.cause, Reason.DEFERRAL
    elif backend.tier is Tier.STUDENT:
        if isinstance(
            error, UpstreamRefused
        ):  # too long for it, perhaps; whether the request is wrong, the teacher says
            exchange.reason = Reason.CAPABILITY
        else:
            exchange.fell_back(error)
    elif isinstance(error, UpstreamError | UpstreamUnable):
        log.warning("teacher_failed", request=exchange.chat.request_id, why=str(error))
        exchange.fallback = exchange.fallback or fallback_cause(error)
        return failed or error
    else:
        raise error
    return failed


def _looked_at(chat: ChatRequest, live: LiveBundle) -> RequestSeen:
    if chat.size > LARGE_BYTES:
        chat.dearest.measure()  # it is asked for later, on the event loop
    return look_at(chat.body, live.scorer)

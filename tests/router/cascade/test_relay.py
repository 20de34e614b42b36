"""What one backend is asked, beside what the client asked."""

from __future__ import annotations

import pytest

from router.backends.base import Backend
from router.backends.roster import PolicyBackends
from router.bundles.students import StudentTarget
from router.bundles.watcher import LiveBundle
from router.cascade.exchange import Exchange
from router.cascade.relay import Relay, request_for
from router.contracts.decision import Decision, Reason, Tier
from router.contracts.records import AnswerKind
from router.policy.policy import Policy
from router.scoring.text.features import extract
from router.wire.chat import ChatRequest
from router.wire.sse import encode

CHAT = ChatRequest("r", "c", {"model": "default", "messages": [{"role": "user", "content": "hello"}]})


DECISION = Decision(tier=Tier.STUDENT, reason=Reason.SCORE, score=0.6)


def policy(engine: str | None) -> Policy:
    place = {"engine": engine} if engine else {"url": "http://127.0.0.1:9/v1"}
    return Policy.model_validate(
        {
            "name": "p",
            "student": {"model": "s", "usd_per_million": {"input": 0, "output": 0}, **place},
            "teacher": {"model": "t", "usd_per_million": {"input": 1, "output": 1}},
            "objective": {"student_share": 0.5},
        }
    )


def student(engine: str | None) -> Backend:
    return PolicyBackends(policy(engine), {}).student(StudentTarget("http://127.0.0.1:9/v1", "s", "base"))


@pytest.mark.parametrize(("engine", "heeds"), [("embedded", True), ("llama-server", False), (None, False)])
def test_only_an_engine_that_heeds_it_is_told_that_nobody_waits(engine: str | None, heeds: bool) -> None:
    """vLLM refuses a priority unless it was started for it, so a student by URL is never sent one."""
    backend = student(engine)
    exchange = Exchange(CHAT, policy(None), LiveBundle(), extract(CHAT.body), DECISION, DECISION.reason)
    assert ("priority" in request_for(backend, exchange, streamed=False, later=True)) is heeds
    assert "priority" not in request_for(backend, exchange, streamed=False)


def test_a_stream_keeps_by_which_beginning_it_was_judged() -> None:
    exchange = Exchange(CHAT, policy(None), LiveBundle(), extract(CHAT.body), DECISION, DECISION.reason)
    relay = Relay(exchange, student(None))

    def come(*tokens: str, finish: str | None = None) -> None:
        for token in tokens:
            content = [{"token": token, "logprob": -0.5}]
            choice = {"index": 0, "delta": {"content": token}, "logprobs": {"content": content}, "finish_reason": None}
            relay.pass_on(encode({"choices": [choice]}))
        if finish:
            relay.pass_on(encode({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}))

    come("one", " two")
    begun = relay.seen().signals
    assert begun is not None and not begun.complete and begun.answer is None
    come(" three", finish="stop")
    whole = relay.signals()
    assert whole is not None and whole.complete and whole.tokens == 3 and whole.answer is not None
    assert whole.held == begun and begun.tokens == 2


def test_a_stream_that_can_no_longer_be_read_lets_nothing_out() -> None:
    exchange = Exchange(CHAT, policy(None), LiveBundle(), extract(CHAT.body), DECISION, DECISION.reason)
    relay = Relay(exchange, student(None))
    said = encode({"choices": [{"index": 0, "delta": {"content": "one"}, "finish_reason": "stop"}]})
    relay.pass_on(said)
    assert relay.pass_on(b"data: {broken\n\n" + said + b"data: [DONE]\n\n") == b""
    answer = relay.answer(AnswerKind.SERVED)
    assert (relay.unreadable, answer.broken, answer.finish_reason) == (True, True, None)

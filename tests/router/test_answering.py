"""What one backend is asked, beside what the client asked."""

from __future__ import annotations

import pytest

from router.answering import request_for
from router.exchange import ChatRequest
from router.policy import Policy
from router.students import Target
from router.tiers import Backends
from router.upstream.base import Backend

CHAT = ChatRequest("r", "c", {"model": "default", "messages": [{"role": "user", "content": "hello"}]})


def student(engine: str | None) -> Backend:
    place = {"engine": engine} if engine else {"url": "http://127.0.0.1:9/v1"}
    policy = Policy.model_validate(
        {
            "name": "p",
            "student": {"model": "s", "usd_per_million": {"input": 0, "output": 0}, **place},
            "teacher": {"model": "t", "usd_per_million": {"input": 1, "output": 1}},
            "objective": {"student_share": 0.5},
        }
    )
    return Backends(policy, {}).student(Target("http://127.0.0.1:9/v1", "s", "base"))


@pytest.mark.parametrize(("engine", "heeds"), [("embedded", True), ("llama-server", False), (None, False)])
def test_only_an_engine_that_heeds_it_is_told_that_nobody_waits(engine: str | None, heeds: bool) -> None:
    """vLLM refuses a priority unless it was started for it, so a student by URL is never sent one."""
    backend = student(engine)
    assert ("priority" in request_for(backend, CHAT, streamed=False, later=True)) is heeds
    assert "priority" not in request_for(backend, CHAT, streamed=False)

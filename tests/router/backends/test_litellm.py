"""What litellm makes of an answer, a refusal, a failure: an upstream's, whatever it raises."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import litellm
import pytest

from router.backends.base import Backend, WaitingTime
from router.backends.faults import surely_unpaid
from router.backends.litellm import LiteLLMWire
from router.errors import UpstreamError, UpstreamRefused, UpstreamTimeout, UpstreamUnusable
from tests.fakes import FakeUpstream
from tests.router.backends.conftest import PLAIN, at, whole


@pytest.mark.parametrize("raw", [b"<html>a secret</html>", b'{"a": "a secret"}', b"null", b'[{"a secret": 1}]'])
@pytest.mark.parametrize("model", ["gemini/gemini-2.0-flash", "anthropic/claude-sonnet-4-5", "hosted_vllm/big"])
async def test_an_answer_that_litellm_cannot_read_is_no_refusal_and_not_told(
    upstream: FakeUpstream, backend: Backend, model: str, raw: bytes
) -> None:
    upstream.always(raw=raw)
    with pytest.raises(UpstreamError) as caught:
        await whole(at(model), PLAIN)
    assert "secret" not in str(caught.value.body())
    assert not surely_unpaid(caught.value)


async def test_what_was_not_reached_is_surely_unpaid(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTED_VLLM_API_BASE", "http://127.0.0.1:1/v1")
    with pytest.raises(UpstreamError) as caught:
        await whole(backend, PLAIN)
    assert surely_unpaid(caught.value)


async def test_an_answer_of_more_than_any_may_be_is_none(
    upstream: FakeUpstream, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.backends.litellm.LONGEST_EVENT_BYTES", 64)
    with pytest.raises(UpstreamError, match="more than 64 bytes") as caught:
        await whole(backend, PLAIN)
    assert not surely_unpaid(caught.value)


@pytest.mark.parametrize("limit", ["LONGEST_EVENT_BYTES", "LONGEST_UNPACKED_BYTES"])
async def test_a_stream_of_more_than_any_may_be_ends(
    upstream: FakeUpstream, backend: Backend, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(f"router.backends.litellm.{limit}", 64)
    stream = await LiteLLMWire().open(backend, PLAIN | {"stream": True}, WaitingTime())
    with pytest.raises(UpstreamError, match="more than 64 bytes") as caught:
        await stream.read()
    assert not surely_unpaid(caught.value)
    await stream.close()


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize("model", ["gemini/gemini-2.0-flash", "anthropic/claude-sonnet-4-5"])
async def test_a_providers_own_refusal_is_told(
    upstream: FakeUpstream, backend: Backend, model: str, status: int
) -> None:
    upstream.always(status=status, error={"message": "too odd a question", "type": "invalid_request_error"})
    with pytest.raises(UpstreamRefused) as caught:
        await whole(at(model), PLAIN)
    assert b"too odd a question" in caught.value.reply_body


async def test_without_the_policys_key_no_other_is_looked_for(upstream: FakeUpstream, backend: Backend) -> None:
    with pytest.raises(UpstreamUnusable, match="has no key"):
        await whole(at("anthropic/claude-sonnet-4-5", key=None, lacks_key="ANTHROPIC_API_KEY"), PLAIN)
    assert not upstream.seen
    assert os.environ["ANTHROPIC_API_KEY"] == "sk-of-another-provider"


@pytest.mark.parametrize(
    "more",
    [
        {"messages": [{"role": "user", "content": [5, None]}]},
        {"messages": [{"role": "tool", "content": {"a": 1}}]},
        {"messages": [{}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": 5}]}]},
        {"tools": {"a": 1}},
        {"tool_choice": 7},
        {"response_format": "json"},
        {"response_format": {"type": "json_schema", "json_schema": None}},
        {"thinking": "yes"},
        {"stop": {"a": 1}},
        {"temperature": "hot", "n": "x", "top_k": []},
        {"messages": "hi"},
        {"max_tokens": {}},
        {"functions": 4},
        {"reasoning_effort": {"a": 1}},
    ],
)
@pytest.mark.parametrize("model", ["anthropic/claude-sonnet-4-5", "gemini/gemini-2.0-flash", "hosted_vllm/big"])
async def test_whatever_litellm_trips_over_is_an_upstreams_error(
    backend: Backend, model: str, more: dict[str, Any]
) -> None:
    for stream in (False, True):
        try:
            if stream:
                found = await LiteLLMWire().open(at(model), PLAIN | more | {"stream": True}, WaitingTime())
                await found.read()
                await found.close()
            else:
                await whole(at(model), PLAIN | more)
        except (UpstreamError, UpstreamRefused) as error:
            assert "sk-" not in str(error)


async def test_a_wait_ends_where_litellms_own_limit_does_not_hold(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(**_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(litellm, "acompletion", never)
    waited = WaitingTime()
    with pytest.raises(UpstreamTimeout, match=r"within 0\.05 s"):
        await LiteLLMWire(first_seconds=0).complete(at("hosted_vllm/big", timeout_seconds=0.05), PLAIN, waited)
    assert waited.seconds >= 0.05


@pytest.mark.parametrize("kind", [KeyError, TypeError, RuntimeError, StopIteration, UnicodeDecodeError])
async def test_what_breaks_a_stream_in_the_middle_is_an_upstreams_error(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, kind: type
) -> None:
    class Chunks:
        def __aiter__(self) -> Chunks:
            return self

        async def __anext__(self) -> Any:
            raise kind("utf-8", b"sk-secret", 0, 1, "sk-secret") if kind is UnicodeDecodeError else kind("sk-secret")

        async def aclose(self) -> None:
            raise RuntimeError("sk-secret")

    async def opened(**_: Any) -> Chunks:
        return Chunks()

    monkeypatch.setattr(litellm, "acompletion", opened)
    stream = await LiteLLMWire().open(backend, PLAIN, WaitingTime())
    with pytest.raises(UpstreamError) as caught:
        await stream.read()
    assert "sk-" not in str(caught.value)
    await stream.close()


@pytest.mark.parametrize("raw", [b"data: [DONE]\n\n", b"", b": nothing\n\ndata: [DONE]\n\n"])
@pytest.mark.parametrize("model", ["hosted_vllm/big", "groq/big"])
async def test_a_stream_that_ends_before_it_says_anything_is_no_answer(
    upstream: FakeUpstream, backend: Backend, monkeypatch: pytest.MonkeyPatch, model: str, raw: bytes
) -> None:
    monkeypatch.setenv("GROQ_API_BASE", f"{upstream.url}/v1")
    upstream.always(raw=raw, headers={"content-type": "text/event-stream"})
    with pytest.raises(UpstreamError):
        stream = await LiteLLMWire().open(at(model), PLAIN | {"stream": True}, WaitingTime())
        while await stream.read():
            pass
    assert upstream.seen

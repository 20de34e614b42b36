"""Both wires against a real server: what a failure becomes, and that a stranger's words stay where they are."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from router.backends.base import Backend, Upstream, WaitingTime
from router.backends.litellm import LiteLLMWire
from router.backends.openai import OpenAIWire
from router.contracts.decision import Tier
from router.errors import (
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
    UpstreamUnusable,
)
from tests.fakes import DEADLINE_SECONDS, FakeUpstream, collected, served

BODY: dict[str, Any] = {"model": "big", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}


@pytest.fixture(scope="module")
def upstream() -> Iterator[FakeUpstream]:
    found = FakeUpstream("big")
    with served(found) as found.url:
        yield found


@pytest.fixture(params=["openai", "litellm"])
async def wire(request: pytest.FixtureRequest) -> AsyncIterator[Upstream]:
    found: Upstream = OpenAIWire() if request.param == "openai" else LiteLLMWire()
    yield found
    await found.close()


@pytest.fixture
def backend(upstream: FakeUpstream, wire: Upstream, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """litellm finds the server as a provider whose address comes from the environment, as users set it up."""
    upstream.always()
    upstream.seen.clear()
    monkeypatch.setenv("HOSTED_VLLM_API_BASE", f"{upstream.url}/v1")
    model, url = ("big", f"{upstream.url}/v1") if isinstance(wire, OpenAIWire) else ("hosted_vllm/big", None)
    return Backend(Tier.TEACHER, "the teacher", model, url, timeout_seconds=1, key="sk-secret")


@asynccontextmanager
async def streamed(wire: Upstream, backend: Backend) -> AsyncIterator[list[bytes]]:
    stream = await wire.open(backend, BODY | {"stream": True}, WaitingTime())
    pieces = []
    while piece := await stream.read():
        pieces.append(piece)
    yield pieces
    await stream.close()


async def test_a_whole_answer_and_its_wait(upstream: FakeUpstream, wire: Upstream, backend: Backend) -> None:
    upstream.always(seconds=0.05)
    waited = WaitingTime()
    reply = await wire.complete(backend, BODY, waited)
    answer = orjson.loads(reply.body)
    assert answer["choices"][0]["message"]["content"] == "hello there friend"
    assert answer["usage"]["prompt_tokens"] == 100
    assert waited.seconds >= 0.05
    sent = upstream.seen[0]
    assert sent.headers["authorization"] == "Bearer sk-secret"
    assert sent.body["temperature"] == 0


async def test_tools_reach_the_backend(upstream: FakeUpstream, wire: Upstream, backend: Backend) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    await wire.complete(backend, BODY | {"tools": tools}, WaitingTime())
    assert upstream.seen[0].body["tools"][0]["function"]["name"] == "f"


async def test_a_stream_adds_up(wire: Upstream, backend: Backend) -> None:
    async with streamed(wire, backend) as pieces:
        found = collected(b"".join(pieces))
    assert found.message["content"] == "hello there friend"
    assert found.finish_reason == "stop"
    assert b"".join(pieces).endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ({"status": 500}, UpstreamError),
        ({"status": 503}, UpstreamError),
        ({"status": 429}, UpstreamRateLimited),
        ({"status": 401}, UpstreamUnusable),
        ({"status": 402}, UpstreamUnusable),
        ({"status": 404}, UpstreamUnusable),
        ({"hang": True}, UpstreamTimeout),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_failures_have_their_kind_and_quote_no_one(
    *, upstream: FakeUpstream, wire: Upstream, backend: Backend, script: dict[str, Any], kind: type, stream: bool
) -> None:
    upstream.always(error={"message": "key sk-secret is wrong"}, **script)
    with pytest.raises(kind) as caught:
        if stream:
            async with streamed(wire, backend):
                pass
        else:
            await wire.complete(backend, BODY, WaitingTime())
    assert "the teacher" in str(caught.value)
    assert "sk-" not in str(caught.value)


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_refusal_keeps_its_words(upstream: FakeUpstream, wire: Upstream, backend: Backend, status: int) -> None:
    upstream.always(status=status, error={"message": "no such thing", "type": "invalid_request_error"})
    with pytest.raises(UpstreamRefused) as caught:
        await wire.complete(backend, BODY, WaitingTime())
    assert caught.value.reply_status == status
    assert b"no such thing" in caught.value.reply_body


async def test_a_model_that_gives_no_logprobs_refuses_the_request_not_the_key(
    upstream: FakeUpstream, wire: Upstream, backend: Backend
) -> None:
    """OpenAI says so with 403."""
    words = "You are not allowed to request logprobs from this model"
    upstream.always(status=403, error={"message": words, "type": "invalid_request_error"})
    with pytest.raises(UpstreamRefused) as caught:
        await wire.complete(backend, BODY | {"logprobs": True}, WaitingTime())
    assert (caught.value.reply_status, words.encode() in caught.value.reply_body) == (403, True)


async def test_the_wait_that_was_asked_for_is_kept(upstream: FakeUpstream, wire: Upstream, backend: Backend) -> None:
    upstream.always(status=429, headers={"retry-after": "37"})
    with pytest.raises(UpstreamRateLimited) as caught:
        await wire.complete(backend, BODY, WaitingTime())
    assert (caught.value.wait_seconds, caught.value.retry_after) == (37, "37")


def cut_before_its_end() -> bytes:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "big"}
    return b"data: %b\n\n" % orjson.dumps(chunk | {"choices": [{"index": 0, "delta": {"content": "hello"}}]})


@pytest.mark.parametrize("raw", [b"", b"<html>", b"null", cut_before_its_end()])
async def test_litellm_makes_no_whole_answer_of_a_stream_that_was_cut(
    upstream: FakeUpstream, backend: Backend, wire: Upstream, raw: bytes
) -> None:
    if isinstance(wire, OpenAIWire):
        return  # who reads its events sees that they do not end
    upstream.always(raw=raw, headers={"content-type": "text/event-stream"})
    with pytest.raises(UpstreamError, match="in the middle"):
        async with streamed(wire, backend):
            pass


async def test_no_one_there_is_unreachable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        wire = OpenAIWire()
        with pytest.raises(UpstreamUnreachable):
            await wire.complete(Backend(Tier.TEACHER, "gone", "big", url, 1), BODY, WaitingTime())
        await wire.close()


async def test_leaving_a_stream_ends_the_request(upstream: FakeUpstream, wire: Upstream, backend: Backend) -> None:
    upstream.always(hang_after=2)
    stream = await wire.open(backend, BODY | {"stream": True}, WaitingTime())
    assert await stream.read()
    await stream.close()
    assert await asyncio.to_thread(upstream.seen[0].left.wait, DEADLINE_SECONDS)


BROKEN_FRAMES = (
    b"\x00\xff\xfe no chunk at all\r\n\r\n",
    b"fffffffffffffffffffffffffff\r\nmore",
    b"5\r\nhelloXX5\r\nhello\r\n",
    b"-1\r\nhello\r\n",
)


@asynccontextmanager
async def scripted(*pieces: bytes) -> AsyncIterator[str]:
    """A raw server that writes these pieces to whoever asks, then keeps the connection open; yields its URL."""
    over = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"}")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            await over.wait()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        over.set()
        server.close()
        await server.wait_closed()


CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
FRAMED = b"d\r\ndata: {}\n\n\r\n"


@pytest.mark.parametrize("broken", BROKEN_FRAMES)
@pytest.mark.parametrize("together", [False, True])
async def test_a_broken_framing_is_a_failure_at_once_and_not_a_wait(broken: bytes, together: bool) -> None:
    """The server keeps the connection open, and an answer may take ten minutes."""
    pieces = [CHUNKED, FRAMED + broken] if together else [CHUNKED, FRAMED, broken]
    wire = OpenAIWire()
    async with scripted(*pieces) as url, asyncio.timeout(DEADLINE_SECONDS):
        backend = Backend(Tier.TEACHER, "the teacher", "big", url, timeout_seconds=600)
        with pytest.raises(UpstreamError, match="broke off"):
            await wire.complete(backend, BODY, WaitingTime())
        with pytest.raises(UpstreamError, match="broke off"):
            async with streamed(wire, backend):
                pass
    await wire.close()


@pytest.mark.parametrize("status", [200, 400, 429, 500])
async def test_a_header_that_is_no_text_goes_on_as_the_bytes_that_it_is(status: int) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 %d X\r\nretry-after: \x80\xff\r\ncontent-type: \xe9\r\ncontent-length: 2\r\n\r\n{}" % status
        writer.write(head)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    wire = OpenAIWire()
    try:
        reply = await wire.complete(Backend(Tier.TEACHER, "it", "big", url, timeout_seconds=5), BODY, WaitingTime())
        assert dict(reply.headers) == {b"retry-after": b"\x80\xff", b"content-type": b"\xe9"}
    except UpstreamRefused as e:
        assert dict(e.reply_headers) == {b"retry-after": b"\x80\xff", b"content-type": b"\xe9"}
    except UpstreamError:
        assert status in (429, 500)
    finally:
        await wire.close()
        server.close()

"""How much of a backend's bytes is read, compressed or not, and what is logged of connections that are lost."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import socket
import struct
import threading
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from router.backends import openai
from router.backends.anthropic import AnthropicWire
from router.backends.base import Backend, Upstream, WaitingTime
from router.backends.faults import surely_unpaid
from router.backends.openai import OpenAIWire
from router.contracts.decision import Tier
from router.errors import UpstreamError, UpstreamRateLimited, UpstreamRefused
from router.wire.chat import Dialect
from router.wire.threads import LARGE_BYTES

BODY: dict[str, Any] = {"model": "big", "messages": [{"role": "user", "content": "hi"}]}
ANSWER = orjson.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}}]})
MIB = 2**20
ABORT = struct.pack("ii", 1, 0)


def head(status: int = 200, length: int | None = None, encoding: str = "", kind: str = "application/json") -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}"]
    lines += [f"content-encoding: {encoding}"] * bool(encoding)
    lines += ["connection: close" if length is None else f"content-length: {length}"]
    return "\r\n".join([*lines, "", ""]).encode()


def packed(content: bytes, encoding: str, times: int = 1) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31 if encoding == "gzip" else 15)
    return b"".join(packer.compress(content) for _ in range(times)) + packer.flush()


@asynccontextmanager
async def serving(*pieces: bytes) -> AsyncIterator[Backend]:
    """A raw server that answers each request with these bytes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await reader.readuntil(b"}]"):
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                if b"connection: close" in pieces[0]:
                    break
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        yield Backend(Tier.TEACHER, "the teacher", "big", url, timeout_seconds=10)
    finally:
        server.close()


@pytest.fixture
async def http() -> AsyncIterator[OpenAIWire]:
    found = OpenAIWire()
    yield found
    await found.close()


@pytest.fixture(params=Dialect)
def wire(request: pytest.FixtureRequest, http: OpenAIWire) -> Upstream:
    return AnthropicWire(http) if request.param is Dialect.ANTHROPIC else http


async def stream_of(wire: Upstream, backend: Backend) -> bytes:
    stream = await wire.open(backend, BODY | {"stream": True}, WaitingTime())
    try:
        pieces = []
        while piece := await stream.read():
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        await stream.close()


@pytest.mark.parametrize("encoding", ["", "gzip", "deflate"])
@pytest.mark.parametrize("told", [False, True])
async def test_an_answer_without_end_is_a_failure_that_may_have_cost_something(
    *, wire: Upstream, encoding: str, told: bool
) -> None:
    blanks = packed(b" " * MIB, encoding, 128) if encoding else b" " * 33 * MIB
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    async with serving(head(length=len(blanks) if told else None, encoding=encoding), blanks) as backend:
        with pytest.raises(UpstreamError, match="answered with more than 33554432 bytes") as caught:
            await wire.complete(backend, BODY, WaitingTime())
    counting.cancel()
    assert not surely_unpaid(caught.value)
    assert turns > 32, "others have their turn between pieces"


async def test_an_answer_as_long_as_one_may_be_is_whole(http: OpenAIWire, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(head(length=len(ANSWER)), ANSWER) as backend:
        monkeypatch.setattr(openai, "LONGEST_EVENT_BYTES", len(ANSWER))
        assert (await http.complete(backend, BODY, WaitingTime())).body == ANSWER
        monkeypatch.setattr(openai, "LONGEST_EVENT_BYTES", len(ANSWER) - 1)
        with pytest.raises(UpstreamError, match="more than"):
            await http.complete(backend, BODY, WaitingTime())


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_compressed_answers_and_streams_are_read(http: OpenAIWire, encoding: str) -> None:
    long = orjson.dumps({"choices": [{"message": {"content": "word " * MIB}}]})
    for content in (ANSWER, long):
        small = packed(content, encoding)
        async with serving(head(length=len(small), encoding=encoding), small) as backend:
            assert (await http.complete(backend, BODY, WaitingTime())).body == content
            assert (await http.complete(backend, BODY, WaitingTime())).body == content
    events = b'data: {"choices":[]}\n\n' * 100_000
    small = packed(events, encoding)
    async with serving(head(encoding=encoding, kind="text/event-stream"), small) as backend:
        assert await stream_of(http, backend) == events


@pytest.mark.parametrize("encoding", ["", "gzip"])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("status", "kind"), [(422, UpstreamRefused), (429, UpstreamRateLimited), (500, UpstreamError)])
async def test_a_long_error_is_what_its_status_says(
    *, wire: Upstream, encoding: str, streamed: bool, status: int, kind: type
) -> None:
    """FastAPI repeats the request's fields that it refuses, pictures and all."""
    words = b'{"detail":[{"msg":"no such field","input":"' + b"x" * 64 * MIB + b'"}]}'
    sent = packed(words, encoding) if encoding else words
    async with serving(head(status, len(sent), encoding, "text/html"), sent) as backend:
        with pytest.raises(kind) as caught:
            await (stream_of(wire, backend) if streamed else wire.complete(backend, BODY, WaitingTime()))
    if isinstance(caught.value, UpstreamRefused):
        assert "no such field" in orjson.loads(caught.value.reply_body)["error"]["message"]
        assert len(caught.value.reply_body) < MIB
        assert dict(caught.value.reply_headers)[b"content-type"] == b"application/json"


async def test_a_stream_that_unpacks_without_end_is_a_failure(wire: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai, "LONGEST_UNPACKED_BYTES", 4 * MIB)
    small = gzip.compress(b": nothing\n\n" * 2 * MIB)
    async with serving(head(encoding="gzip", kind="text/event-stream"), small) as backend:
        with pytest.raises(UpstreamError, match="answered with more than 4194304 bytes"):
            await stream_of(wire, backend)


async def test_an_answer_of_more_values_than_are_ever_said_is_a_failure(http: OpenAIWire) -> None:
    many = b'{"choices":[{"message":{"tool_calls":[' + b"[]," * 400_000 + b"0]}}]}"
    async with serving(head(length=len(many)), many) as backend:
        with pytest.raises(UpstreamError, match="answered with more than 300,000 values"):
            await http.complete(backend, BODY, WaitingTime())
        assert (await http.embed(backend, BODY, WaitingTime())).body == many
    told = many.replace(b"tool_calls", b"logprob")
    async with serving(head(length=len(told)), told) as backend:
        assert (await http.complete(backend, BODY, WaitingTime())).body == told


@pytest.mark.parametrize("when", ["in the middle", "later"])
async def test_a_connection_that_is_reset_leaves_nothing_in_the_log(http: OpenAIWire, when: str) -> None:
    logged: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
    over, gone = asyncio.Event(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}]")
        writer.write(head(length=len(ANSWER)) + (ANSWER if when == "later" else ANSWER[:9]))
        await writer.drain()
        await over.wait()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        writer.transport.abort()
        gone.set()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    backend = Backend(Tier.TEACHER, "the teacher", "big", url, timeout_seconds=10)
    stream = await http.open(backend, BODY, WaitingTime())
    assert await stream.read()
    if when == "later":
        assert await stream.read() == b""
        over.set()
    else:
        over.set()
        with pytest.raises(UpstreamError):
            await stream.read()
    await stream.close()
    await gone.wait()
    await asyncio.to_thread(gc.collect)  # by then the reset has arrived
    await http.close()
    server.close()
    del stream
    gc.collect()
    assert not logged


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_large_request_is_written_beside_the_event_loop(
    http: OpenAIWire, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    class Noted:
        @staticmethod
        def dumps(value: Any) -> bytes:
            threads.append(threading.current_thread().name)
            return orjson.dumps(value)

    monkeypatch.setattr(openai, "orjson", Noted)
    async with serving(head(length=len(ANSWER)) + ANSWER) as backend:
        for size in (LARGE_BYTES, LARGE_BYTES + 1):
            if streamed:
                await (await http.open(backend, BODY, WaitingTime(size))).close()
            else:
                await http.complete(backend, BODY, WaitingTime(size))
    assert threads[0] == threading.main_thread().name
    assert threads[1].startswith("locum-aside")


@pytest.mark.parametrize("encoding", ["zstd", "br", "gzip", "deflate"])
async def test_an_answer_packed_in_a_way_that_cannot_be_read_is_named(http: OpenAIWire, encoding: str) -> None:
    async with serving(head(200, len(ANSWER), encoding), ANSWER) as backend:
        with pytest.raises(UpstreamError, match=f"the teacher packed its answer as {encoding[:3]}"):
            await http.complete(backend, BODY, WaitingTime())

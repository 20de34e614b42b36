"""A model server whose bytes are scripted: whole answers and streams as they should be, and in every broken form.

Answers are pieces: bytes to write, seconds to wait, ``HANG``, ``RESET``. Nothing between the script and the socket
mends them: no HTTP library has a say.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

Row = dict[str, Any]


class End(Enum):
    """How a script leaves its connection, where it does not simply close it."""

    HANG = "hang"
    RESET = "reset"
    KEEP = "keep"


HANG, RESET, KEEP = End.HANG, End.RESET, End.KEEP
Piece = bytes | float | End


@dataclass(frozen=True)
class Asked:
    """A request as it arrived. ``name``: the part of the path before ``/v1``, which tells scripts apart."""

    name: str
    path: str
    raw: bytes

    @cached_property
    def body(self) -> Row:
        found: Row = json.loads(self.raw)
        return found

    @property
    def streamed(self) -> bool:
        return bool(self.body.get("stream"))


class ScriptedServer:
    """Serves ``answer(asked)`` under ``{url}/NAME/v1``, in a thread, and lists ``models`` there. ``asked`` counts
    the requests by name."""

    def __init__(self, answer: Callable[[Asked], Iterable[Piece]], models: Sequence[str]) -> None:
        self._answer = answer
        self._models = json.dumps({"object": "list", "data": [{"id": m, "object": "model"} for m in models]}).encode()
        self._tasks: set[asyncio.Task[None]] = set()
        self.asked: dict[str, int] = {}
        self.url = ""

    def __enter__(self) -> ScriptedServer:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Closes the port: from now on connections are refused."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=2**20, backlog=1024)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await self._stopping.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):  # whoever asked has left, or all is over
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answers one request. Whether the connection goes on."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, path, _ = head.split(" ", 2)
        lines = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        body = await reader.readexactly(int(lines.get("content-length", "0")))
        if method == "GET":
            writer.write(answer(self._models, {"connection": "keep-alive"}))
            return True
        name = path.removeprefix("/").split("/v1/")[0]
        self.asked[name] = self.asked.get(name, 0) + 1
        return await self._send(self._answer(Asked(name, path, body)), reader, writer)

    async def _send(self, pieces: Iterable[Piece], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        for piece in pieces:
            if isinstance(piece, bytes):
                writer.write(piece)
                await writer.drain()
            elif piece is HANG:
                await reader.read()
            elif piece is RESET:
                _reset(writer)
            elif piece is KEEP:
                return True
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(piece):
                        await reader.read()
        return False


def _reset(writer: asyncio.StreamWriter) -> None:
    """Ends the connection by a reset, after what was written so far has left."""
    found = writer.get_extra_info("socket")
    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def head(status: int = 200, headers: dict[str, str] | None = None) -> bytes:
    """The head of an answer; without a length it ends where the connection does."""
    told = {"content-type": "application/json", "connection": "close"} | (headers or {})
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in told.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def answer(body: bytes | Row, headers: dict[str, str] | None = None, status: int = 200) -> bytes:
    """A whole answer with its length."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return head(status, {"content-length": str(len(content))} | (headers or {})) + content


def error(status: int, message: str, headers: dict[str, str] | None = None, **more: Any) -> bytes:
    """An error answer in OpenAI's shape."""
    told = {"message": message, "type": "invalid_request_error", "param": None, "code": None} | more
    return answer({"error": told}, headers, status)


STREAM = head(headers={"content-type": "text/event-stream"})
CHUNKED = head(headers={"content-type": "text/event-stream", "transfer-encoding": "chunked"})
DONE = b"data: [DONE]\n\n"
TEXT = "The quick brown fox jumps over the lazy dog"
USAGE = {"prompt_tokens": 20, "completion_tokens": 9, "total_tokens": 29}


def tokens(text: str) -> list[str]:
    first, *others = text.split(" ")
    return [first, *(f" {w}" for w in others)]


def logprobs(words: Sequence[str]) -> Row:
    return {"content": [{"token": w, "logprob": -0.01, "bytes": None, "top_logprobs": []} for w in words]}


def completion(
    message: Row | None = None, finish: Any = "stop", *, text: str = TEXT, choice: Row | None = None, **more: Any
) -> Row:
    """A chat completion."""
    said = {"role": "assistant", "content": text} | (message or {})
    told = {"index": 0, "message": said, "finish_reason": finish, "logprobs": logprobs(tokens(text))}
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "scripted",
        "choices": [told | (choice or {})], "usage": USAGE, **more,
    }  # fmt: skip


def chunk(delta: Row | None = None, finish: Any = None, **more: Any) -> Row:
    """One chunk of a stream."""
    words = [delta["content"]] if delta and isinstance(delta.get("content"), str) and delta["content"] else []
    told = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    told |= {"logprobs": logprobs(words)} if words else {}
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "scripted"}
    return base | {"choices": [told]} | more


def event(data: Row | bytes) -> bytes:
    return b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n"


ROLE = event(chunk({"role": "assistant", "content": ""}))
WORDS = tuple(event(chunk({"content": word})) for word in tokens(TEXT))
STOP = event(chunk(finish="stop"))
COUNTS = event(chunk(choices=[], usage=USAGE))
GOOD_STREAM = (STREAM, ROLE, *WORDS, STOP, COUNTS, DONE)


def framed(data: bytes) -> bytes:
    """One chunk of HTTP's chunked coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def healthy(asked: Asked) -> Iterable[Piece]:
    """What a server that is well answers."""
    return GOOD_STREAM if asked.streamed else (answer(completion()),)

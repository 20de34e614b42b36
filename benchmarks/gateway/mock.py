"""A mock model server that costs little: preformatted answers of 32 tokens, over bare sockets and epoll.

It answers ``POST`` with one chat completion, or with a stream of 32 chunks when asked to ``stream``; with
every token's log-probability where the request asks for ``logprobs``, as vLLM does; and ``GET /v1/models``.
A stream's chunks are written one by one, taking turns with the other streams'. They still pile up before
a gateway that is slower than this; where the request's ``user`` is ``PACED``, a chunk leaves every
``PACE_SECONDS``, as a model's do, and arrives alone.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from benchmarks.gateway.wire import Inbox

STUDENT, TEACHER = "small", "big"
PACED = "paced"
PACE_SECONDS = 0.005
WORDS = (
    "The parcel left the warehouse on Monday morning and should reach your door by Thursday at the latest"
    " unless the courier meets snow on the pass in which case expect one more"
)
TOKENS = [word if n == 0 else f" {word}" for n, word in enumerate(WORDS.split())]
USAGE = {"prompt_tokens": 60, "completion_tokens": len(TOKENS), "total_tokens": 60 + len(TOKENS)}
_HEAD = {"id": "chatcmpl-0123456789abcdef0123456789abcdef", "created": 1_750_000_000}


def logprobs(first: int, tokens: Sequence[str]) -> dict[str, Any]:
    """vLLM's shape; the values differ from token to token, as a model's do."""
    return {
        "content": [
            {"token": t, "logprob": -0.011 * (1 + 7 * (n % 5)), "bytes": list(t.encode()), "top_logprobs": []}
            for n, t in enumerate(tokens, first)
        ]
    }


def whole(model: str, with_logprobs: bool) -> bytes:
    """One HTTP answer with a chat completion of ``TOKENS``."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "".join(TOKENS)},
        "logprobs": logprobs(0, TOKENS) if with_logprobs else None,
        "finish_reason": "stop",
    }
    body = {**_HEAD, "object": "chat.completion", "model": model, "choices": [choice], "usage": USAGE}
    return answer(orjson.dumps(body))


def chunks(model: str, with_logprobs: bool, with_usage: bool) -> list[bytes]:
    """One streamed HTTP answer, in the pieces in which it is written: one per token, and the end."""
    head = {**_HEAD, "object": "chat.completion.chunk", "model": model}
    events = []
    for n, token in enumerate(TOKENS):
        delta = {"role": "assistant", "content": token} if n == 0 else {"content": token}
        choice: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": None}
        choice["logprobs"] = logprobs(n, [token]) if with_logprobs else None
        if n == len(TOKENS) - 1:
            choice["finish_reason"] = "stop"
        events.append(event({**head, "choices": [choice]}))
    start = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    usage = event({**head, "choices": [], "usage": USAGE}) if with_usage else b""
    end = usage + frame(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    return [start + events[0], *events[1:], end]


def event(chunk: Mapping[str, Any]) -> bytes:
    return frame(b"data: " + orjson.dumps(chunk) + b"\n\n")


def frame(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


class Mock:
    """Serves on a free port of the loopback until the process is ended."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listening.setblocking(False)
        self.port: int = self._listening.getsockname()[1]
        self._poll = select.epoll()
        self._poll.register(self._listening.fileno(), select.EPOLLIN)
        self._open: dict[int, tuple[socket.socket, Inbox]] = {}
        self._due: dict[int, list[bytes]] = {}  # what is still to be written, the next piece last
        self._paced: dict[int, float] = {}  # of those, the slow ones: when their next piece leaves
        self._wholes: dict[tuple[str, bool], bytes] = {}
        self._streams: dict[tuple[str, bool, bool], list[bytes]] = {}
        listed = {"object": "list", "data": [{"id": m, "object": "model"} for m in (STUDENT, TEACHER)]}
        self._models = answer(orjson.dumps(listed))

    def run(self) -> None:
        listening = self._listening.fileno()
        while True:
            for fd, _ in self._poll.poll(self._patience()):
                if fd == listening:
                    self._accept()
                else:
                    self._read(fd)
            now = time.monotonic()
            for fd in list(self._due):
                if self._paced.get(fd, 0.0) <= now:
                    self._write(fd)
                    if fd in self._paced:
                        self._paced[fd] += PACE_SECONDS

    def _patience(self) -> float:
        """Seconds until something must be written; -1 for none."""
        if len(self._due) > len(self._paced):
            return 0
        return max(0.0, min(self._paced.values()) - time.monotonic()) if self._paced else -1

    def _accept(self) -> None:
        try:
            client, _ = self._listening.accept()
        except BlockingIOError:
            return
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._poll.register(client.fileno(), select.EPOLLIN)
        self._open[client.fileno()] = (client, Inbox())

    def _read(self, fd: int) -> None:
        client, inbox = self._open[fd]
        try:
            data = client.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(fd)
            return
        if (request := inbox.feed(data)) is not None:
            self._answer(fd, *request)

    def _write(self, fd: int) -> None:
        client, pieces = self._open[fd][0], self._due[fd]
        try:
            sent = client.send(pieces[-1])
        except BlockingIOError:
            return
        except OSError:
            self._close(fd)
            return
        if sent < len(pieces[-1]):
            pieces[-1] = pieces[-1][sent:]
            return
        pieces.pop()
        if not pieces:
            del self._due[fd]
            self._paced.pop(fd, None)

    def _close(self, fd: int) -> None:
        self._due.pop(fd, None)
        self._paced.pop(fd, None)
        client, _ = self._open.pop(fd)
        client.close()

    def _answer(self, fd: int, head: bytes, content: bytes) -> None:
        body = orjson.loads(content) if content else {}
        if head.startswith(b"GET"):
            pieces = [self._models]
        elif body.get("stream"):
            pieces = self._stream(body)
            if body.get("user") == PACED:
                self._paced[fd] = time.monotonic()
        else:
            known = str(body["model"]), bool(body.get("logprobs"))
            if known not in self._wholes:
                self._wholes[known] = whole(*known)
            pieces = [self._wholes[known]]
        self._due[fd] = pieces[::-1]

    def _stream(self, body: Mapping[str, Any]) -> list[bytes]:
        usage = bool((body.get("stream_options") or {}).get("include_usage"))
        known = str(body["model"]), bool(body.get("logprobs")), usage
        if known not in self._streams:
            self._streams[known] = chunks(*known)
        return self._streams[known]


def main() -> None:
    """``python -m benchmarks.gateway.mock CORE``: serves on that core and prints the port."""
    os.sched_setaffinity(0, {int(c) for c in sys.argv[1].split(",")})
    mock = Mock()
    print(mock.port, flush=True)
    mock.run()


if __name__ == "__main__":
    main()

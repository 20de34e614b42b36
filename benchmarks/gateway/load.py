"""A closed-loop load generator over bare sockets and epoll; reads the gateway's CPU time at both ends of its window.

Each of ``concurrency`` connections sends its next request when the last one is answered. One process does
it all and sleeps in epoll, so that what it costs can be told.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.gateway.measure import cpu_seconds, tree
from benchmarks.gateway.mock import PACED, TOKENS
from benchmarks.gateway.prompts import prompts
from benchmarks.gateway.wire import Inbox

PATIENCE_SECONDS = 30.0
MOST_FAILED = 1000
PLAIN, STREAMED, SLOW = KINDS = ("plain", "streamed", "paced stream")
_LAST_WORDS = "".join(TOKENS[-3:]).encode()
_STUDENT = b"x-locum-tier: student"


@dataclass(frozen=True)
class Load:
    """What to send, where, for how long. ``answers`` is one of ``KINDS``; ``gateway`` and ``mock`` are
    process ids, 0 for none.

    The window begins once ``warm_seconds`` and ``warm_requests`` have passed. It lasts ``seconds``, and
    until ``requests`` were answered in it.
    """

    port: int
    model: str
    key: str
    answers: str
    concurrency: int
    warm_seconds: float = 0.5
    warm_requests: int = 0
    seconds: float = 2.5
    requests: int = 0
    gateway: int = 0
    mock: int = 0
    cores: tuple[int, ...] = ()


@dataclass
class Seen:
    """What was measured in the window; times in seconds, one entry a request that began and ended in it.

    ``workers``: CPU seconds of each process of the gateway, by process id.
    """

    began_at: float = 0.0
    seconds: float = 0.0
    requests: int = 0
    failed: int = 0
    by_student: int = 0
    content_bytes: int = 0
    latencies: list[float] = field(default_factory=list)
    first_bytes: list[float] = field(default_factory=list)
    workers: dict[int, float] = field(default_factory=dict)
    mock_cpu: float = 0.0
    generator_cpu: float = 0.0
    problem: str = ""


@dataclass
class _Connection:
    socket: socket.socket
    inbox: Inbox
    sent_at: float = 0.0
    first_at: float = 0.0


def messages(load: Load) -> list[bytes]:
    """The HTTP requests, whole, in the order in which they are sent."""
    asked: dict[str, Any] = {"model": load.model, "max_tokens": 64}
    asked |= {} if load.answers == PLAIN else {"stream": True}
    asked |= {"user": PACED} if load.answers == SLOW else {}
    made = []
    for text, _ in prompts():
        content = json.dumps(asked | {"messages": [{"role": "user", "content": text}]}).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{load.port}\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {load.key}\r\ncontent-length: {len(content)}\r\n\r\n"
        )
        made.append(head.encode() + content)
    return made


class Generator:
    def __init__(self, load: Load) -> None:
        self._load = load
        self._messages = messages(load)
        self._next = 0
        self._poll = select.epoll()
        self._open: dict[int, _Connection] = {}
        self._seen = Seen()
        self._measuring = False
        self._done = 0

    def run(self) -> Seen:
        """Sends, waits for the window's end, and tells what was seen."""
        load, seen = self._load, self._seen
        for _ in range(load.concurrency):
            self._connect()
        warm_until = time.perf_counter() + load.warm_seconds
        self._serve(lambda: time.perf_counter() >= warm_until and self._done >= load.warm_requests)
        self._measuring, seen.began_at = True, time.time()
        before, began = self._cpu(), time.perf_counter()
        until = began + load.seconds
        self._serve(lambda: time.perf_counter() >= until and seen.requests >= load.requests)
        seen.seconds, after = time.perf_counter() - began, self._cpu()
        seen.generator_cpu, seen.mock_cpu = after[0] - before[0], after[1] - before[1]
        seen.workers = {pid: cpu - before[2].get(pid, 0.0) for pid, cpu in after[2].items()}
        return seen

    def _serve(self, enough: Callable[[], bool]) -> None:
        """Until it is enough, or nothing more is to be hoped for."""
        heard_at = time.perf_counter()
        while not enough() and self._seen.failed < MOST_FAILED:
            ready = self._poll.poll(0.05)
            for fd, _ in ready:
                self._read(fd)
            if ready:
                heard_at = time.perf_counter()
            elif time.perf_counter() > heard_at + PATIENCE_SECONDS:
                self._seen.problem = f"nothing was heard for {PATIENCE_SECONDS:.0f} s"
                return

    def _cpu(self) -> tuple[float, float, dict[int, float]]:
        """CPU seconds so far: of this process, of the mock, of each process of the gateway."""
        load = self._load
        gateway = {pid: cpu_seconds([pid]) for pid in tree(load.gateway)} if load.gateway else {}
        return time.process_time(), cpu_seconds([load.mock]) if load.mock else 0.0, gateway

    def _connect(self) -> None:
        made = socket.create_connection(("127.0.0.1", self._load.port), timeout=PATIENCE_SECONDS)
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._poll.register(made.fileno(), select.EPOLLIN)
        self._open[made.fileno()] = _Connection(made, Inbox())
        self._send(self._open[made.fileno()])

    def _send(self, connection: _Connection) -> None:
        connection.first_at, connection.sent_at = 0.0, time.perf_counter()
        connection.socket.send(self._messages[self._next])
        self._next = (self._next + 1) % len(self._messages)

    def _read(self, fd: int) -> None:
        connection = self._open[fd]
        try:
            data = connection.socket.recv(262144)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:  # the gateway ended the connection; the request on it is lost
            self._lost(fd, "the gateway closed a connection before it had answered")
            return
        answer = connection.inbox.feed(data)
        if not connection.first_at and (answer or connection.inbox.has_content):
            connection.first_at = time.perf_counter()
        if answer is not None:
            self._finished(connection, *answer)
            self._send(connection)

    def _lost(self, fd: int, why: str) -> None:
        self._seen.failed += 1
        self._seen.problem = why
        self._open.pop(fd).socket.close()
        self._connect()

    def _finished(self, connection: _Connection, head: bytes, body: bytes) -> None:
        self._done += 1
        seen, now = self._seen, time.perf_counter()
        if self._load.answers == PLAIN:
            whole = body.count(_LAST_WORDS) == 1
        else:
            whole = body.count(b'"content"') >= len(TOKENS) and b"[DONE]" in body[-64:]
        if head[9:12] != b"200" or not whole:
            seen.failed += 1
            seen.problem = (head.split(b"\r\n", 1)[0] + b" " + body[:300]).decode(errors="replace")
        elif self._measuring:
            seen.requests += 1
            seen.by_student += _STUDENT in head
            seen.content_bytes += len(body)
            seen.latencies.append(now - connection.sent_at)
            seen.first_bytes.append(connection.first_at - connection.sent_at)


def main() -> None:
    """``python -m benchmarks.gateway.load JSON``: the fields of ``Load`` in, those of ``Seen`` out."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    if given.get("cores"):
        os.sched_setaffinity(0, given["cores"])
    print(json.dumps(asdict(Generator(Load(**given)).run())))


if __name__ == "__main__":
    main()

"""Real servers for tests: a small OpenAI-compatible upstream whose behaviour a test scripts, and the proxy."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import uvicorn
import yaml

from router.app import create_app
from router.policy.engines import EncoderKind
from router.scoring.text.encoder import Encoder
from router.settings import Settings
from router.store.access import open_readonly
from router.wire.assembly import Assembly
from router.wire.sse import chunks

DEADLINE_SECONDS = 60.0
"""Only a test that fails waits so long; a busy machine may need it."""
NO_ENV: Mapping[str, str] = {}


@dataclass(frozen=True)
class Script:
    """How the fake answers one request. ``die_after`` chunks the connection breaks; ``hang`` never answers;
    ``after`` is waited for before anything else; ``extra`` is merged into the answer, for fields that no one knows.
    ``raw`` are its bytes as they are, ``then`` more of them, once that was waited for."""

    text: str = "hello there friend"
    status: int = 200
    error: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    finish_reason: str = "stop"
    logprob: float | None = -0.01
    usage: Mapping[str, Any] | None = field(
        default_factory=lambda: {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    )
    message: Mapping[str, Any] = field(default_factory=dict)
    deltas: tuple[Mapping[str, Any], ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    hang: bool = False
    hang_after: int | None = None
    die_after: int | None = None
    seconds: float = 0.0
    after: threading.Event | None = None
    raw: bytes | None = None
    then: tuple[threading.Event, bytes] | None = None


@dataclass
class Seen:
    """One request as it arrived. ``left`` is set when its client went away before the end."""

    body: dict[str, Any]
    headers: dict[str, str]
    left: threading.Event = field(default_factory=threading.Event)


class FakeUpstream:
    """A raw ASGI app. ``answer(body)`` says how to answer; replace it at any time."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.models = [model]
        self.answer: Callable[[dict[str, Any]], Script] = lambda body: Script()
        self.seen: list[Seen] = []
        self.url = ""

    def always(self, **script: Any) -> None:
        self.answer = lambda body: Script(**script)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if scope["path"].endswith("/models"):
            await _send(send, 200, orjson.dumps({"object": "list", "data": [{"id": m} for m in self.models]}))
            return
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message.get("more_body"):
                break
        seen = Seen(orjson.loads(body), {k.decode(): v.decode() for k, v in scope["headers"]})
        self.seen.append(seen)
        script = self.answer(seen.body)
        answering = asyncio.create_task(self._answer(script, seen.body, send))
        leaving = asyncio.create_task(_left(receive))
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            seen.left.set()
            answering.cancel()
        leaving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await answering

    async def _answer(self, script: Script, body: dict[str, Any], send: Any) -> None:
        if script.hang:
            await asyncio.Event().wait()
        if script.after:
            await asyncio.to_thread(script.after.wait)
        if script.seconds:
            await asyncio.sleep(script.seconds)
        if script.raw is not None and script.then:
            waited, rest = script.then
            await _start(send, script.status, script.headers)
            await send({"type": "http.response.body", "body": script.raw, "more_body": True})
            await asyncio.to_thread(waited.wait)
            await send({"type": "http.response.body", "body": rest})
        elif script.raw is not None:
            await _send(send, script.status, script.raw, script.headers)
        elif script.status != 200:
            error = script.error or {"message": "scripted failure", "type": "server_error", "param": None, "code": None}
            await _send(send, script.status, orjson.dumps({"error": error}), script.headers)
        elif body.get("stream"):
            await self._stream(script, body, send)
        else:
            await _send(send, 200, orjson.dumps(self._whole(script, body)), script.headers)

    def _logprobs(self, script: Script, body: dict[str, Any], tokens: list[str]) -> dict[str, Any]:
        if not body.get("logprobs") or script.logprob is None:
            return {}
        others = [{"token": f"other {n}", "logprob": -1.0 - n} for n in range(1, body.get("top_logprobs") or 0)]
        top = [[{"token": t, "logprob": script.logprob}, *others] if body.get("top_logprobs") else [] for t in tokens]
        told = zip(tokens, top, strict=True)
        return {"logprobs": {"content": [{"token": t, "logprob": script.logprob, "top_logprobs": o} for t, o in told]}}

    def _whole(self, script: Script, body: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": script.text, **script.message}
        choice = {"index": 0, "message": message, "finish_reason": script.finish_reason}
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [choice | self._logprobs(script, body, _tokens(script.text))],
            **({"usage": script.usage} if script.usage else {}),
            **script.extra,
        }

    async def _stream(self, script: Script, body: dict[str, Any], send: Any) -> None:
        await _start(send, 200, {"content-type": "text/event-stream", **script.headers})
        for n, chunk in enumerate(self._chunks(script, body)):
            if n == script.die_after:
                raise ConnectionResetError("scripted death")  # uvicorn then drops the connection
            if n == script.hang_after:
                await asyncio.Event().wait()
            await send({"type": "http.response.body", "body": _event(chunk), "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    def _chunks(self, script: Script, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
        base |= script.extra
        deltas: list[tuple[Mapping[str, Any], dict[str, Any]]] = [({"role": "assistant", "content": ""}, {})]
        if script.deltas:
            deltas += [(delta, {}) for delta in script.deltas]
        else:
            deltas += [({"content": t}, self._logprobs(script, body, [t])) for t in _tokens(script.text)]
        for delta, logprobs in deltas:
            yield {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None} | logprobs]}
        yield {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": script.finish_reason}]}
        if (body.get("stream_options") or {}).get("include_usage") and script.usage:
            yield {**base, "choices": [], "usage": script.usage}


def _tokens(text: str) -> list[str]:
    words = text.split(" ")
    return [w if n == 0 else f" {w}" for n, w in enumerate(words)]


def _event(chunk: Any) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


async def _left(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _start(send: Any, status: int, headers: Mapping[str, str]) -> None:
    raw = [(k.encode(), v.encode()) for k, v in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})


async def _send(send: Any, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
    await _start(send, status, {"content-type": "application/json", **(headers or {})})
    await send({"type": "http.response.body", "body": body})


def collected(events: bytes) -> Assembly:
    """A whole stream's answer."""
    assembly = Assembly()
    for chunk in chunks(events)[0]:
        assembly.add(chunk)
    return assembly


@contextlib.contextmanager
def served(app: Any, lifespan: str = "off") -> Iterator[str]:
    """The app on a free port, in a thread of its own; yields its root URL."""
    config = uvicorn.Config(app, port=0, log_level="critical", lifespan=lifespan, timeout_graceful_shutdown=1)  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive())
        assert server.started, "the server did not start"
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(DEADLINE_SECONDS)


def until(true: Callable[[], Any], seconds: float = DEADLINE_SECONDS) -> Any:
    """Polls until it is true, and gives what it was. Raises AssertionError at the deadline."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)
    return found


@dataclass
class World:
    """A student, a teacher, and the proxy in front of them."""

    url: str
    student: FakeUpstream
    teacher: FakeUpstream
    home: Path
    policy_file: Path

    def records(self) -> list[Any]:
        reader = open_readonly(Settings(home=self.home))
        try:
            return [record for _, record in reader.records(embeddings=True)]
        finally:
            reader.close()

    def record(self, request_id: str) -> Any:
        """The record of a request, once it is on disk."""
        return until(lambda: next((r for r in self.records() if r.request_id == request_id), None))


def policy_of(
    student: FakeUpstream,
    teacher: FakeUpstream,
    /,
    timeout_seconds: float = DEADLINE_SECONDS,
    top_logprobs: int = 0,
    **changes: Any,
) -> dict[str, Any]:
    """Everything goes to the student, nothing is audited, unless ``changes`` (top-level keys) say so. Both upstreams
    have ``timeout_seconds`` to answer; of the teacher's tokens so many ``top_logprobs`` are recorded."""
    values: dict[str, Any] = {
        "name": "default",
        "aliases": ["gpt-4o"],
        "student": {
            "model": student.model,
            "url": f"{student.url}/v1",
            "usd_per_million": {"input": 0.02, "output": 0.06},
            "timeout_seconds": timeout_seconds,
        },
        "teacher": {
            "model": teacher.model,
            "url": f"{teacher.url}/v1",
            "api_key_env": "TEACHER_KEY",
            "usd_per_million": {"input": 1, "output": 3, "cached_input": "0.1"},
            "timeout_seconds": timeout_seconds,
            "top_logprobs": top_logprobs,
        },
        "objective": {"student_share": 1.0},
        "audit": {"rate": 0, "warmup_rate": 0, "explore": 0},
        "accept": {"hold_tokens": 2},
    }
    return values | changes


@contextlib.contextmanager
def world(
    folder: Path,
    client_keys: tuple[str, ...] = (),
    encoders: Callable[[EncoderKind], Encoder | None] = lambda kind: None,
    env: Mapping[str, str] = NO_ENV,
    **changes: Any,
) -> Iterator[World]:
    """The whole proxy, real but for its upstreams, waiting until its student is ready."""
    student, teacher = FakeUpstream("tiny"), FakeUpstream("big")
    with contextlib.ExitStack() as stack:
        for upstream in (student, teacher):
            upstream.url = stack.enter_context(served(upstream))
        file = folder / "policy.yaml"
        file.write_text(yaml.safe_dump(policy_of(student, teacher, **changes)))
        settings = Settings(home=folder / "home", cache=folder / "cache", client_keys=frozenset(client_keys))
        app = create_app([file], settings, env={"TEACHER_KEY": "sk-teacher-secret", **env}, encoders=encoders)
        url = stack.enter_context(served(app, lifespan="on"))
        yield World(url, student, teacher, settings.home, file)

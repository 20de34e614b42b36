"""``locum engine``: one process that serves versions of a student over OpenAI's wire."""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from router.engine import wire
from router.engine.base import MOST_TOKENS
from router.engine.call_reader import CallReader
from router.engine.generation import BatchRow, Delta, Job
from router.engine.grammar import Grammar
from router.engine.model import Model, Precision
from router.engine.scheduler import Scheduler
from router.engine.weights import base_student
from router.errors import BadRequest, EngineError, LocumError
from router.logs import log_to_stderr
from router.settings import Settings
from router.wire.body import json_object

Handler = Callable[[Request], Awaitable[Response]]


class Choices:
    """The choices of one request on their way, seen from the event loop."""

    def __init__(self, scheduler: Scheduler, chat: wire.Chat, form: Grammar | None) -> None:
        self.chat = chat
        self.model = scheduler.model(chat.model)
        prompt = self.model.encode(chat.messages, chat.shown)
        room = self.model.context - len(prompt)
        if room < 1:
            raise BadRequest(
                f"this model's context is {self.model.context} tokens, and your messages take {len(prompt)}",
                param="messages",
            )
        self.prompt_tokens = len(prompt)
        self.completion_tokens = 0
        self.who = wire.Identity.new(uuid.uuid4().hex, chat.model)
        limit = min(chat.max_tokens or MOST_TOKENS, room)
        loop, self._queue = asyncio.get_running_loop(), asyncio.Queue[tuple[int, Delta]]()
        calls = self.model.prompts.calls if chat.tools else None
        self._readers = [CallReader(calls) for _ in range(chat.n)] if calls else []
        self._rows: list[BatchRow] = []
        for index in range(chat.n):
            own = form.fresh() if form is not None else None
            job = Job(prompt, limit, chat.sampling_of(index), chat.stops, chat.stream, own, chat.yields)

            def emit(delta: Delta, index: int = index) -> None:
                loop.call_soon_threadsafe(self._queue.put_nowait, (index, delta))

            self._rows.append(scheduler.submit(chat.model, job, emit))

    async def deltas(self) -> AsyncIterator[tuple[int, Delta]]:
        """Deltas of all choices as they come; leaving early cancels what is still on its way."""
        left = len(self._rows)
        try:
            while left:
                index, delta = await self._queue.get()
                if delta.finish == "error":
                    raise EngineError("the engine failed on this request; its log says why")
                self.completion_tokens += len(delta.tokens)
                left -= delta.finish is not None
                yield index, delta
        finally:
            self.cancel()

    def cancel(self) -> None:
        for row in self._rows:
            row.cancelled = True

    def logprobs(self, delta: Delta) -> dict[str, Any] | None:
        return wire.logprobs(delta.tokens, self.model.decode) if self.chat.logprobs else None

    @property
    def usage(self) -> dict[str, Any]:
        return wire.usage(self.prompt_tokens, self.completion_tokens)

    async def whole(self) -> dict[str, Any]:
        """The body of an unstreamed answer."""
        last = {i: d async for i, d in self.deltas()}
        choices = [self._choice(index, delta) for index, delta in sorted(last.items())]
        return wire.completion(self.who, choices, self.usage)

    def _choice(self, index: int, delta: Delta) -> dict[str, Any]:
        message = wire.said(delta.text)
        if self._readers:
            self._read(index, delta)
            message = self._readers[index].message
        return wire.choice(index, message, self._finish(index, delta) or "stop", self.logprobs(delta))

    def _read(self, index: int, delta: Delta) -> list[dict[str, Any]]:
        """The parts of a message that a delta adds."""
        if not self._readers:
            return [{"content": delta.text}] if delta.text or delta.tokens else []
        reader = self._readers[index]
        parts = [*reader.push(delta.text), *(reader.flush() if delta.finish else ())]
        return parts or ([{}] if delta.tokens and self.chat.logprobs else [])

    def _finish(self, index: int, delta: Delta) -> str | None:
        calls = bool(self._readers and self._readers[index].calls)
        return "tool_calls" if calls and delta.finish == "stop" else delta.finish

    async def events(self) -> AsyncIterator[bytes]:
        """The events of a streamed answer. A failure on the way is an event too: the status has left."""
        for index in range(self.chat.n):
            yield wire.event(wire.chunk(self.who, index, {"role": "assistant", "content": ""}))
        try:
            async for index, delta in self.deltas():
                told = self.logprobs(delta)
                for part in self._read(index, delta):
                    yield wire.event(wire.chunk(self.who, index, part, None, told))
                    told = None  # once
                if delta.finish:
                    yield wire.event(wire.chunk(self.who, index, {}, self._finish(index, delta)))
        except EngineError as e:
            yield wire.event(e.body())
            return
        if self.chat.include_usage:
            yield wire.event({**self.who.head("chat.completion.chunk"), "choices": [], "usage": self.usage})
        yield wire.DONE


class EngineServer:
    """The routes. Loading a version happens beside serving the others, one load at a time."""

    def __init__(self, scheduler: Scheduler, cache: Path, precision: Precision) -> None:
        self._scheduler = scheduler
        self._cache = cache
        self._precision = precision
        self._loading = asyncio.Lock()

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/chat/completions", _shown(self.chat), methods=["POST"]),
                Route("/v1/models", _shown(self.models)),
                Route("/health", _shown(self.health)),
                Route("/admin/load", _shown(self.load), methods=["POST"]),
                Route("/admin/unload", _shown(self.unload), methods=["POST"]),
            ]
        )

    async def chat(self, request: Request) -> Response:
        chat = wire.parse(await request.body())
        model = self._scheduler.model(chat.model)
        form = await asyncio.to_thread(_form, model, chat) if chat.tools or chat.schema is not None else None
        answer = Choices(self._scheduler, chat, form)
        if answer.chat.stream:
            return StreamingResponse(
                answer.events(), media_type="text/event-stream", headers={"cache-control": "no-cache"}
            )
        working, left = asyncio.ensure_future(answer.whole()), asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait({working, left}, return_when=asyncio.FIRST_COMPLETED)
            return _json(await working) if working.done() else Response(status_code=499)
        finally:
            answer.cancel()
            working.cancel()
            left.cancel()

    async def models(self, _: Request) -> Response:
        data = [{"id": v, "object": "model", "created": 0, "owned_by": "locum"} for v in self._scheduler.versions]
        return _json({"object": "list", "data": data})

    async def health(self, _: Request) -> Response:
        alive = self._scheduler.alive
        return _json({"status": "ok" if alive else "dead"}, status=200 if alive else 503)

    async def load(self, request: Request) -> Response:
        version, path = _fields(await request.body(), "version", "path")
        async with self._loading:
            self._scheduler.add(await asyncio.to_thread(self._read, version, path))
        return _json({"versions": self._scheduler.versions})

    def _read(self, version: str, path: str) -> Model:
        return Model.load(version, base_student(path, self._cache), self._precision)

    async def unload(self, request: Request) -> Response:
        (version,) = _fields(await request.body(), "version")
        self._scheduler.remove(version)
        return _json({"versions": self._scheduler.versions})


def _form(model: Model, chat: wire.Chat) -> Grammar | None:
    """What the answer is held to. Raises BadRequest where it cannot be."""
    if chat.tools is not None and (calls := model.prompts.calls) is not None:
        return model.forms.calling(chat.tools, calls, chat.schema)
    return model.forms.of(chat.schema) if chat.schema is not None else None


def _shown(handler: Handler) -> Handler:
    """Turns the errors that are raised on purpose into OpenAI's error bodies."""

    async def shown(request: Request) -> Response:
        try:
            return await handler(request)
        except LocumError as e:
            return _json(e.body(), status=e.status)

    return shown


def _json(body: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status_code=status, media_type="application/json")


def _fields(raw: bytes, *names: str) -> Sequence[str]:
    body = json_object(raw)
    values = [v for n in names if isinstance(v := body.get(n), str) and v]
    if len(values) != len(names):
        raise BadRequest(f"the body must be an object with {' and '.join(names)}")
    return values


async def _gone(request: Request) -> None:
    """Returns when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def run(
    model: str,
    *,
    name: str,
    host: str,
    port: int,
    settings: Settings,
    precision: Precision = "auto",
    url_file: Path | None = None,
) -> None:
    """Serves ``model`` (a packaged base student, a Hugging Face folder, a hub's repository) as ``name``.

    Prints one line, ``listening on http://host:port``, once requests are answered; ``url_file`` gets the
    address too. Ends on SIGINT or SIGTERM after the answers on their way.

    Raises:
        EngineError: the weights cannot be had, or the address cannot be bound.
    """
    import uvicorn

    # Read by OpenMP when torch is loaded. By default its threads spin at every barrier, and on a machine whose
    # cores are shared with anything else one that spins keeps the one it waits for from running: 30 times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    log_to_stderr()
    listener = _listen(host, port)
    scheduler = Scheduler()
    scheduler.add(Model.load(name, base_student(model, settings.cache), precision))
    scheduler.start()
    url = f"http://{host}:{listener.getsockname()[1]}"

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            print(f"listening on {url}", flush=True)
            if url_file:
                fresh = url_file.with_suffix(".tmp")
                fresh.write_text(url)
                fresh.replace(url_file)

    config = uvicorn.Config(
        EngineServer(scheduler, settings.cache, precision).app(),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    try:
        Announcing(config).run(sockets=[listener])
    finally:
        scheduler.stop()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), backlog=2048, family=family)
    except OSError as e:
        raise EngineError(f"cannot listen on {host}:{port}: {e.strerror}") from e

"""The composition root: the only place that builds collaborators, and their life from start to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import structlog
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from router import __version__
from router.api import chat, completions, embeddings, feedback, health, messages, models, openapi
from router.api.admission import ClientKeys, Streams
from router.api.asgi import Asgi, Entrance, Receive, Scope, Send, admit, given_key
from router.api.health import Problems
from router.api.origins import shared_with
from router.api.responses import routes as kept_responses
from router.api.responses.store import KeptResponses
from router.api.responses.surface import PATH as RESPONSES
from router.api.responses.surface import Responses
from router.api.surface import PlainWork, RoutedWork
from router.backends.client import BackendClient, Wires
from router.cascade.drain import Drain
from router.cascade.exchange import Services
from router.errors import BadRequest, LocumError
from router.heads.shelf import HeadShelf
from router.metrics.files import MetricFiles
from router.metrics.metrics import Metrics
from router.policy.engines import EncoderKind
from router.routing.conversations import Identities
from router.routing.state.base import SharedState
from router.routing.state.machine import MachineState
from router.scoring.text.encoder import Encoder, load_encoder
from router.served.catalog import Catalog
from router.served.claim import ClaimWatch
from router.served.drift import DriftWatch
from router.served.expenses import known
from router.served.policies import Policies, background
from router.served.retirement import Retirements
from router.settings import Settings
from router.store.access import open_store

log = structlog.get_logger(__name__)

GARBAGE = (10_000, 5, 200)
"""When to look for reference cycles: seldomer than by default, since a request leaves none (5% of the CPU), and among
few objects at once: whoever has 200,000 of them looked through holds up everybody else for as long."""

Lifespan = Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]]


class App:
    """The ASGI application: what costs money goes straight to its endpoint, by path, all else through
    FastAPI, whose dispatch costs more than the rest of a request."""

    def __init__(self, endpoints: Mapping[str, Asgi], rest: FastAPI) -> None:
        self._endpoints, self._rest = endpoints, rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._endpoints.get(scope["path"]) if scope["type"] == "http" else None
        if found is None:
            if scope.get("method") == "HEAD":  # what GET would say, of which the server sends the head
                scope = {**scope, "method": "GET"}
            await self._rest(scope, receive, send)
        elif scope["method"] == "POST":
            await found(scope, receive, send)
        else:
            await _not_so(scope["method"], scope["path"], 405, {"allow": "POST"})(scope, receive, send)


def create_app(
    policies: Sequence[Path],
    settings: Settings,
    *,
    env: Mapping[str, str] = os.environ,
    encoders: Callable[[EncoderKind], Encoder | None] | None = None,
    state: SharedState | None = None,
    drain: Drain | None = None,
    problems: Sequence[str] = (),
    files: MetricFiles | None = None,
) -> Asgi:
    """The proxy for these policy files. ``env`` holds the backends' keys, by the names that policies give;
    ``encoders`` loads what scorers embed text with (by default each once, computing on one thread); ``state``
    is what this worker shares with others (by default it works alone); ``drain`` what its server ends it by;
    ``problems`` are those of how it is served, for ``/health/ready`` to tell; ``files`` what a worker counts in.

    Raises:
        PolicyError: a file is wrong.
    """
    metrics, keys, drain = Metrics(files=files), ClientKeys(settings.client_keys), drain or Drain()
    encoders = encoders or cache(partial(load_encoder, settings.cache, threads=1))
    static, shelf, state = partial(encoders, "static"), HeadShelf(encoders), state or MachineState()
    served, retirements = Policies(policies, settings, env, encoders, state, shelf=shelf), Retirements(env)
    kept, identity = KeptResponses(settings.home / "responses.db"), Identities(state)
    claim = ClaimWatch(settings.run, os.getpid() if state.alone else os.getppid(), metrics.observe_home)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        store = open_store(settings, served.policies)
        metrics.watch(store)
        kept.open()
        client = BackendClient(wires := Wires(shelf), state.breakers, state.rests)
        await served.start(Services(client, store, metrics, drain))
        beside = {
            "policy files": served.follow(),
            "today's spending": served.count_spending(store),
            "metrics of the store": metrics.keep_fresh(),
            "retirements": retirements.follow(lambda: served.policies, wires.openai),
            "the claim on the home": claim.run(),
            "drift": DriftWatch(store, metrics, settings, served.live_bundles, static).run(),
        }
        try:
            async with _going_on(beside):
                await known(state)
                _collect_seldom()
                yield
        finally:
            await served.stop()
            await client.close()
            await store.flush()
            metrics.flush()
            store.close()
            kept.close()

    entrance = Entrance(keys, settings.limits, metrics.observe_rejected, drain)
    responses = Responses(lambda: served.catalog, kept, partial(_owner, keys), identity)
    endpoints = _endpoints(served, entrance, Streams(settings.limits.streams), responses, identity)
    told = health.routes(lambda: served.catalog, metrics, partial(_told, problems, claim, served, retirements), drain)
    app = App(endpoints, _rest(served, told, kept, keys, lifespan))
    return shared_with(settings.origins, app) if settings.origins else app


@contextlib.asynccontextmanager
async def _going_on(works: Mapping[str, Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Does all of them in the background meanwhile."""
    tasks = [background(work, name) for name, work in works.items()]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _rest(served: Policies, told: APIRouter, kept: KeptResponses, keys: ClientKeys, lifespan: Lifespan) -> FastAPI:
    """What costs nothing: models, kept answers, health and metrics (``told``), the document."""
    rest = FastAPI(title="Locum", version=__version__, lifespan=lifespan, openapi_url=None)

    def authorised(request: Request) -> None:
        _owner(keys, dict(request.headers.raw))
        admit(request.scope)

    rest.include_router(models.routes(lambda: served.catalog), dependencies=[Depends(authorised)])
    rest.include_router(kept_responses.routes(kept, partial(_owner, keys)), dependencies=[Depends(authorised)])
    rest.include_router(told)
    rest.include_router(openapi.routes(lambda: served.catalog))
    rest.add_exception_handler(LocumError, _locum_error)
    rest.add_exception_handler(HTTPException, _http_error)
    rest.add_exception_handler(RequestValidationError, _invalid)
    return rest


def _told(how: Sequence[str], claim: ClaimWatch, served: Policies, retirements: Retirements) -> Problems:
    """What an operator should know: of ``how`` it is served, of the home and the records; and by policy."""
    found = served.problems()
    for policy in served.policies:
        found[policy.name] += retirements.warnings(policy)
    return Problems([*how, *claim.problems, *served.store_problems()], found)


def _owner(keys: ClientKeys, headers: Mapping[bytes, bytes]) -> str:
    """Whose request these headers came with. Raises Unauthorized."""
    return keys.check(given_key(headers))


def _collect_seldom() -> None:
    gc.collect()
    gc.freeze()  # what start-up made is never garbage; scanning it again and again costs 15% of the CPU
    gc.set_threshold(*GARBAGE)


def _endpoints(
    served: Policies, entrance: Entrance, streams: Streams, responses: Responses, identity: Identities
) -> dict[str, Asgi]:
    """What is raw ASGI, by path."""

    def catalog() -> Catalog:
        return served.catalog

    def services() -> Services:
        return served.shared

    chats, texts = chat.ChatCompletions(), completions.Completions()
    endpoints = {
        path: entrance.endpoint(RoutedWork(surface, catalog, streams, identity))
        for path, surface in ((chat.PATH, chats), (completions.PATH, texts), (RESPONSES, responses))
    }
    answer_feedback = PlainWork(feedback.FeedbackEndpoint(services))
    endpoints[embeddings.PATH] = entrance.endpoint(PlainWork(embeddings.Embeddings(catalog, services)))
    endpoints[feedback.PATH] = entrance.endpoint(answer_feedback, max_body_bytes=feedback.MAX_BODY_BYTES)
    for path, work in (
        (messages.PATH, RoutedWork(messages.Messages(), catalog, streams, identity)),
        (messages.COUNT_PATH, messages.CountTokens(catalog)),
    ):
        endpoints[path] = messages.telling_request_id(entrance.endpoint(work, messages.error_shape))
    return endpoints


async def _locum_error(_: Request, error: Exception) -> JSONResponse:
    known = error if isinstance(error, LocumError) else LocumError("internal error")
    return JSONResponse(known.body(), status_code=known.status)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    """No such path, or not by this method: in OpenAI's shape too."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = {"allow": ", ".join(_allowed(request))} if status == 405 else None
    return _not_so(request.method, request.url.path, status, headers)


def _allowed(request: Request) -> list[str]:
    """The methods that this path has: of all its routes, where FastAPI tells the first one's."""
    routes, scope = request.app.routes, request.scope
    methods = ("GET", "POST", "PUT", "PATCH", "DELETE")
    return [m for m in methods if any(r.matches({**scope, "method": m})[0] is Match.FULL for r in routes)]


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    """A parameter that FastAPI found wrong: in OpenAI's shape, with its name."""
    found = error.errors()[0] if isinstance(error, RequestValidationError) else {"loc": (), "msg": "invalid request"}
    name = str(found["loc"][-1]) if found["loc"] else None
    return JSONResponse(BadRequest(f"{name}: {found['msg']}", param=name).body(), status_code=400)


def _not_so(method: str, path: str, status: int, headers: Mapping[str, str] | None) -> JSONResponse:
    body = BadRequest(f"{method} {path} is nothing this proxy serves").body()
    return JSONResponse(body, status_code=status, headers=headers)

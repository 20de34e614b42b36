"""The least that a forwarder in Python can be: what any proxy here is measured against.

Neither looks into a request further than whether it asks for a stream; neither checks a key, scores,
accounts, or records. ``python -m benchmarks.gateway.forwarders raw|fastapi PORT UPSTREAM_PORT``.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
JSON = {"content-type": "application/json"}
STREAM_HEAD = [(b"content-type", b"text/event-stream")]


def session() -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=1024, keepalive_timeout=15)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


class Raw:
    """One ASGI callable: no framework."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._session: aiohttp.ClientSession

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        streamed = bool(orjson.loads(body).get("stream"))
        async with self._session.post(self._upstream, data=body, headers=JSON) as answer:
            if not streamed:
                content = await answer.read()
                head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
                await send({"type": "http.response.start", "status": answer.status, "headers": head})
                await send({"type": "http.response.body", "body": content})
                return
            await send({"type": "http.response.start", "status": answer.status, "headers": STREAM_HEAD})
            while piece := await answer.content.readany():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._session = session()
                gc.collect()
                gc.freeze()
            else:
                await self._session.close()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return


def with_fastapi(upstream: str) -> FastAPI:
    """The same in FastAPI as it is usually written, with Pydantic left out in its favour."""
    kept: list[aiohttp.ClientSession] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with session() as made:
            kept.append(made)
            gc.collect()
            gc.freeze()
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        body = await request.body()
        if orjson.loads(body).get("stream"):
            return StreamingResponse(pieces(body), media_type="text/event-stream")
        async with kept[0].post(upstream, data=body, headers=JSON) as answer:
            return Response(await answer.read(), status_code=answer.status, media_type="application/json")

    async def pieces(body: bytes) -> AsyncIterator[bytes]:
        async with kept[0].post(upstream, data=body, headers=JSON) as answer:
            while piece := await answer.content.readany():
                yield piece

    return app


def main() -> None:
    kind, port, upstream_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    upstream = f"http://127.0.0.1:{upstream_port}/v1/chat/completions"
    app: Any = Raw(upstream) if kind == "raw" else with_fastapi(upstream)
    uvicorn.run(app, port=port, loop="uvloop", http="httptools", log_level="warning", access_log=False)


if __name__ == "__main__":
    main()

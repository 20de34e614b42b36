"""Asks the label heads of a bundle, in this process: a backend whose ``url`` is their folder."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from router.backends.base import Backend, Pairs, Reply, WaitingTime
from router.errors import BundleError, EngineError, UpstreamUnable, UpstreamUnreachable
from router.heads.shelf import SCHEME, HeadShelf
from router.heads.wire import chunks, completion
from router.wire.json_text import dumps
from router.wire.sse import encode
from router.wire.threads import LARGE_BYTES, aside

DONE = b"data: [DONE]\n\n"


class HeadWire:
    """See ``Upstream``. What no head is for is refused, so that it is asked of the next."""

    def __init__(self, shelf: HeadShelf) -> None:
        self._shelf = shelf

    async def complete(self, backend: Backend, body: Mapping[str, Any], waited: WaitingTime) -> Reply:
        return Reply(200, dumps(await self._answer(backend, body, waited)))

    async def open(self, backend: Backend, body: Mapping[str, Any], waited: WaitingTime) -> HeadStream:
        whole = await self._answer(backend, body, waited)
        return HeadStream(b"".join(map(encode, chunks(whole))) + DONE)

    async def embed(self, backend: Backend, body: Mapping[str, Any], waited: WaitingTime) -> Reply:
        _unable(backend, "makes no embeddings")

    async def close(self) -> None:
        pass

    async def _answer(self, backend: Backend, body: Mapping[str, Any], waited: WaitingTime) -> dict[str, Any]:
        folder = Path((backend.url or "").removeprefix(SCHEME))
        with waited:
            try:
                heads = await aside(partial(self._shelf.at, folder), 0 if self._shelf.has(folder) else LARGE_BYTES + 1)
            except (BundleError, EngineError) as e:
                raise UpstreamUnreachable(f"{backend.label} cannot be read") from e
            size = LARGE_BYTES + 1 if heads.slow else waited.size
            found = await aside(partial(completion, heads, body, backend.model), size)
        return found or _unable(backend, "has no answer to requests of this kind")


class HeadStream:
    """A streamed answer that is there at once."""

    headers: Pairs = ()

    def __init__(self, events: bytes) -> None:
        self._left = events

    async def read(self) -> bytes:
        piece, self._left = self._left, b""
        return piece

    async def close(self, *, done: bool = False) -> None:
        self._left = b""


def _unable(backend: Backend, why: str) -> NoReturn:
    message = f"{backend.label} {why}"
    error = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}
    raise UpstreamUnable(message, reply_status=400, reply_body=dumps(error))

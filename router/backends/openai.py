"""Any OpenAI-compatible server, bytes straight through, over one pooled aiohttp client."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson
from multidict import CIMultiDict
from yarl import URL

from router.backends.base import Backend, Pairs, Reply, WaitingTime, passed_on
from router.backends.conversion import is_stream, whole
from router.backends.events import LONGEST_EVENT_BYTES, LONGEST_UNPACKED_BYTES
from router.backends.faults import READ_BYTES, bound, fault, too_long
from router.backends.inband_errors import raise_error_in, told
from router.errors import UpstreamError, UpstreamRefused, UpstreamTimeout, UpstreamUnreachable
from router.wire.chat import Dialect
from router.wire.threads import aside

CHAT, EMBEDDINGS, MODELS = "/chat/completions", "/embeddings", "/models"
JSON = (b"content-type", b"application/json")
FAILURES = (TimeoutError, aiohttp.ClientError, ValueError)
CONNECT_SECONDS = 5.0
IDLE_SECONDS = 15.0
LAST_BYTES_SECONDS = 1.0
LONGEST_ERROR_BYTES = LONGEST_LISTING_BYTES = 2**20
_PACKED = re.compile(r"content-encoding: (\w+)")
"""Of what aiohttp says about a body that it cannot unpack."""
NONE: Mapping[str, str] = {}
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class _Place:
    """All of a request to one backend that stays the same from request to request."""

    url: URL
    headers: CIMultiDict[str]
    proxy: str | None
    whole: aiohttp.ClientTimeout
    streamed: aiohttp.ClientTimeout


class OpenAIWire:
    """Speaks ``/chat/completions`` and ``/embeddings`` to a backend that has a ``url``.

    Build it inside a running event loop.
    """

    def __init__(self, connections: int = 1024) -> None:
        connector = aiohttp.TCPConnector(limit=connections, keepalive_timeout=IDLE_SECONDS, ttl_dns_cache=60)
        self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        self._proxies: dict[str, str | None] = {}
        self._places: dict[tuple[str | None, str | None, float, str], _Place] = {}

    async def complete(
        self,
        backend: Backend,
        body: Mapping[str, Any],
        waited: WaitingTime,
        *,
        path: str = CHAT,
        headers: Mapping[str, str] = NONE,
    ) -> Reply:
        """One whole answer. ``backend.timeout_seconds`` bounds all of it."""
        response = await self._post(backend, body, waited, path, headers)
        try:
            with waited:
                content, ended = await _read(response, LONGEST_EVENT_BYTES)
        except FAILURES as e:
            raise named_failure(backend, e) from e
        if not ended:
            raise too_long(backend, f"{LONGEST_EVENT_BYTES} bytes")
        reading = partial(_answer, backend, content, bounded=path != EMBEDDINGS)
        answer = await aside(reading, len(content))
        passed = _passed_on(backend, response)
        return Reply(response.status, answer, passed if answer is content else _as_json(passed))

    async def embed(self, backend: Backend, body: Mapping[str, Any], waited: WaitingTime) -> Reply:
        return await self.complete(backend, body, waited, path=EMBEDDINGS)

    async def open(
        self,
        backend: Backend,
        body: Mapping[str, Any],
        waited: WaitingTime,
        *,
        path: str = CHAT,
        headers: Mapping[str, str] = NONE,
    ) -> OpenAIStream:
        """``backend.timeout_seconds`` bounds the wait for the status and for each piece."""
        response = await self._post(backend, body, waited, path, headers, streamed=True)
        return OpenAIStream(backend, response, waited)

    async def models(self, backend: Backend) -> bytes:
        """What the server lists. ``backend.timeout_seconds`` bounds all of it. Raises as ``Upstream`` says."""
        try:
            place = self._place(backend, MODELS)
            response = await self._session.get(
                place.url, headers=place.headers, timeout=place.whole, allow_redirects=False, proxy=place.proxy
            )
            if response.status != 200:
                raise await _fault(backend, response)
            content, ended = await _read(response, LONGEST_LISTING_BYTES)
        except FAILURES as e:
            raise named_failure(backend, e) from e
        if not ended:
            raise too_long(backend, f"{LONGEST_LISTING_BYTES} bytes")
        return content

    async def close(self) -> None:
        await self._session.close()

    async def _post(
        self,
        backend: Backend,
        body: Mapping[str, Any],
        waited: WaitingTime,
        path: str,
        headers: Mapping[str, str],
        *,
        streamed: bool = False,
    ) -> aiohttp.ClientResponse:
        """The answer's head, of a status that is an answer's. Raises as ``Upstream`` says."""
        place = self._place(backend, path)
        content = await aside(partial(orjson.dumps, body), waited.size)
        try:
            with waited:
                response = await self._session.post(
                    place.url,
                    data=content,
                    headers={**place.headers, **headers} if headers else place.headers,
                    timeout=place.streamed if streamed else place.whole,
                    allow_redirects=False,
                    proxy=place.proxy,
                )
                _fail_when_lost(response)
                if not 200 <= response.status < 300:
                    raise await _fault(backend, response)
        except FAILURES as e:
            raise named_failure(backend, e) from e
        return response

    def _place(self, backend: Backend, path: str) -> _Place:
        key = (backend.url, backend.key, backend.timeout_seconds, path)
        if (known := self._places.get(key)) is not None:
            return known
        url, seconds = backend.url or "", backend.timeout_seconds
        secret = credentials(backend) if backend.key else {}
        made = self._places[key] = _Place(
            url=URL(f"{url.rstrip('/')}{path}"),
            headers=CIMultiDict({"content-type": "application/json"} | secret),
            proxy=self._proxy_to(url),
            whole=aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS),
            streamed=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=seconds),
        )
        return made

    def _proxy_to(self, url: str) -> str | None:
        """The HTTP proxy that the environment names for this URL; looked up once, since it costs more than
        the rest of a request (as does aiohttp's own ``trust_env``, which reads ``.netrc`` each time)."""
        if url not in self._proxies:
            self._proxies[url] = proxy_to(url)
        return self._proxies[url]


def proxy_to(url: str) -> str | None:
    """The HTTP proxy that the environment names for this URL; None on this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return None if host in LOOPBACK or proxy_bypass(host) else getproxies().get(parts.scheme)


def credentials(backend: Backend) -> dict[str, str]:
    """The header that a backend of this dialect looks for its key in."""
    if backend.dialect is Dialect.ANTHROPIC:
        return {"x-api-key": backend.key or ""}
    return {"authorization": f"Bearer {backend.key}"}


class OpenAIStream:
    """A streamed answer under way (``router.backends.base.Stream``)."""

    __slots__ = ("_backend", "_content", "_packed", "_response", "_waited", "headers")

    def __init__(self, backend: Backend, response: aiohttp.ClientResponse, waited: WaitingTime) -> None:
        self.headers = passed_on(backend, response.raw_headers)
        self._backend, self._response, self._content, self._waited = backend, response, response.content, waited
        self._packed = _is_packed(response)

    async def read(self) -> bytes:
        try:
            with self._waited:
                piece = await self._content.readany()
                if self._packed:
                    await asyncio.sleep(0)  # as in ``_read``
        except FAILURES as e:
            raise named_failure(self._backend, e) from e
        if self._packed and self._content.total_bytes > LONGEST_UNPACKED_BYTES:
            raise too_long(self._backend, f"{LONGEST_UNPACKED_BYTES} bytes")
        return piece

    async def close(self, *, done: bool = False) -> None:
        if done and not self._content.at_eof():
            with contextlib.suppress(*FAILURES):
                async with asyncio.timeout(LAST_BYTES_SECONDS):
                    async for _ in self._content.iter_any():
                        await asyncio.sleep(0)  # for the timeout: what is packed comes without a wait
        self._response.close()  # what is left unread is not wanted; after the last byte this does nothing


def _answer(backend: Backend, content: bytes, *, bounded: bool) -> bytes:
    """A whole answer, of which some servers make a stream whatever was asked. Raises the failure that it tells, and
    one where a ``bounded`` one holds more than is ever said: while it is read nobody else is served."""
    if bounded:
        bound(backend, content)
    content = backend.without_key(content, answer=True)
    content = whole(backend, content) if is_stream(content) else content
    raise_error_in(backend, content)
    return content


def _fail_when_lost(response: aiohttp.ClientResponse) -> None:
    """Ends the wait for a body whose connection is gone. aiohttp itself closes a connection that breaks its chunked
    coding and tells nobody, so that a reader would wait for as long as it may wait for a byte."""
    content, connection = response.content, response.connection
    if connection is None or connection.protocol is None:
        return  # the last byte is there

    def told(_: object = None) -> None:
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("the connection was lost in the middle of the answer"))

    if (lost := connection.protocol.closed) is None:
        told()
    else:
        lost.remove_done_callback(_retrieve)
        lost.add_done_callback(_retrieve)
        lost.add_done_callback(told)
        content.on_eof(lambda: _forget(lost, told))


def _forget(lost: asyncio.Future[None], told: Callable[[object], None]) -> None:
    """The connection goes on to other requests."""
    lost.remove_done_callback(told)


def _retrieve(lost: asyncio.Future[None]) -> None:
    """Who reads is told of a lost connection otherwise; asyncio would log what no one looks at."""
    if not lost.cancelled():
        lost.exception()


async def _read(response: aiohttp.ClientResponse, most: int) -> tuple[bytes, bool]:
    """(a body, whether that is all of it): no more is unpacked than a piece beyond ``most`` bytes. Gives the
    connection back, or closes it where it fails or more would come."""
    pieces, size, packed = [], 0, _is_packed(response)
    try:
        while size <= most and (piece := await response.content.readany()):
            pieces.append(piece)
            size += len(piece)
            if packed:
                await asyncio.sleep(0)  # aiohttp unpacks the next piece on the way, with no wait between
    except BaseException:
        response.close()
        raise
    if size > most:
        response.close()
    return await aside(partial(b"".join, pieces), size), size <= most


def _is_packed(response: aiohttp.ClientResponse) -> bool:
    return "content-encoding" in response.headers


async def _fault(backend: Backend, response: aiohttp.ClientResponse) -> UpstreamError | UpstreamRefused:
    """What a status means that is no answer's. Of a body that is too long (some servers repeat a request as they refuse
    it) the first words are told."""
    content, ended = await _read(response, LONGEST_ERROR_BYTES)
    headers = _passed_on(backend, response)
    if not ended:
        content = orjson.dumps({"error": told(content[:READ_BYTES].decode("utf-8", "replace"))})
        headers = _as_json(headers)
    sorting = partial(fault, backend, response.status, content, response.headers, passed_on=headers)
    return await aside(sorting, len(content))


def _as_json(headers: Pairs) -> Pairs:
    return (JSON, *(header for header in headers if header[0] != JSON[0]))


def _passed_on(backend: Backend, response: aiohttp.ClientResponse) -> Pairs:
    kind = [(b"content-type", value) for name, value in response.raw_headers if name.lower() == b"content-type"]
    return (*kind[:1], *passed_on(backend, response.raw_headers))


def named_failure(backend: Backend, error: Exception) -> UpstreamError:
    """One of the client library's exceptions as ours, which names the backend and nothing secret."""
    match error:
        case TimeoutError():  # aiohttp's own timeouts are TimeoutErrors too
            return UpstreamTimeout(f"{backend.label} did not answer within {backend.timeout_seconds:g} s")
        case aiohttp.ClientConnectorError() | aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
            return UpstreamUnreachable(f"{backend.label} cannot be reached ({type(error).__name__})")
        case _ if packed := _PACKED.search(str(error)):
            return UpstreamError(
                f"{backend.label} packed its answer as {packed[1]}, which was not asked for or is damaged"
            )
        case _:
            return UpstreamError(f"{backend.label} broke off its answer ({type(error).__name__})")

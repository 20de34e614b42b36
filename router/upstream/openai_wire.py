"""Any OpenAI-compatible server, bytes straight through, over one pooled aiohttp client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson

from router.errors import UpstreamError, UpstreamRateLimited, UpstreamRefused, UpstreamTimeout, UpstreamUnreachable
from router.upstream.base import Backend, Reply, Waited

PASSED_ON = frozenset({"content-type", "retry-after", "openai-processing-ms", "openai-version"})
OUR_CREDENTIALS = frozenset({401, 403})
CONNECT_SECONDS = 5.0
IDLE_SECONDS = 15.0
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class OpenAIWire:
    """Speaks ``/chat/completions`` and ``/embeddings`` to a backend that has a ``url``.

    Build it inside a running event loop.
    """

    def __init__(self, connections: int = 1024) -> None:
        connector = aiohttp.TCPConnector(limit=connections, keepalive_timeout=IDLE_SECONDS, ttl_dns_cache=60)
        self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        self._proxies: dict[str, str | None] = {}

    async def complete(
        self, backend: Backend, body: Mapping[str, Any], waited: Waited, *, path: str = "/chat/completions"
    ) -> Reply:
        """One whole answer. ``backend.timeout_seconds`` bounds all of it."""
        timeout = aiohttp.ClientTimeout(total=backend.timeout_seconds, sock_connect=CONNECT_SECONDS)
        with _named(backend), waited:
            async with self._post(backend, body, timeout, path) as response:
                reply = Reply(response.status, await response.read(), _passed_on(response))
        _raise_unless_ok(backend, reply)
        return reply

    async def embed(self, backend: Backend, body: Mapping[str, Any], waited: Waited) -> Reply:
        return await self.complete(backend, body, waited, path="/embeddings")

    @asynccontextmanager
    async def stream(
        self, backend: Backend, body: Mapping[str, Any], waited: Waited
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """An answer in pieces. ``backend.timeout_seconds`` bounds the wait for each of them."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=backend.timeout_seconds)
        with _named(backend), waited:
            response = await self._post(backend, body, timeout)
            if response.status >= 300:
                reply = Reply(response.status, await response.read(), _passed_on(response))
                _raise_unless_ok(backend, reply)
        try:
            yield _pieces(backend, response, waited)
        finally:
            response.close()  # what is left unread is not wanted; after the last byte this does nothing

    async def close(self) -> None:
        await self._session.close()

    def _post(
        self,
        backend: Backend,
        body: Mapping[str, Any],
        timeout: aiohttp.ClientTimeout,
        path: str = "/chat/completions",
    ) -> aiohttp.client._RequestContextManager:
        headers = {"content-type": "application/json"}
        if backend.key:
            headers["authorization"] = f"Bearer {backend.key}"
        return self._session.post(
            f"{(backend.url or '').rstrip('/')}{path}",
            data=orjson.dumps(body),
            headers=headers,
            timeout=timeout,
            allow_redirects=False,
            proxy=self._proxy_to(backend.url or ""),
        )

    def _proxy_to(self, url: str) -> str | None:
        """The HTTP proxy that the environment names for this URL; looked up once, since it costs more than
        the rest of a request (as does aiohttp's own ``trust_env``, which reads ``.netrc`` each time)."""
        if url not in self._proxies:
            parts = urlsplit(url)
            host = parts.hostname or ""
            direct = host in LOOPBACK or proxy_bypass(host)
            self._proxies[url] = None if direct else getproxies().get(parts.scheme)
        return self._proxies[url]


async def _pieces(backend: Backend, response: aiohttp.ClientResponse, waited: Waited) -> AsyncIterator[bytes]:
    while True:
        with _named(backend), waited:
            piece = await response.content.readany()
        if not piece:
            return
        yield piece


def _passed_on(response: aiohttp.ClientResponse) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((k.lower().encode(), v.encode()) for k, v in response.headers.items() if k.lower() in PASSED_ON)


def _raise_unless_ok(backend: Backend, reply: Reply) -> None:
    """Sorts a status into answer, refusal and failure. 401 and 403 are about the proxy's own key, so they
    are failures of the backend: the client could do nothing about them, and their text may quote the key."""
    status = reply.status
    if 200 <= status < 300:
        return
    if status == 429:
        raise UpstreamRateLimited(f"{backend.label} is rate-limited (429)")
    if status == 408:
        raise UpstreamTimeout(f"{backend.label} timed out by its own account (408)")
    if status in OUR_CREDENTIALS:
        raise UpstreamError(f"{backend.label} refused the proxy's own credentials ({status})")
    if 400 <= status < 500:
        raise UpstreamRefused(
            f"{backend.label} refused the request ({status})",
            reply_status=status,
            reply_body=reply.body,
            reply_headers=reply.headers,
        )
    raise UpstreamError(f"{backend.label} answered {status}")


@contextmanager
def _named(backend: Backend) -> Iterator[None]:
    """Turns the client library's exceptions into ours, which name the backend and nothing secret."""
    try:
        yield
    except TimeoutError as e:  # aiohttp's own timeouts are TimeoutErrors too
        raise UpstreamTimeout(f"{backend.label} did not answer within {backend.timeout_seconds:g} s") from e
    except (aiohttp.ClientConnectorError, aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as e:
        raise UpstreamUnreachable(f"{backend.label} cannot be reached ({type(e).__name__})") from e
    except (aiohttp.ClientError, ValueError) as e:
        raise UpstreamError(f"{backend.label} broke off its answer ({type(e).__name__})") from e

"""An API's batches: many requests handed over as one file, answered within a day at a lower price (OpenAI's, and of who
has the same). Free until a batch is made; then it is paid by what it answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import orjson

from router.backends.base import Backend, Reply
from router.backends.client import Completion, completion
from router.backends.faults import bound, fault, without_secrets
from router.backends.inband_errors import raise_error_in
from router.backends.openai import CONNECT_SECONDS, FAILURES, credentials, named_failure, proxy_to
from router.errors import UpstreamError, UpstreamRefused, UpstreamUnusable
from router.pricing import cost_usd

TIER = "batch"
"""The service tier by which a price tells what batches cost."""
MOST_REQUESTS, MOST_BYTES = 50_000, 180 * 10**6
"""Of one batch."""
CALL_SECONDS, TRANSFER_SECONDS = 60.0, 3600.0
AGAIN_SECONDS = (0.5, 2.0, 8.0)
"""How long is waited before a call that changes nothing is made again."""
PAGES, PAGE = 10, 100
READ_BYTES = 2**20
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
MISSING = frozenset({404, 405, 501})

Told = TypeVar("Told")


class BatchesMissing(Exception):
    """The server has no batches. It never leaves who asked."""


@dataclass(frozen=True, slots=True)
class BatchState:
    """How a batch stands. ``files`` hold what came of it, as far as there is something; ``why`` is what went wrong with
    all of it, ``code`` the provider's word for that."""

    batch_id: str
    status: str
    files: tuple[str, ...] = ()
    done: int = 0
    why: str = ""
    code: str = ""

    @property
    def is_over(self) -> bool:
        return self.status in ENDED


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """What came of one call: what the model said, or why it did not, by an HTTP status (None: it never was asked) or
    because the ``error`` says so. ``paid``: it may have cost something."""

    call: str
    found: Completion | None
    status: int | None = None
    error: str = ""
    paid: bool = False


class BatchWire:
    """Build it inside a running event loop, and close it. All methods raise as ``Upstream`` says."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())

    async def close(self) -> None:
        await self._session.close()

    async def upload(self, backend: Backend, content: bytes) -> str:
        """The name of a file of requests there. Raises BatchesMissing where the server takes none."""

        async def send() -> dict[str, Any]:
            form = aiohttp.FormData({"purpose": "batch"})
            form.add_field("file", content, filename="batch.jsonl", content_type="application/jsonl")
            return await self._ask("POST", backend, "/files", data=form, seconds=TRANSFER_SECONDS)

        try:
            return _name(backend, await _again(send))
        except UpstreamUnusable as e:
            if e.status in MISSING:
                raise BatchesMissing from e
            raise
        except UpstreamRefused as e:
            if e.reply_status in MISSING:
                raise BatchesMissing from e
            raise

    async def make(self, backend: Backend, file: str, name: str) -> BatchState:
        """Hands the file over, once. ``name`` is ours, by which it is found again."""
        body = {
            "input_file_id": file,
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {"locum": name},
        }
        return _batch(backend, await self._ask("POST", backend, "/batches", json=body))

    async def look(self, backend: Backend, batch_id: str) -> BatchState:
        """How it stands."""
        return _batch(backend, await _again(lambda: self._ask("GET", backend, f"/batches/{batch_id}")))

    async def cancel(self, backend: Backend, batch_id: str) -> None:
        """Asks for no more of it; what was answered stays to be had, and paid."""
        await self._ask("POST", backend, f"/batches/{batch_id}/cancel")

    async def find(self, backend: Backend, name: str) -> BatchState | None:
        """The batch that was made by this name; None where the last thousand have none."""
        after = ""
        for _ in range(PAGES):
            path = f"/batches?limit={PAGE}{after}"
            listed = await _again(lambda path=path: self._ask("GET", backend, path))  # type: ignore[misc]
            data = [one for one in listed.get("data") or () if isinstance(one, dict)]
            for one in data:
                if (one.get("metadata") or {}).get("locum") == name:
                    return _batch(backend, one)
            if not listed.get("has_more") or not data:
                return None
            after = f"&after={data[-1].get('id')}"
        return None

    async def download(self, backend: Backend, file: str, to: Path) -> None:
        """The file there, whole, as a file here."""

        async def fetch() -> None:
            try:
                async with self._request("GET", backend, f"/files/{file}/content", TRANSFER_SECONDS) as response:
                    if not 200 <= response.status < 300:
                        raise fault(backend, response.status, await response.content.read(READ_BYTES), response.headers)
                    with to.open("wb") as out:
                        async for piece in response.content.iter_chunked(READ_BYTES):
                            out.write(piece)
            except FAILURES as e:
                raise named_failure(backend, e) from e

        await _again(fetch)

    async def _ask(
        self, method: str, backend: Backend, path: str, *, seconds: float = CALL_SECONDS, **more: Any
    ) -> dict[str, Any]:
        try:
            async with self._request(method, backend, path, seconds, **more) as response:
                content = await response.content.read(READ_BYTES)
                while len(content) < READ_BYTES and (piece := await response.content.read(READ_BYTES)):
                    content += piece
        except FAILURES as e:
            raise named_failure(backend, e) from e
        if not 200 <= response.status < 300:
            raise fault(backend, response.status, content, response.headers)
        return _object(backend, content)

    def _request(self, method: str, backend: Backend, path: str, seconds: float, **more: Any) -> Any:
        url = f"{(backend.url or '').rstrip('/')}{path}"
        headers = credentials(backend) if backend.key else {}
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS, sock_read=CALL_SECONDS)
        return self._session.request(
            method, url, headers=headers, timeout=timeout, allow_redirects=False, proxy=proxy_to(url), **more
        )


def request_line(call: str, backend: Backend, body: Mapping[str, Any]) -> bytes:
    """One request of a batch's file."""
    asked = {**body, "model": backend.model}
    return orjson.dumps({"custom_id": call, "method": "POST", "url": "/v1/chat/completions", "body": asked}) + b"\n"


def answers(backend: Backend, file: Path) -> Iterator[BatchAnswer]:
    """What a downloaded file tells; a line that cannot be read is of no call."""
    with file.open("rb") as lines:
        for line in lines:
            try:
                told = orjson.loads(line)
                call = told["custom_id"]
            except (orjson.JSONDecodeError, LookupError, TypeError):
                continue
            if isinstance(call, str):
                yield _answer(backend, call, told)


def _answer(backend: Backend, call: str, told: Mapping[str, Any]) -> BatchAnswer:
    response, error = told.get("response"), told.get("error")
    if not isinstance(response, dict):
        said = error.get("code") or error.get("message") if isinstance(error, dict) else None
        return BatchAnswer(call, None, None, str(said or "no answer"))
    status = response.get("status_code")
    status = status if isinstance(status, int) else 500
    body = orjson.dumps(response.get("body"))
    if not 200 <= status < 300:
        return BatchAnswer(call, None, status, str(fault(backend, status, body, {})))
    try:
        body = backend.without_key(body, answer=True)
        bound(backend, body)
        raise_error_in(backend, body)
        found = completion(backend, Reply(200, body))
    except (UpstreamError, UpstreamRefused) as e:
        return BatchAnswer(call, None, status, str(e), paid=True)
    if found.usage is not None and backend.price is not None:
        usage = replace(found.usage, service_tier=TIER)
        found = replace(found, usage=usage, usd=cost_usd(usage, backend.price))
    return BatchAnswer(call, found, status, paid=True)


async def _again(ask: Callable[[], Awaitable[Told]]) -> Told:
    """What changes nothing is asked again where that may help."""
    for seconds in AGAIN_SECONDS:
        try:
            return await ask()
        except UpstreamError as e:
            if not e.passing:
                raise
            await asyncio.sleep(min(CALL_SECONDS, max(seconds, e.wait_seconds or 0.0)))
    return await ask()


def _object(backend: Backend, content: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise UpstreamError(f"{backend.label} told something of its batches that cannot be read")
    return found


def _name(backend: Backend, told: Mapping[str, Any]) -> str:
    if not isinstance(name := told.get("id"), str) or not name:
        raise UpstreamError(f"{backend.label} told no name of a file or a batch")
    return name


def _batch(backend: Backend, told: Mapping[str, Any]) -> BatchState:
    counts, errors = told.get("request_counts"), told.get("errors")
    listed = errors.get("data") if isinstance(errors, dict) else None
    first = next((e for e in listed or () if isinstance(e, dict)), {})
    done = counts.get("completed") if isinstance(counts, dict) else 0
    files = tuple(f for key in ("output_file_id", "error_file_id") if isinstance(f := told.get(key), str) and f)
    return BatchState(
        _name(backend, told),
        str(told.get("status")),
        files,
        done if isinstance(done, int) else 0,
        without_secrets(backend, str(first.get("message") or "").encode()).decode("utf-8", "replace"),
        str(first.get("code") or ""),
    )

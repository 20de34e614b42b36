"""Every provider that does not speak OpenAI's wire, translated by litellm. The only module that imports it.

litellm costs 2.5 s and 2,700 modules to import and 3.5 ms of CPU per answer, so it is loaded at the
first request that needs it, in a thread, and is never on a path that does not.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import orjson

from router.errors import UpstreamError, UpstreamRateLimited, UpstreamRefused, UpstreamTimeout, UpstreamUnreachable
from router.upstream.base import Backend, Reply, Waited

JSON = ((b"content-type", b"application/json"),)

CHAT_ONLY = {"_skip_mcp_handler": True}
"""Of the tools' own protocol: with any tool at all litellm would import what is not here. For embeddings it
would send this on to the provider."""


class LiteLLMWire:
    """Asks any litellm model string (``anthropic/claude-opus-4-5``) and answers in OpenAI's form."""

    async def complete(self, backend: Backend, body: Mapping[str, Any], waited: Waited) -> Reply:
        litellm = await _load()
        with _translated(litellm, backend), waited:
            answer = await litellm.acompletion(**_arguments(backend, body), **CHAT_ONLY, stream=False)
        return Reply(200, orjson.dumps(answer.model_dump(exclude_none=True)), JSON)

    async def embed(self, backend: Backend, body: Mapping[str, Any], waited: Waited) -> Reply:
        litellm = await _load()
        with _translated(litellm, backend), waited:
            answer = await litellm.aembedding(**_arguments(backend, body))
        return Reply(200, orjson.dumps(answer.model_dump(exclude_none=True)), JSON)

    async def open(self, backend: Backend, body: Mapping[str, Any], waited: Waited) -> LiteLLMStream:
        litellm = await _load()
        with _translated(litellm, backend), waited:
            chunks = await litellm.acompletion(**_arguments(backend, body), **CHAT_ONLY, stream=True)
        return LiteLLMStream(litellm, backend, chunks, waited)

    async def close(self) -> None:
        """litellm keeps its own clients; they end with the process."""


def _arguments(backend: Backend, body: Mapping[str, Any]) -> dict[str, Any]:
    """Unknown fields go along as they are; ``drop_params`` lets a provider lack what OpenAI has."""
    rest = {k: v for k, v in body.items() if k not in ("stream", "metadata", "store")}
    own = {"model": backend.model, "timeout": backend.timeout_seconds, "num_retries": 0, "drop_params": True}
    return rest | own | ({"api_key": backend.key} if backend.key else {})


class LiteLLMStream:
    """A streamed answer under way (``router.upstream.base.Stream``), each chunk written as an event again."""

    def __init__(self, litellm: Any, backend: Backend, chunks: Any, waited: Waited) -> None:
        self._litellm, self._backend, self._chunks, self._waited = litellm, backend, chunks, waited
        self._iterator = aiter(chunks)
        self._done = False

    async def read(self) -> bytes:
        if self._done:
            return b""
        with _translated(self._litellm, self._backend), self._waited:
            try:
                chunk = await anext(self._iterator)
            except StopAsyncIteration:
                self._done = True
                return b"data: [DONE]\n\n"
        return b"data: " + orjson.dumps(chunk.model_dump(exclude_none=True)) + b"\n\n"

    async def close(self, *, done: bool = False) -> None:
        await self._chunks.aclose()


async def _load() -> Any:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # otherwise importing it downloads a map
    return await asyncio.to_thread(_import)


def _import() -> Any:
    import litellm  # noqa: PLC0415

    litellm.suppress_debug_info = True
    litellm.telemetry = False
    return litellm


@contextmanager
def _translated(litellm: Any, backend: Backend) -> Iterator[None]:
    """Turns litellm's exceptions into ours; only a refusal's own words are kept."""
    errors = litellm.exceptions
    try:
        yield
    except (errors.AuthenticationError, errors.PermissionDeniedError) as e:
        if isinstance(e, errors.PermissionDeniedError) and "logprobs" in e.message:  # of the request, as OpenAI has it
            raise _refused(backend, e) from e
        raise UpstreamError(f"{backend.label} refused the proxy's own credentials") from e
    except errors.RateLimitError as e:
        raise UpstreamRateLimited(f"{backend.label} is rate-limited (429)") from e
    except errors.Timeout as e:
        raise UpstreamTimeout(f"{backend.label} did not answer within {backend.timeout_seconds:g} s") from e
    except errors.APIConnectionError as e:  # also what litellm calls an answer that it cannot translate
        raise UpstreamUnreachable(f"{backend.label} cannot be reached through litellm") from e
    except (errors.BadRequestError, errors.NotFoundError, errors.UnprocessableEntityError) as e:
        raise _refused(backend, e) from e
    except errors.openai.OpenAIError as e:  # the root of what litellm raises; its own ``OpenAIError`` is not
        raise UpstreamError(f"{backend.label} failed ({type(e).__name__})") from e


def _refused(backend: Backend, error: Any) -> UpstreamRefused:
    body = {"message": error.message, "type": "invalid_request_error", "param": None, "code": None}
    return UpstreamRefused(
        f"{backend.label} refused the request ({error.status_code})",
        reply_status=error.status_code,
        reply_body=orjson.dumps({"error": body}),
        reply_headers=JSON,
    )

"""Every provider that does not speak OpenAI's wire, translated by litellm. The only module that imports it.

litellm costs 2.5 s and 2,700 modules to import and 3.5 ms of CPU per answer, so it is loaded at the
first request that needs it, in a thread, and is never on a path that does not.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, NoReturn

import orjson

from router.backends.base import Backend, Pairs, Reply, WaitingTime, passed_on
from router.backends.events import LONGEST_EVENT_BYTES, LONGEST_UNPACKED_BYTES
from router.backends.faults import JSON, fault, too_long, unable
from router.backends.fields import EMBEDDINGS, allowed, chat, foreign_part, foreign_tool, remote_media, stored_input
from router.errors import (
    LocumError,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnable,
    UpstreamUnreachable,
    UpstreamUnusable,
)

CHAT_ONLY = {"_skip_mcp_handler": True}
"""Of the tools' own protocol: with any tool at all litellm would import what is not here. For embeddings it
would send this on to the provider."""
CLOSE_SECONDS = 1.0
MARKED = "anthropic", "claude"
"""What models are called that take marks for the prompt cache where they stand, whoever runs them."""
OPENS_FILES = "gemini/", "vertex_ai/"
UNREADABLE = 422
UNREACHED = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "ConnectionRefusedError"})
BROKEN = frozenset({"ReadError", "WriteError", "CloseError", "RemoteProtocolError", "ConnectionResetError"})
"""What httpx and Python call a connection that was never there, and one that broke."""
OFFLINE = {"LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
"""Otherwise importing it, or the first request, downloads what comes with it."""
_CODE = re.compile(r"[\"']code[\"']:\s*[\"']([A-Za-z_]+)[\"']")
_KEY_IN_URL = re.compile(r"([?&](?:key|api[_-]?key|access_token|token)=)[^&\s\"']+", re.IGNORECASE)


class LiteLLMWire:
    """Asks any litellm model string (``anthropic/claude-opus-4-5``) and answers in OpenAI's form. What litellm is told
    is the policy's and what ``router.backends.fields`` lets through of the client's; it fetches nothing itself.

    Its own limit of time does not hold for every provider, so ``backend.timeout_seconds`` bounds each wait here too,
    with ``first_seconds`` more until a backend has answered: litellm loads what belongs to a provider when it is
    first asked.
    """

    def __init__(self, first_seconds: float = 30.0) -> None:
        self._first_seconds = first_seconds
        self._met: set[str] = set()

    async def complete(self, backend: Backend, body: Mapping[str, Any], waited: WaitingTime) -> Reply:
        litellm, asked = await _load(), _chat(backend, body)
        async with self._first(litellm, backend, body, waited):
            answer = await litellm.acompletion(**asked, stream=False)
        return _reply(backend, answer)

    async def embed(self, backend: Backend, body: Mapping[str, Any], waited: WaitingTime) -> Reply:
        litellm, asked = await _load(), _embeddings(backend, body)
        async with self._first(litellm, backend, body, waited):
            answer = await litellm.aembedding(**asked)
        return _reply(backend, answer)

    async def open(self, backend: Backend, body: Mapping[str, Any], waited: WaitingTime) -> LiteLLMStream:
        litellm, asked = await _load(), _chat(backend, body)
        async with self._first(litellm, backend, body, waited):
            chunks = await litellm.acompletion(**asked, stream=True)
            return LiteLLMStream(litellm, backend, body, chunks, waited)

    @asynccontextmanager
    async def _first(
        self, litellm: Any, backend: Backend, body: Mapping[str, Any], waited: WaitingTime
    ) -> AsyncIterator[None]:
        more_seconds = 0.0 if backend.name in self._met else self._first_seconds
        async with _translated(litellm, backend, body, waited, more_seconds):
            yield
        self._met.add(backend.name)

    async def close(self) -> None:
        """litellm keeps its own clients; they end with the process."""


def _chat(backend: Backend, body: Mapping[str, Any]) -> dict[str, Any]:
    """Raises UpstreamUnable where the request asks for what would act for the proxy's account at the provider."""
    if (at := foreign_tool(body)) is not None:
        raise unable(f"{backend.label} is given tools of the types function and custom only, which the client runs", at)
    if (at := remote_media(body, beyond_web=True)) is not None:
        why = "is given images and files as data: URLs, or https: URLs on the open web, only"
        raise unable(f"{backend.label} {why}", at)
    if (at := foreign_part(body)) is not None:
        raise unable(f"{backend.label} is given no content of this type", at)
    marks = any(name in backend.model.lower() for name in MARKED)
    return _arguments(backend, chat(body, marks=marks)) | CHAT_ONLY


def _embeddings(backend: Backend, body: Mapping[str, Any]) -> dict[str, Any]:
    """Raises UpstreamUnable where a file is named that the proxy's account might reach."""
    if backend.model.startswith(OPENS_FILES) and (at := stored_input(body)) is not None:
        raise unable(f"{backend.label} is given texts only", at)
    return _arguments(backend, allowed(body, EMBEDDINGS))


def _arguments(backend: Backend, asked: Mapping[str, Any]) -> dict[str, Any]:
    """``drop_params`` lets a provider lack what OpenAI has.

    Raises:
        UpstreamUnusable: the key that the policy names is not there; litellm would look for another one.
    """
    if backend.lacks_key:
        why = f"{backend.label} has no key: the environment lacks the one that the policy names"
        raise UpstreamUnusable(why, status=502)
    own = {"model": backend.model, "timeout": backend.timeout_seconds, "num_retries": 0, "max_retries": 0}
    return dict(asked) | own | {"drop_params": True} | ({"api_key": backend.key} if backend.key else {})


def _reply(backend: Backend, answer: Any) -> Reply:
    content = backend.without_key(orjson.dumps(answer.model_dump(exclude_none=True)), answer=True)
    if len(content) > LONGEST_EVENT_BYTES:
        raise too_long(backend, f"{LONGEST_EVENT_BYTES} bytes")
    return Reply(200, content, JSON + _passed_on(backend, answer))


def _passed_on(backend: Backend, answer: Any) -> Pairs:
    """The provider's own headers, which litellm keeps beside an answer: some under OpenAI's names, all under a prefix
    of its own."""
    hidden = getattr(answer, "_hidden_params", None)
    kept = hidden.get("additional_headers") if isinstance(hidden, dict) else None
    found = {k.removeprefix("llm_provider-"): v for k, v in kept.items()} if isinstance(kept, dict) else {}
    return passed_on(backend, ((k.encode(), str(v).encode()) for k, v in found.items()))


class LiteLLMStream:
    """A streamed answer under way (``router.backends.base.Stream``), each chunk written as an event again."""

    def __init__(
        self, litellm: Any, backend: Backend, body: Mapping[str, Any], chunks: Any, waited: WaitingTime
    ) -> None:
        self._litellm, self._backend, self._body, self._waited = litellm, backend, body, waited
        self._chunks, self._iterator, self.headers = chunks, aiter(chunks), _passed_on(backend, chunks)
        self._begun = self._done = self._said = False
        self._size = 0

    async def read(self) -> bytes:
        if self._done:
            return b""
        try:
            async with _translated(self._litellm, self._backend, self._body, self._waited):
                chunk = await anext(self._iterator, None)
                event = b"[DONE]" if chunk is None else orjson.dumps(chunk.model_dump(exclude_none=True))
        except UpstreamRefused as e:
            if not self._begun:
                raise
            raise UpstreamError(f"{self._backend.label} broke off its answer") from e  # too late to refuse anything
        self._size += len(event)
        for size, most in ((len(event), LONGEST_EVENT_BYTES), (self._size, LONGEST_UNPACKED_BYTES)):
            if size > most:
                raise too_long(self._backend, f"{most} bytes")
        if chunk is not None and self._is_made_up(chunk):
            raise UpstreamError(f"{self._backend.label} ended its stream in the middle")
        if chunk is not None and self._ends_unsaid(chunk):
            raise UpstreamError(f"{self._backend.label} ended its stream before it said anything")
        self._begun, self._done = True, chunk is None
        return b"data: " + event + b"\n\n"

    def _is_made_up(self, chunk: Any) -> bool:
        """Whether litellm says that the answer is finished where the provider did not: its stream was cut, or none."""
        told = [getattr(self._chunks, f"{when}_finish_reason", "unknown") for when in ("received", "intermittent")]
        return not any(told) and any(getattr(choice, "finish_reason", None) for choice in chunk.choices)

    def _ends_unsaid(self, chunk: Any) -> bool:
        """Whether the answer is over and nothing was said. litellm makes such an end of a bare ``[DONE]``, and nothing
        tells that from a provider's own."""
        deltas = [(c.finish_reason, c.delta.model_dump(exclude_none=True)) for c in chunk.choices if c.delta]
        self._said = self._said or any(value for _, delta in deltas for name, value in delta.items() if name != "role")
        return not self._said and any(reason == "stop" for reason, _ in deltas)

    async def close(self, *, done: bool = False) -> None:
        with suppress(Exception):  # whatever litellm finds to say against it: nobody reads on
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._chunks.aclose()


async def _load() -> Any:
    for name, value in OFFLINE.items():
        os.environ.setdefault(name, value)
    return await asyncio.to_thread(_import)


def _import() -> Any:
    import litellm
    from litellm.litellm_core_utils import url_utils

    litellm.suppress_debug_info = True
    litellm.telemetry = False
    litellm.user_url_validation = True
    url_utils.validate_url = _fetches_nothing  # whatever a message names, and for whichever provider, goes through it
    return litellm


def _fetches_nothing(url: str, *_: Any, **__: Any) -> NoReturn:
    from litellm.litellm_core_utils.url_utils import SSRFError

    raise SSRFError("nothing that a message names is fetched")


@asynccontextmanager
async def _translated(
    litellm: Any, backend: Backend, body: Mapping[str, Any], waited: WaitingTime, more_seconds: float = 0.0
) -> AsyncIterator[None]:
    """One wait for litellm. Whatever it raises is an upstream's error: half of its providers' code raises what Python
    raises by itself (a KeyError, where an answer is other than was thought), so all is caught here."""
    try:
        with waited:
            async with asyncio.timeout(backend.timeout_seconds + more_seconds):
                yield
    except Exception as e:  # noqa: BLE001  (litellm raises what it likes, and this is where that ends)
        beneath = e if _is_turned_away(e) else ValueError(type(e).__name__)  # of no status, since it may be paid for
        raise _ours(litellm, backend, body, e) from beneath


def _ours(litellm: Any, backend: Backend, body: Mapping[str, Any], error: Exception) -> LocumError:
    """One of litellm's exceptions as ours; only a refusal's own words are kept."""
    errors, named = litellm.exceptions, backend.label
    if isinstance(error, errors.ImageFetchError) or "nothing that a message names is fetched" in str(error):
        at = remote_media(body) or "messages"
        return unable(f"{named} takes images and files as data: URLs only; nothing is fetched for it", at)
    if isinstance(error, errors.Timeout | TimeoutError):
        return UpstreamTimeout(f"{named} did not answer within {backend.timeout_seconds:g} s")
    if isinstance(error, errors.APIConnectionError):  # also what litellm calls an answer that it cannot translate
        if _is_turned_away(error) or any(type(e).__name__ in BROKEN for e in _chain(error)):
            return UpstreamUnreachable(f"{named} cannot be reached through litellm")
        return UpstreamError(f"{named} answered something that is no answer")
    status = getattr(error, "status_code", None)
    if not isinstance(error, errors.openai.OpenAIError) or not isinstance(status, int) or not 300 <= status < 600:
        return UpstreamError(f"{named} failed ({type(error).__name__})")
    return _by_status(litellm, backend, error, status)


def _by_status(litellm: Any, backend: Backend, error: Any, status: int) -> LocumError:
    found = fault(backend, status, _words(backend, error), _headers(error))
    if isinstance(found, UpstreamRefused) and _is_unreadable(error, status):
        return UpstreamError(f"{backend.label} answered something that is no answer")
    if type(found) is UpstreamRefused and isinstance(error, litellm.exceptions.ContextWindowExceededError):
        return UpstreamUnable(str(found), reply_status=status, reply_body=found.reply_body, reply_headers=JSON)
    return found


def _is_turned_away(error: BaseException) -> bool:
    """Whether the provider surely answered nothing that it bills: it was not reached, or refused by its status. litellm
    gives statuses of its own to whatever else went wrong, an answer that it cannot read among them."""
    for found in _chain(error):
        if type(found).__name__ in UNREACHED:
            return True
        status = getattr(getattr(found, "response", None), "status_code", None)
        if not _is_litellms(found) and isinstance(status, int) and status >= 300:
            return True
    return False


def _is_unreadable(error: BaseException, status: int) -> bool:
    """Whether a refusal is litellm's own word for an answer that it cannot read, and not the provider's: no refusal
    over HTTP began it. litellm says 422 then, or what Python raised while it read is beneath."""
    chain = list(_chain(error))
    answers = [getattr(e, "response", None) for e in chain if not _is_litellms(e)]
    if any(400 <= getattr(answer, "status_code", 0) < 500 for answer in answers):
        return False
    return status == UNREADABLE or not all(map(_is_litellms, chain))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_litellms(error: BaseException) -> bool:
    return type(error).__module__.startswith("litellm.")


def _words(backend: Backend, error: Any) -> bytes:
    """What the provider said, in OpenAI's form; a request's URL may stand in it, and in that a key."""
    text = _KEY_IN_URL.sub(r"\1...", str(error.message))
    code = _CODE.search(text)
    body = {"message": text, "type": "invalid_request_error", "param": None, "code": code and code[1]}
    return orjson.dumps({"error": body})


def _headers(error: Any) -> dict[str, str]:
    """The provider's own, wherever litellm left them."""
    places = getattr(error, "response", None), error
    told = [getattr(place, name, None) for place in places for name in ("headers", "litellm_response_headers")]
    pairs = [pair for headers in told if isinstance(headers, Mapping) for pair in headers.items()]
    return {str(name).lower().removeprefix("llm_provider-"): str(value) for name, value in pairs}

"""What of a request leaves through litellm: the fields that OpenAI's API knows, and none that says how to ask.

To litellm one body says both what is asked and where, with which key, through what and instead of what. So it gets
what is named here and nothing else. Where a backend has a ``url``, its server decides for itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import structlog

log = structlog.get_logger(__name__)

CHAT = frozenset(
    {
        "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "max_completion_tokens",
        "max_tokens", "messages", "modalities", "n", "parallel_tool_calls", "prediction", "presence_penalty",
        "prompt_cache_key", "reasoning_effort", "response_format", "safety_identifier", "seed", "stop",
        "stream_options", "temperature", "thinking", "tool_choice", "tools", "top_k", "top_logprobs", "top_p", "user",
        "verbosity",
    }
)  # fmt: skip
"""OpenAI's chat fields, and ``thinking`` and ``top_k`` as Anthropic has them. ``metadata`` and ``store`` are for
OpenAI's own dashboard, and litellm reads the first; ``service_tier`` chooses a price."""

MESSAGE = frozenset(
    {
        "audio", "cache_control", "content", "extra_content", "function_call", "name", "prefix", "reasoning",
        "provider_specific_fields", "reasoning_content", "reasoning_details", "refusal", "role", "thinking_blocks",
        "tool_call_id", "tool_calls",
    }
)  # fmt: skip
"""Of a message: OpenAI's, and what providers write into their answers and want back. litellm knows more places where
a message may have images and documents in it."""

PARTS = frozenset(
    {
        "audio_url", "file", "image_url", "input_audio", "reasoning", "redacted_thinking", "refusal", "text",
        "thinking", "video_url",
    }
)  # fmt: skip
"""Types of a content's parts: what is in the request, and no call of a tool that the provider ran."""

PART = PARTS | {"cache_control", "data", "signature", "type"}

SIGNED = frozenset({"citations", "thinking_blocks", "thought_signature", "thought_signatures"})
"""Of ``provider_specific_fields``. Elsewhere in it litellm looks for what the provider's own tools did."""

TOOL = frozenset({"cache_control", "custom", "function", "type"})

EMBEDDINGS = frozenset({"dimensions", "encoding_format", "input", "input_type", "user"})
"""OpenAI's, and ``input_type``, which several others need."""

TOOLS = frozenset({"custom", "function"})
"""Tools that the client runs. What a provider runs acts for the proxy's account there, on what that may reach."""

_PLACES = frozenset({"data", "file_data", "file_id", "file_uri", "file_url", "image_url", "uri", "url", "video_url"})
_DEPTH = 6
_REMOTE = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://")
_WEB = re.compile(r"\s*https?://", re.IGNORECASE)
_OF_ACCOUNTS = ("anthropic.com", "googleapis.com", "openai.com", "storage.cloud.google.com")
"""How hosts end whose files a provider may open with the key of who asks, so for the proxy."""
_STORED = re.compile(r"\s*(gs://|files/|https?://[^/]*googleapis\.com)", re.IGNORECASE)
_SHOWN = 10


def allowed(body: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The fields that leave. What is left out is told in the log, at debug."""
    kept = {name: value for name, value in body.items() if name in known}
    if dropped := [n[:40] for n in body if n not in known and n not in ("model", "stream")]:
        log.debug("fields_dropped", fields=dropped[:_SHOWN])
    return kept


def chat(body: Mapping[str, Any], *, marks: bool) -> dict[str, Any]:
    """The chat request that leaves, and of its messages and tools the same. ``marks``: the model takes marks for the
    prompt cache; for others litellm would make a cache of its own at the provider, which is paid for by the hour."""
    kept = allowed(body, CHAT)
    if isinstance(messages := kept.get("messages"), list):
        without = frozenset() if marks else frozenset({"cache_control"})
        kept["messages"] = [_message(m, without) if isinstance(m, dict) else m for m in messages]
    if isinstance(tools := kept.get("tools"), list):
        kept["tools"] = [_only(tool, TOOL) if isinstance(tool, dict) else tool for tool in tools]
    return kept


def _message(message: Mapping[str, Any], without: frozenset[str]) -> dict[str, Any]:
    kept = _only(message, MESSAGE - without)
    if isinstance(content := kept.get("content"), list):
        kept["content"] = [_only(part, PART - without) if isinstance(part, dict) else part for part in content]
    if isinstance(signed := kept.get("provider_specific_fields"), dict):
        kept["provider_specific_fields"] = _only(signed, SIGNED)
    return kept


def _only(value: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    return {name: inner for name, inner in value.items() if name in known}


def foreign_tool(body: Mapping[str, Any]) -> str | None:
    """Where the first tool is that the client would not run itself; None: there is none."""
    if body.get("web_search_options") is not None:
        return "web_search_options"
    tools = body.get("tools")
    for n, tool in enumerate(tools if isinstance(tools, list) else ()):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if not isinstance(kind, str) or kind not in TOOLS or tool.get(kind) is None:
            return f"tools[{n}]"
    return None


def foreign_part(body: Mapping[str, Any]) -> str | None:
    """Where the first part of a message is whose type is not one of ``PARTS``; None: there is none."""
    for where, part in _parts(body):
        kind = part.get("type") if isinstance(part, dict) else "text"
        if not isinstance(kind, str) or kind not in PARTS:
            return where
    return None


def remote_media(body: Mapping[str, Any], *, beyond_web: bool = False) -> str | None:
    """Where the first image, sound or file is that is somewhere else instead of in the request; None: there is none.
    ``beyond_web``: leaving out what is on the open web, so what the proxy's account alone might reach."""
    for where, part in _parts(body):
        for name, place in _places(part, _DEPTH):
            if _is_stored(name, place) or (_REMOTE.match(place) and not (beyond_web and _WEB.match(place))):
                return where
    return None


def stored_input(body: Mapping[str, Any]) -> str | None:
    """Where an embeddings request names a file instead of a text: Google's models open it; None: it does not."""
    given = body.get("input")
    texts = given if isinstance(given, list) else [given]
    return "input" if any(isinstance(t, str) and _STORED.match(t) for t in texts) else None


def _parts(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(where it is, a part) of every message."""
    messages = body.get("messages")
    for n, message in enumerate(messages if isinstance(messages, list) else ()):
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, dict):
            yield f"messages[{n}].content", content
        for k, part in enumerate(content if isinstance(content, list) else ()):
            yield f"messages[{n}].content[{k}]", part


def _is_stored(name: str, place: str) -> bool:
    """Whether it lies with the provider, in somebody's account."""
    if name == "file_id" or "gs://" in place.lower():
        return True
    if not _WEB.match(place):
        return False
    try:
        host = urlsplit(place.strip()).hostname or ""
    except ValueError:
        return True
    return host.rstrip(".").endswith(_OF_ACCOUNTS)


def _places(part: Any, depth: int) -> Iterator[tuple[str, str]]:
    """Where a part of a message says that something is, and the field that says it."""
    for name, value in part.items() if isinstance(part, dict) else ():
        if isinstance(value, str):
            if name in _PLACES:
                yield name, value
        elif depth:
            for inner in value if isinstance(value, list) else (value,):
                yield from _places(inner, depth - 1)

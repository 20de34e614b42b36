"""What of a request leaves through litellm: the fields that OpenAI's API knows, and none that says how to ask.

To litellm one body says both what is asked and where, with which key, through what and instead of what. So it gets
what is named here and nothing else. Where a backend has a ``url``, its server decides for itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import structlog

log = structlog.get_logger(__name__)

CHAT = frozenset(
    {
        "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "max_completion_tokens",
        "max_tokens", "messages", "modalities", "n", "parallel_tool_calls", "prediction", "presence_penalty",
        "prompt_cache_key", "reasoning_effort", "response_format", "safety_identifier", "seed", "service_tier", "stop",
        "stream_options", "temperature", "thinking", "tool_choice", "tools", "top_k", "top_logprobs", "top_p", "user",
        "verbosity", "web_search_options",
    }
)  # fmt: skip
"""OpenAI's chat fields, and ``thinking`` and ``top_k`` as Anthropic has them. ``metadata`` and ``store`` are for
OpenAI's own dashboard, and litellm reads the first."""

EMBEDDINGS = frozenset({"dimensions", "encoding_format", "input", "input_type", "user"})
"""OpenAI's, and ``input_type``, which several others need."""

TOOLS = frozenset({"custom", "function"})
"""Tools that the client runs. What a provider runs acts for the proxy's account there, on what that may reach."""

_PLACES = frozenset({"data", "file_data", "file_id", "file_uri", "file_url", "image_url", "uri", "url", "video_url"})
_DEPTH = 6
_REMOTE = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://")
_WEB = re.compile(r"\s*https?://", re.IGNORECASE)
_SHOWN = 10


def allowed(body: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The fields that leave. What is left out is told in the log, at debug."""
    kept = {name: value for name, value in body.items() if name in known}
    if dropped := [n[:40] for n in body if n not in known and n not in ("model", "stream")]:
        log.debug("fields_dropped", fields=dropped[:_SHOWN])
    return kept


def foreign_tool(body: Mapping[str, Any]) -> str | None:
    """Where the first tool is that the client would not run itself; None: there is none."""
    tools = body.get("tools")
    for n, tool in enumerate(tools if isinstance(tools, list) else ()):
        if not isinstance(tool, dict) or tool.get("type") not in TOOLS:
            return f"tools[{n}]"
    return None


def remote_media(body: Mapping[str, Any], *, beyond_web: bool = False) -> str | None:
    """Where the first image, sound or file is that is somewhere else instead of in the request; None: there is none.
    ``beyond_web``: leaving out what is on the open web, so what the proxy's account alone might reach."""
    messages = body.get("messages")
    for n, message in enumerate(messages if isinstance(messages, list) else ()):
        content = message.get("content") if isinstance(message, dict) else None
        for k, part in enumerate(content if isinstance(content, list) else ()):
            for place in _places(part, _DEPTH):
                if _REMOTE.match(place) and not (beyond_web and _WEB.match(place)):
                    return f"messages[{n}].content[{k}]"
    return None


def _places(part: Any, depth: int) -> Iterator[str]:
    """Where a part of a message says that something is."""
    for name, value in part.items() if isinstance(part, dict) else ():
        if isinstance(value, str):
            if name in _PLACES:
                yield value
        elif depth:
            for inner in value if isinstance(value, list) else (value,):
                yield from _places(inner, depth - 1)

"""A Responses request as a chat request, and what of it the response repeats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.errors import BadRequest
from router.wire.body import model_of

OWN = frozenset(
    {
        "background", "context_management", "conversation", "include", "input", "instructions", "max_output_tokens",
        "max_tool_calls", "parallel_tool_calls", "previous_response_id", "prompt", "reasoning", "store",
        "stream_options", "text", "tool_choice", "tools", "top_logprobs", "truncation",
    }
)  # fmt: skip
"""Fields that chat has not, or has in another form; all others go along as they came. ``store`` asks this
proxy to keep the response, and no one else."""

LOGPROBS = "message.output_text.logprobs"

TYPES: Mapping[str, type] = {
    "include": list,
    "instructions": str,
    "metadata": dict,
    "previous_response_id": str,
    "reasoning": dict,
    "store": bool,
    "stream": bool,
    "stream_options": dict,
    "text": dict,
    "tools": list,
}
"""What a field must be where it is given, as far as the proxy itself relies on it."""

ELSEWHERE = {
    "background": "responses are answered at once here; leave 'background' out, or set it to false",
    "context_management": "what is left out of a long conversation is the client's to say here",
    "conversation": "conversations are kept by 'previous_response_id' here, not as objects of their own",
    "prompt": "prompt templates are kept by their provider; send the prompt's text as 'input' and 'instructions'",
}
"""What only a provider's own server can do, and what to do instead."""


def check(body: Mapping[str, Any]) -> None:
    """Raises BadRequest where the request is none, or asks for what this proxy cannot give."""
    model_of(dict(body))
    for name, kind in TYPES.items():
        if not isinstance(body.get(name), kind | None):
            article = {bool: "true or false", str: "a string", list: "a list", dict: "an object"}[kind]
            raise BadRequest(f"'{name}' must be {article}", param=name)
    for name, why in ELSEWHERE.items():
        if body.get(name):
            raise BadRequest(why, param=name)
    if body.get("input") is None:
        raise BadRequest("'input' must be given, as a string or a list of items", param="input")


def chat_body(body: Mapping[str, Any], messages: list[dict[str, Any]], tools: Mapping[str, Any]) -> dict[str, Any]:
    """The chat request, whose ``messages`` are ready but for this request's instructions, and its ``tools``.

    Raises:
        BadRequest: the text's form is one that chat has not.
    """
    chat = {k: v for k, v in body.items() if k not in OWN}
    instructions = body.get("instructions")
    chat["messages"] = [*([{"role": "system", "content": instructions}] if instructions else []), *messages]
    if not chat["messages"]:
        raise BadRequest("'input' must hold at least one item", param="input")
    if body.get("stream"):
        chat["stream_options"] = {"include_usage": True}
    text, reasoning = body.get("text") or {}, body.get("reasoning") or {}
    moved = {
        "max_completion_tokens": body.get("max_output_tokens"),
        "reasoning_effort": reasoning.get("effort"),
        "verbosity": text.get("verbosity"),
        "response_format": _response_format(text.get("format")),
        **tools,
    }
    if wants_logprobs(body):
        moved |= {"logprobs": True, "top_logprobs": body.get("top_logprobs")}
    return chat | {k: v for k, v in moved.items() if v is not None}


def wants_logprobs(body: Mapping[str, Any]) -> bool:
    return LOGPROBS in (body.get("include") or []) or bool(body.get("top_logprobs"))


def _response_format(form: Any) -> dict[str, Any] | None:
    """Chat's ``response_format``: the same, with a schema's name and body one level deeper."""
    kind = form.get("type") if isinstance(form, dict) else None
    if form is None or kind == "text":
        return None
    if kind == "json_object":
        return {"type": "json_object"}
    if kind != "json_schema":
        raise BadRequest("'text.format.type' must be text, json_object or json_schema", param="text.format.type")
    return {"type": "json_schema", "json_schema": {k: v for k, v in form.items() if k != "type" and v is not None}}


def echo(body: Mapping[str, Any]) -> dict[str, Any]:
    """What a response repeats of its request. What was not asked for is null, not a guess at the backend's
    default; ``truncation`` is what is truly done."""
    text = body.get("text") or {}
    return {
        "background": False,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "max_tool_calls": body.get("max_tool_calls"),
        "metadata": body.get("metadata") or {},
        "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
        "previous_response_id": body.get("previous_response_id"),
        "prompt_cache_key": body.get("prompt_cache_key"),
        "reasoning": {"effort": None, "summary": None, **(body.get("reasoning") or {})},
        "safety_identifier": body.get("safety_identifier"),
        "service_tier": body.get("service_tier"),
        "temperature": body.get("temperature"),
        "text": {**text, "format": text.get("format") or {"type": "text"}},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "top_logprobs": body.get("top_logprobs"),
        "top_p": body.get("top_p"),
        "truncation": "disabled",
        "user": body.get("user"),
    }

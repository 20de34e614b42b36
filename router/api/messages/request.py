"""A Messages request as a chat-completions request."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from router.api.messages.turns import bad, messages_of
from router.api.sessions import user_and_session
from router.wire.body import model_of

READ = frozenset({
    "model", "messages", "system", "max_tokens", "stop_sequences", "stream", "metadata", "tools", "tool_choice",
    "thinking", "output_config", "output_format", "service_tier", "stream_options",
})  # fmt: skip
"""Fields that are translated."""

DROPPED = frozenset({
    "anthropic_beta", "anthropic_version", "betas", "billing_policy", "cache_control",
    "context_management", "diagnostics", "fallback_credit_token", "fallbacks", "inference_geo", "speed", "top_k",
    "user_profile_id", "workspace_id",
})  # fmt: skip
"""Fields that tune Anthropic's own servers and change nothing an answer means. ``top_k`` is among them since
OpenAI's API refuses it: with it the teacher would fail where the student answers."""

REFUSED = {
    "compaction": "conversations are compacted by Anthropic's servers only; ask for a summary in a message",
    "container": "code execution and skills run on Anthropic's servers only",
    "mcp_servers": "MCP servers are connected to by Anthropic's servers only; connect to them from the client",
    "thread": "threads are kept by Anthropic's servers only; send the whole conversation",
}
"""Fields that ask for what can be done on Anthropic's own servers only, and what to do instead."""

LOW_BUDGET_TOKENS, MEDIUM_BUDGET_TOKENS = 4_096, 16_384
"""Up to so many tokens of thinking are ``reasoning_effort`` low, or medium; more is high."""

MAX_USER_CHARS = 64

EFFORTS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}


def chat_of(body: Mapping[str, Any], *, counting: bool = False) -> dict[str, Any]:
    """The chat request that asks the same. ``counting``: nothing is to be answered, so no limit is needed.

    ``max_tokens`` becomes ``max_completion_tokens``: OpenAI's reasoning models refuse the older name. A
    stream asks for its usage, which Anthropic's streams always tell.

    Raises:
        BadRequest: something is malformed, or of a kind that chat requests cannot carry; the message says what.
    """
    chat = {k: v for k, v in body.items() if k not in READ and k not in DROPPED}
    for name, why in REFUSED.items():
        if chat.pop(name, None) and not counting:
            raise bad(name, why)
    chat |= {"model": model_of(dict(body)), "messages": messages_of(body)}
    if not counting:
        chat["max_completion_tokens"] = _limit(body.get("max_tokens"))
    if (stops := body.get("stop_sequences")) is not None:
        if not isinstance(stops, list) or not all(isinstance(s, str) for s in stops):
            raise bad("stop_sequences", "must be a list of strings")
        chat |= {"stop": stops} if stops else {}
    if body.get("service_tier") == "standard_only":
        chat["service_tier"] = "default"
    return chat | _stream(body) | _tools(body) | _effort(body) | _format(body) | _metadata(body)


def wants_thinking(body: Mapping[str, Any]) -> bool:
    """Whether the client asked to see the model's thinking."""
    thinking = body.get("thinking")
    if not isinstance(thinking, dict):
        return False
    return thinking.get("type") != "disabled" and thinking.get("display") != "omitted"


def _limit(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise bad("max_tokens", "must be given, as a whole number of at least 1")
    return value


def _stream(body: Mapping[str, Any]) -> dict[str, Any]:
    stream = body.get("stream")
    if not isinstance(stream, bool | None):
        raise bad("stream", "must be true or false")
    return {"stream": True, "stream_options": {"include_usage": True}} if stream else {}


def _tools(body: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    tools, choice = body.get("tools"), body.get("tool_choice")
    if tools is not None and not isinstance(tools, list):
        raise bad("tools", "must be a list of tools")
    if tools:
        found["tools"] = [_tool(tool, f"tools.{n}") for n, tool in enumerate(tools)]
    if choice is None:
        return found
    match choice:
        case {"type": "tool", "name": str(name)}:
            found["tool_choice"] = {"type": "function", "function": {"name": name}}
        case {"type": "auto" | "any" | "none" as kind}:
            found["tool_choice"] = "required" if kind == "any" else kind
        case _:
            raise bad("tool_choice", "must be an object of type 'auto', 'any', 'tool' (with a 'name') or 'none'")
    if choice.get("disable_parallel_tool_use"):
        found["parallel_tool_calls"] = False
    return found


def _tool(tool: Any, at: str) -> dict[str, Any]:
    """A tool of the client's own. Anthropic's built-in ones mean something to its models and servers only."""
    if not isinstance(tool, dict):
        raise bad(at, "must be an object")
    if tool.get("type") not in (None, "custom"):
        why = f"{tool['type']!r} is built into Anthropic's models or servers; only tools with an 'input_schema' work"
        raise bad(f"{at}.type", f"{why} here")
    if not isinstance(tool.get("name"), str) or not tool["name"]:
        raise bad(f"{at}.name", "must be given, as a string")
    if not isinstance(tool.get("input_schema"), dict):
        raise bad(f"{at}.input_schema", "must be a JSON schema, an object")
    kept = {k: tool[k] for k in ("description", "strict") if tool.get(k) is not None}
    return {"type": "function", "function": {"name": tool["name"], "parameters": tool["input_schema"], **kept}}


def _effort(body: Mapping[str, Any]) -> dict[str, Any]:
    """``reasoning_effort``: as ``output_config`` says, else by the budget for thinking; none where neither is
    given, since models that do not reason refuse it."""
    config, thinking = body.get("output_config"), body.get("thinking")
    effort = config.get("effort") if isinstance(config, dict) else None
    if effort is not None:
        if not isinstance(effort, str) or effort not in EFFORTS:
            raise bad("output_config.effort", f"must be one of {', '.join(EFFORTS)}")
        return {"reasoning_effort": EFFORTS[effort]}
    if thinking is not None and not isinstance(thinking, dict):
        raise bad("thinking", "must be an object")
    if not thinking or thinking.get("type") != "enabled":
        return {}
    budget = thinking.get("budget_tokens")
    if isinstance(budget, bool) or not isinstance(budget, int):
        raise bad("thinking.budget_tokens", "must be given, as a whole number")
    if budget > MEDIUM_BUDGET_TOKENS:
        return {"reasoning_effort": "high"}
    return {"reasoning_effort": "low" if budget <= LOW_BUDGET_TOKENS else "medium"}


def _format(body: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON schema that the answer must follow; ``output_format`` is the older place for it."""
    config = body.get("output_config")
    if config is not None and not isinstance(config, dict):
        raise bad("output_config", "must be an object")
    form, where = body.get("output_format"), "output_format"
    if config and config.get("format") is not None:
        form, where = config["format"], "output_config.format"
    if form is None:
        return {}
    if not isinstance(form, dict) or form.get("type") != "json_schema" or not isinstance(form.get("schema"), dict):
        raise bad(where, "must be an object of type 'json_schema' with a 'schema'")
    described: dict[str, Any] = {"name": "answer", "schema": form["schema"]}
    if is_closed(form["schema"]):
        described["strict"] = True
    return {"response_format": {"type": "json_schema", "json_schema": described}}


def is_closed(schema: Any) -> bool:
    """Whether OpenAI's strict mode takes this JSON schema: every object lists all that it may have, and needs
    all of it. Where it does not, a strict request would be refused."""
    todo = [schema]
    while todo:
        found = todo.pop()
        if isinstance(found, list):
            todo += found
        if not isinstance(found, dict):
            continue
        if found.get("type") == "object" or "properties" in found:
            names, needed = found.get("properties", {}), found.get("required", [])
            known = isinstance(names, dict) and isinstance(needed, list)
            if not known or found.get("additionalProperties") is not False or set(names) != set(map(str, needed)):
                return False
        todo += found.values()
    return True


def _metadata(body: Mapping[str, Any]) -> dict[str, Any]:
    """``user_id`` is the chat request's ``user``, less the session that Claude Code names in it; what else stands there
    is for the proxy's own rules. OpenAI refuses more than 64 characters: a digest stands for what is longer."""
    metadata = body.get("metadata")
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise bad("metadata", "must be an object")
    rest = {k: v for k, v in metadata.items() if k != "user_id"}
    user = metadata.get("user_id")
    if isinstance(user, str):
        user = user_and_session(user)[0]
    if isinstance(user, str) and len(user) > MAX_USER_CHARS:
        user = f"u-{hashlib.sha256(user.encode()).hexdigest()[:32]}"
    return ({"metadata": rest} if rest else {}) | ({"user": user} if user is not None else {})

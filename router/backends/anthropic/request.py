"""A chat request as a Messages request, for clients that speak anything but Anthropic's dialect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from router.backends.anthropic.models import (
    can_think,
    effort_of,
    longest_answer_tokens,
    takes_sampling,
    takes_schema,
    thinks_adaptively,
)
from router.backends.anthropic.passage import thinks_by_budget, unthought
from router.backends.anthropic.tools import choice_of, closed, tools_of
from router.backends.anthropic.turns import turns_of

BUDGETS = {"minimal": 1_024, "low": 2_048, "medium": 8_192, "high": 16_384, "xhigh": 24_576, "max": 30_000}
LEAST_BUDGET_TOKENS = 1_024
TIERS = {"default": "standard_only", "standard_only": "standard_only"}


def messages_body(body: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The request that asks the same of Claude. Fields that Anthropic has no like of are left out.

    Raises:
        UpstreamUnable: something in it cannot be said to Claude; the words say what.
    """
    system, turns = turns_of(body)
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    limit = limit if isinstance(limit, int) and limit > 0 else longest_answer_tokens(model)
    asked: dict[str, Any] = {"model": model, "max_tokens": limit, "messages": turns}
    tools = tools_of(body, turns)
    if tools:
        asked["tools"] = tools
        asked |= choice_of(body)
    if stops := _stops(body.get("stop")):
        asked["stop_sequences"] = stops
    if isinstance(user := body.get("user"), str):
        asked["metadata"] = {"user_id": user}
    if isinstance(tier := body.get("service_tier"), str) and tier in TIERS:
        asked["service_tier"] = TIERS[tier]
    if isinstance(mark := body.get("cache_control"), dict):
        asked["cache_control"] = mark
    asked |= _thinking(body, model, asked)
    asked |= _sampling(body, model, thinks="thinking" in asked)
    system += _format(body, model, asked)
    return asked | ({"system": system} if system else {})


def _stops(given: Any) -> list[str]:
    """Anthropic refuses those that are blank."""
    stops = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    return [s for s in stops if isinstance(s, str) and s.strip()]


def _thinking(body: Mapping[str, Any], model: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """As asked in Anthropic's own form, else by ``reasoning_effort``. None where Claude would refuse to: with a tool
    that it must call, inside a tool loop that began without, or where the answer may not be as long."""
    given, effort = body.get("thinking"), body.get("reasoning_effort")
    if isinstance(given, dict):
        found: dict[str, Any] = {"thinking": given}
    elif not isinstance(effort, str) or effort == "none" or not can_think(model):
        return {}
    elif thinks_adaptively(model):
        found = {
            "thinking": {"type": "adaptive", "display": "summarized"},
            "output_config": {"effort": effort_of(effort, model)},
        }
    else:
        budget = min(BUDGETS.get(effort, BUDGETS["medium"]), asked["max_tokens"] // 2)
        found = {"thinking": {"type": "enabled", "budget_tokens": budget}} if budget >= LEAST_BUDGET_TOKENS else {}
    must_call = asked.get("tool_choice", {}).get("type") in ("any", "tool")
    if must_call or (thinks_by_budget(found) and unthought(asked["messages"])):
        found.pop("thinking", None)
    return found


def _sampling(body: Mapping[str, Any], model: str, *, thinks: bool) -> dict[str, Any]:
    """Newer models refuse all of it, those before them two at once, and none takes it while it thinks."""
    if thinks or not takes_sampling(model):
        return {}
    found: dict[str, Any] = {}
    for name in ("temperature", "top_p"):
        value = body.get(name)
        if isinstance(value, int | float) and not found:
            found[name] = min(max(value, 0), 1)
    if isinstance(top_k := body.get("top_k"), int) and top_k > 0:
        found["top_k"] = top_k
    return found


def _format(body: Mapping[str, Any], model: str, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """The form that the answer must have: where the model takes a schema it goes into ``asked``, else it is said."""
    form = body.get("response_format")
    kind = form.get("type") if isinstance(form, dict) else None
    described = form.get("json_schema") if isinstance(form, dict) else None
    schema = described.get("schema") if isinstance(described, dict) else None
    if kind == "json_schema" and isinstance(schema, dict):
        if takes_schema(model):
            config = asked.get("output_config", {})
            asked["output_config"] = {**config, "format": {"type": "json_schema", "schema": closed(schema)}}
            return []
        return [_said(f"Answer with JSON alone, valid against this JSON schema: {orjson.dumps(schema).decode()}")]
    return [_said("Answer with a JSON object alone.")] if kind == "json_object" else []


def _said(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}

"""Tools of a chat request, what is asked about calling them, and schemas, as Anthropic has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from router.backends.faults import unable

ANYTHING: dict[str, Any] = {"type": "object", "properties": {}}
CHOICES = {"auto": "auto", "required": "any", "none": "none"}


def custom_tools(body: Mapping[str, Any]) -> list[str]:
    """The names of tools whose input is text, not JSON: Claude has none such, so an object stands for the text."""
    return [str(_inner(t, "custom").get("name")) for t in _listed(body.get("tools")) if _kind(t) == "custom"]


def tools_of(body: Mapping[str, Any], turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tools. Where turns call some and the request has none, they are named all the same: Claude refuses calls
    of tools that nobody described."""
    if body.get("functions"):
        raise unable("'functions' is nothing that can be said to Claude; use 'tools'", "functions")
    allowed = _allowed(body.get("tool_choice"))
    tools = [_tool(tool, f"tools[{n}]") for n, tool in enumerate(_listed(body.get("tools")))]
    if tools:
        return [t for t in tools if allowed is None or t["name"] in allowed]
    contents = (turn["content"] for turn in turns if isinstance(turn.get("content"), list))
    blocks = (block for content in contents for block in content)
    called = dict.fromkeys(b["name"] for b in blocks if b.get("type") == "tool_use")
    return [{"name": name, "input_schema": ANYTHING} for name in called]


def choice_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """``tool_choice``, where there is something to say."""
    if not body.get("tools"):
        return {"tool_choice": {"type": "none"}}
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        choice = _inner(choice, "allowed_tools").get("mode", "auto")
    found: dict[str, Any] = {}
    if isinstance(choice, str) and choice in CHOICES:
        found = {"type": CHOICES[choice]}
    elif isinstance(choice, dict) and _kind(choice) in ("function", "custom"):
        found = {"type": "tool", "name": _inner(choice, str(_kind(choice))).get("name")}
    if body.get("parallel_tool_calls") is False and found.get("type") != "none":
        found = {"type": "auto", **found, "disable_parallel_tool_use": True}
    return {"tool_choice": found} if found else {}


def _tool(tool: Any, where: str) -> dict[str, Any]:
    kind = _kind(tool)
    inner = _inner(tool, str(kind))
    if kind not in ("function", "custom") or not isinstance(inner.get("name"), str):
        raise unable(f"'{where}' is of the type {kind!r}; Claude is given functions and custom tools here", where)
    found = {"name": inner["name"]}
    if isinstance(description := inner.get("description"), str):
        found["description"] = description
    if kind == "custom":
        return found | {"input_schema": _text_input(inner.get("format"))}
    parameters = inner.get("parameters")
    found["input_schema"] = parameters if isinstance(parameters, dict) and parameters else ANYTHING
    mark = tool.get("cache_control") or inner.get("cache_control")
    return found | ({"cache_control": mark} if isinstance(mark, dict) else {})


def _text_input(form: Any) -> dict[str, Any]:
    """The object that stands for a custom tool's text; a grammar is told in words."""
    grammar = _inner(form, "grammar")
    definition = grammar.get("definition")
    text: dict[str, Any] = {"type": "string"}
    if isinstance(definition, str):
        text["description"] = f"The whole input, by this {grammar.get('syntax', 'lark')} grammar:\n{definition}"
    return {"type": "object", "properties": {"input": text}, "required": ["input"]}


def _allowed(choice: Any) -> list[Any] | None:
    if not isinstance(choice, dict) or choice.get("type") != "allowed_tools":
        return None
    tools = _listed(_inner(choice, "allowed_tools").get("tools"))
    return [_inner(t, str(_kind(t))).get("name") for t in tools]


def _kind(tool: Any) -> Any:
    return tool.get("type") if isinstance(tool, dict) else None


def _inner(tool: Any, kind: str) -> Mapping[str, Any]:
    found = tool.get(kind) if isinstance(tool, dict) else None
    return found if isinstance(found, dict) else {}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


KEPT = frozenset({
    "$defs", "$ref", "additionalProperties", "allOf", "anyOf", "const", "default", "definitions", "description", "enum",
    "format", "items", "minItems", "properties", "required", "title", "type",
})  # fmt: skip
"""Keywords that Claude's grammar knows. Others become part of the description, so that the model is told at least."""

SOME: dict[str, tuple[Any, ...]] = {
    "format": ("date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid"),
    "minItems": (0, 1),
}
"""Keywords of which it knows some values."""

_OF_ONE = frozenset({"additionalProperties", "items"})
_OF_NAMED = frozenset({"$defs", "definitions", "properties"})
_OF_LISTED = frozenset({"allOf", "anyOf"})


def closed(schema: Any) -> Any:
    """The schema with what Claude refuses said in words, and every object closed: it makes no others."""
    if not isinstance(schema, dict):
        return schema
    found: dict[str, Any] = {}
    words: dict[str, Any] = {}
    for name, value in schema.items():
        known = "anyOf" if name == "oneOf" else name
        if known not in KEPT or (name in SOME and value not in SOME[name]):
            words[name] = value
        elif known in _OF_NAMED and isinstance(value, dict):
            found[known] = {k: closed(v) for k, v in value.items()}
        elif known in _OF_LISTED and isinstance(value, list):
            found[known] = [closed(v) for v in value]
        elif known in _OF_ONE:
            found[known] = closed(value)
        else:
            found[known] = value
    if found.get("type") == "object" or "properties" in found:
        found["additionalProperties"] = False
    if words:
        said = [found["description"]] if isinstance(found.get("description"), str) else []
        found["description"] = " ".join([*said, orjson.dumps(words).decode()])
    return found

"""What a dataset keeps of a conversation's turns: texts, calls of functions, and their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from router.errors import BadRequest
from router.wire.rationale import parted
from router.wire.tools import OfferedTools

Turn = dict[str, Any]

_ROLES = ("system", "user", "assistant", "tool")


def plain(message: Mapping[str, Any], asked: Sequence[str]) -> Turn | None:
    """Role and text alone, without what a model thought, and what ties calls to their results; None where it says
    anything else. ``developer`` is what newer clients call ``system``."""
    said = text(message.get("content"))
    role = {"developer": "system"}.get(str(message.get("role")), str(message.get("role")))
    calls = calls_of(message)
    if said is None or calls is None or role not in _ROLES or (calls and role != "assistant"):
        return None
    found: Turn = {"role": role, "content": parted(said, asked).answer if role == "assistant" else said}
    if calls:
        found["tool_calls"] = calls
    if role == "tool":
        found["tool_call_id"] = str(message.get("tool_call_id") or "")
    return found


def text(content: Any) -> str | None:
    """A message's content as one string; None where it is anything but text."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in content):
        return "\n".join(p["text"] for p in content)
    return None


def calls_of(message: Mapping[str, Any], request: Mapping[str, Any] | None = None) -> list[Turn] | None:
    """A message's calls in chat's form; None where any is none of a function with an object for its arguments. These
    are in the order of the schema that the ``request`` offers, where one is given: in which the grammar has them."""
    told = message.get("tool_calls") or []
    schemas = _schemas(request) if told and request and offers_functions(request) else {}
    found = [_call(one, n, schemas) for n, one in enumerate(told)] if isinstance(told, list) else [None]
    return None if None in found or message.get("function_call") else [call for call in found if call]


def _call(call: Any, number: int, schemas: Mapping[str, Any]) -> Turn | None:
    function = call.get("function") if isinstance(call, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(name, str) or not name:
        return None
    try:
        value = orjson.loads(function.get("arguments") or "{}")
    except orjson.JSONDecodeError:
        return None
    if not isinstance(value, dict):
        return None
    arguments = orjson.dumps(_ordered(value, schemas.get(name))).decode()
    return {
        "id": str(call.get("id") or f"call_{number}"),
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def _schemas(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The offered functions' schemas, by name; None of what takes any text. Raises BadRequest."""
    offered = OfferedTools.of(request)
    return offered.parameters if offered else {}


def _ordered(value: Any, schema: Any) -> Any:
    """The value with its objects' fields in the schema's order, others behind them."""
    schema = schema if isinstance(schema, dict) else {}
    if isinstance(value, list):
        return [_ordered(item, schema.get("items")) for item in value]
    if not isinstance(value, dict):
        return value
    known = schema.get("properties")
    known = known if isinstance(known, dict) else {}
    names = [*(name for name in known if name in value), *(name for name in value if name not in known)]
    return {name: _ordered(value[name], known.get(name)) for name in names}


def uses_tools(request: Mapping[str, Any], turns: Sequence[Mapping[str, Any]]) -> bool:
    """Whether tools were offered, called or answered."""
    called = any(t.get("tool_calls") or t.get("role") == "tool" for t in turns)
    return called or bool(request.get("tools"))


def offers_functions(request: Mapping[str, Any]) -> bool:
    """Whether all tools that are offered, if any are, are functions that an engine could read; not in the older form,
    before there were tools."""
    try:
        return not request.get("functions") and None not in _schemas(request).values()
    except BadRequest:
        return False


def spoken(turn: Mapping[str, Any]) -> str:
    """A turn as one text, to be compared or looked at."""
    calls = [f"{c['function']['name']}({c['function']['arguments']})" for c in turn.get("tool_calls") or ()]
    return "\n".join(filter(None, (turn["content"], *calls)))
